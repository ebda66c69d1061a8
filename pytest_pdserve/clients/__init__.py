"""The benchmark client ``precise``: what it sends, and times taken where bytes arrive."""
