"""Backends: they start commands on nodes, or attach to servers that run already."""
