"""State of one pytest session: settings, measured cells, verdicts."""
