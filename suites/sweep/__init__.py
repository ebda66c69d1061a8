"""Suite: sweep."""
