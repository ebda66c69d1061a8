"""The article's two panels: prompt length at a short output, output length at a short prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.session import Cell


@pytest.mark.pdserve_panels("prefill", "decode")
def test_sweep(pdserve_run: Cell, pdserve_judge: Callable[[Cell], None]) -> None:
    """A sane run of the cell is no worse than its envelope."""
    pdserve_judge(pdserve_run)
