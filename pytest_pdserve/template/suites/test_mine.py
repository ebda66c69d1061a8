"""What this team measures: the sweep of its system, a load of its own, and a claim."""

import pytest

from pytest_pdserve import Workload


@pytest.mark.pdserve_panels("prefill", "decode")
def test_sweep(pdserve_run, pdserve_judge):
    """Every cell of [sweep] in system.toml is no worse than its reference."""
    pdserve_judge(pdserve_run)


@pytest.mark.parametrize(
    "pdserve_workload", [Workload(input_len=2048, output_len=64, num_prompts=128)]
)
def test_long_prompts(pdserve_run, pdserve_judge):
    """A load of our own: long prompts, short answers."""
    pdserve_judge(pdserve_run)


@pytest.mark.pdserve_last
def test_whole_topology(pdserve_judge_topology):
    """No metric is worse over all cells of a topology, by too little to show in one."""
    pdserve_judge_topology()


@pytest.mark.pdserve_claims("claims.toml")
@pytest.mark.pdserve_last
def test_claim(pdserve_claim, pdserve_judge_claim):
    """What topologies are said to do better than each other holds."""
    pdserve_judge_claim(pdserve_claim)
