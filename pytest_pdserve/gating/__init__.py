"""Upgrade gates run on held nodes: starts of both stacks, their folder, their lock."""
