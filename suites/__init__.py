"""The suites that users run: smoke, sweep, claims, and by name transfer."""
