"""A stand-in for the package of vLLM: what its benchmark client is imported from."""

__version__ = "0.99.0"
