"""What is there of what sessions need: questions that change nothing and end in seconds."""
