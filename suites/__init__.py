"""The suites that users run: smoke, sweep, claims."""
