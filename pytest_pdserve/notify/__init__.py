"""What a night found, told to people: an issue on GitHub for each regression."""
