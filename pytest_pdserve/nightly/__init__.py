"""The whole night: run the suites, tell what changed since last night, keep it, tell people."""
