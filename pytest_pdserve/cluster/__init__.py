"""Nodes, and processes on them."""
