"""Where servers come from: a backend starts commands on nodes, or attaches to servers that run."""
