"""What topologies are said to do better than each other, held against this session's cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve.judge.claims import Claim

CLAIMS = Path(__file__).with_name("claims.toml")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per claim of ``claims.toml``."""
    if "claim" in metafunc.fixturenames:
        from pytest_pdserve.results.baselines import load_claims  # noqa: PLC0415
        from pytest_pdserve.values.errors import ConfigError  # noqa: PLC0415

        try:
            claims = load_claims(CLAIMS)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error
        metafunc.parametrize("claim", claims, ids=lambda claim: claim.id)


@pytest.mark.pdserve_last
def test_claim(claim: Claim, pdserve_judge_claim: Callable[[Claim], None]) -> None:
    """The claim holds in every cell of its regime."""
    pdserve_judge_claim(claim)
