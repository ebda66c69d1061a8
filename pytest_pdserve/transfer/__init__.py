"""Transfers between nodes without a model: agents are started, measured, and ended."""
