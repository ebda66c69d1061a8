"""Checks that the topology answers, over its intended path, and with the right tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.serving.smoke import judge_answer
from pytest_pdserve.serving.smoke import judge_parity
from pytest_pdserve.serving.smoke import judge_path

if TYPE_CHECKING:
    from pytest_pdserve import Deployment
    from pytest_pdserve import Verdict

End = Callable[["Verdict"], None]


def test_answers(pdserve_deployment: Deployment, pdserve_apply_verdict: End) -> None:
    """Check that the endpoint generates as many tokens as requested."""
    pdserve_apply_verdict(judge_answer(pdserve_deployment))


@pytest.mark.pdserve_requires(disaggregated=True)
def test_path_is_proven(pdserve_deployment: Deployment, pdserve_apply_verdict: End) -> None:
    """Check that every request moves one KV cache from prefill to decode, and no transfer fails."""
    pdserve_apply_verdict(judge_path(pdserve_deployment))


def test_greedy_output_is_a_single_instances(
    pdserve_deployment: Deployment, pdserve_apply_verdict: End
) -> None:
    """Compare greedy tokens of the topology with those of a single instance."""
    pdserve_apply_verdict(judge_parity(pdserve_deployment))
