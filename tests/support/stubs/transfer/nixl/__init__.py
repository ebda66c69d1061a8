"""Stands for NIXL in tests of transfers: see ``_api``."""
