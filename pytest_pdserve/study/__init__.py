"""Studies beside nightly verdicts: calibration, self-tests, replays, trends, topology search."""
