"""Do KV caches move between all pairs of nodes as fast as they did? No model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_pdserve import Verdict


def test_pairs_are_no_slower_than_the_baseline(
    pdserve_transfer: Verdict, pdserve_apply_verdict: Callable[[Verdict], None]
) -> None:
    """No pair takes longer than accepted runs did by more than the limit."""
    pdserve_apply_verdict(pdserve_transfer)
