"""Records and baselines, to and from files."""
