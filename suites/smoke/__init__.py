"""Suite: smoke."""
