"""Transfers are measured only if the suite is named: ``pytest suites/transfer``."""

from __future__ import annotations

collect_ignore = ["transfer"]
