"""Run upgrade gates on acquired nodes: starts of both stacks, their folder, their lock."""
