"""Servers that are up, and what they measured."""
