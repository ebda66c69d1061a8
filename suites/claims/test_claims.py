"""Claims that relate topologies, judged by the measurements.

``claims.toml`` is judged on every system: claims that should hold with any stack. ``article.toml``,
all claims of the article, is judged on clusters as large as the article's. With ``--system
article`` nothing is measured: both files are judged by the article's figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pdserve import Claim


@pytest.mark.pdserve_claims("claims.toml")
@pytest.mark.pdserve_last
def test_claim(pdserve_claim: Claim, pdserve_judge_claim: Callable[[Claim], None]) -> None:
    """Judge whether the claim holds in all cells of its regime."""
    pdserve_judge_claim(pdserve_claim)


@pytest.mark.pdserve_claims("article.toml")
@pytest.mark.pdserve_requires(nodes=4, gpus_per_node=8)
@pytest.mark.pdserve_last
def test_article(pdserve_claim: Claim, pdserve_judge_claim: Callable[[Claim], None]) -> None:
    """Judge a claim of the article; ``expected.toml`` names the claims that are known to fail."""
    pdserve_judge_claim(pdserve_claim)
