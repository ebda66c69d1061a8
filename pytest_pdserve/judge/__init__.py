"""From records and baselines to verdicts. Pure."""
