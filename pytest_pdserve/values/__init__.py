"""Frozen values and their parsing, without I/O or clock."""
