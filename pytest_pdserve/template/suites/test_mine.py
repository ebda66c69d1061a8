"""What this team measures: the sweep of its system, a load of its own, and a claim."""

import pytest

from pytest_pdserve import Workload


@pytest.mark.pdserve_panels("prefill", "decode")
def test_sweep(pdserve_run, pdserve_judge):
    """Judge every cell of [sweep] in system.toml by its reference."""
    pdserve_judge(pdserve_run)


@pytest.mark.parametrize(
    "pdserve_workload", [Workload(input_len=2048, output_len=64, num_prompts=128)]
)
def test_long_prompts(pdserve_run, pdserve_judge):
    """Judge a workload of our own: long prompts, short answers."""
    pdserve_judge(pdserve_run)


@pytest.mark.pdserve_last
def test_whole_topology(pdserve_judge_topology):
    """Judge each metric over all cells of a topology: small changes may not show in one cell."""
    pdserve_judge_topology()


@pytest.mark.pdserve_claims("claims.toml")
@pytest.mark.pdserve_last
def test_claim(pdserve_claim, pdserve_judge_claim):
    """Judge a claim that relates topologies."""
    pdserve_judge_claim(pdserve_claim)
