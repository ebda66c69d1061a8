"""Checks that KV caches move between all pairs of nodes as fast as before, without a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_pdserve import Verdict


def test_pairs_are_no_slower_than_the_baseline(
    pdserve_transfer: Verdict, pdserve_apply_verdict: Callable[[Verdict], None]
) -> None:
    """Judge the transfer times of all pairs by the baseline and its limit."""
    pdserve_apply_verdict(pdserve_transfer)
