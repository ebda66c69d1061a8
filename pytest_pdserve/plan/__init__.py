"""From a topology and nodes to argument lists and environments. Pure."""
