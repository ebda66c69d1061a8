"""Suite: transfer."""
