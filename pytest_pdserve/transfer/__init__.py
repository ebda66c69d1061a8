"""Measures KV transfers between nodes without a model: starts NIXL agents and times reads."""
