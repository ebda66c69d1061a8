"""The pytest plugin: options, markers, fixtures, hooks."""
