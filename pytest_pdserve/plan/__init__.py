"""Plan a launch: from topology and nodes to argument lists and environments. No I/O."""
