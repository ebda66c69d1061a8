"""Suite: claims."""
