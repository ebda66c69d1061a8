"""A whole night: run the suites, find what changed since last night, store it, notify."""
