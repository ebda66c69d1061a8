"""Transfers are measured where the suite is named: ``pytest suites/transfer``."""

from __future__ import annotations

collect_ignore = ["transfer"]
