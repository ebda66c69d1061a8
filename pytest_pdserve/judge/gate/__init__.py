"""Upgrade gates: whether a candidate stack is worse than a baseline stack. Pure."""
