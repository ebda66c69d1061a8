"""What topologies are said to do better than each other, held against this session's cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.judge.claims import Claim


@pytest.mark.pdserve_claims("claims.toml")
@pytest.mark.pdserve_last
def test_claim(pdserve_claim: Claim, pdserve_judge_claim: Callable[[Claim], None]) -> None:
    """The claim holds in every cell of its regime."""
    pdserve_judge_claim(pdserve_claim)
