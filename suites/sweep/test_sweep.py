"""The article's two panels: prompt length at a short output, output length at a short prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve import Cell


@pytest.mark.pdserve_panels("prefill", "decode")
def test_sweep(pdserve_run: Cell, pdserve_judge: Callable[[Cell], None]) -> None:
    """Judge a valid run of the cell by its reference."""
    pdserve_judge(pdserve_run)


@pytest.mark.pdserve_last
def test_whole_topology(pdserve_judge_topology: Callable[[], None]) -> None:
    """Judge the median of each metric over the topology's cells by its reference."""
    pdserve_judge_topology()
