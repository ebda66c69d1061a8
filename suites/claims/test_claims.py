"""What topologies are said to do better than each other, held against what was measured.

``claims.toml`` is judged on every system: what a change of any stack should leave true.
``article.toml``, every claim of the article, is judged where the cluster is as large as its own.
Of ``--system article`` nothing is measured: both are judged by the article's figures.
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
    """The claim holds in every cell of its regime."""
    pdserve_judge_claim(pdserve_claim)


@pytest.mark.pdserve_claims("article.toml")
@pytest.mark.pdserve_requires(nodes=4, gpus_per_node=8)
@pytest.mark.pdserve_last
def test_article(pdserve_claim: Claim, pdserve_judge_claim: Callable[[Claim], None]) -> None:
    """The article's claim holds in every cell of its regime, but for what expected.toml names."""
    pdserve_judge_claim(pdserve_claim)
