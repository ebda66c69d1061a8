"""One session: its nodes, what it measured, and what that is held against."""
