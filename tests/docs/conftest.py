"""Factories of records for the folders in which commands of the pages run."""

from __future__ import annotations

from tests.unit.conftest import make_counts as make_counts
from tests.unit.conftest import make_record as make_record
