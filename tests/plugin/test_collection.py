"""What is collected, in which order, and that collecting touches nothing."""

from __future__ import annotations

import pytest

from tests.support.house import House
from tests.support.house import only_sentence
from tests.support.simulated import SimulatedProject


def ids(result: pytest.RunResult) -> list[str]:
    return [line.rpartition("::")[2] for line in result.outlines if "::" in line]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    "asked", ["--collect-only", "--setup-plan", "--fixtures", "--fixtures-per-test"]
)
def test_looking_touches_nothing(asked: str, house: House) -> None:
    house.suites("smoke", "sweep", "claims")
    house.system(cluster={"memory_per_instance_gib": 10_000})
    before = set(house.path.iterdir())
    result = house.run("--topology", "all", asked)
    assert result.ret == 0
    assert set(house.path.iterdir()) - before == set()
    assert house.survivors() == []


def test_ids_read(house: House) -> None:
    house.suites("sweep")
    house.system(sweep={"input_lens": [512, 1024], "output_lens": [256, 4096]})
    result = house.run("--topology", "1p3d", "--collect-only", "-q")
    assert ids(result) == [
        "test_sweep[1p3d-512-256]",
        "test_sweep[1p3d-1024-256]",
        "test_sweep[1p3d-512-4096]",
        "test_whole_topology[1p3d]",
    ]


def test_cells_are_grouped_by_topology_and_what_looks_at_several_comes_last(house: House) -> None:
    house.suites("smoke", "sweep", "claims")
    result = house.run("--topology", "2p2d,dp", "--collect-only", "-q")
    found = ids(result)
    topologies = [i.split("[")[1].split("-")[0].rstrip("]") for i in found[:-9]]
    assert topologies == sorted(topologies, key=["2p2d", "dp"].index)
    last = [*["test_whole_topology"] * 2, *["test_claim"] * 6, "test_article"]
    assert [name.split("[")[0] for name in found[-9:]] == last


@pytest.mark.parametrize(
    ("requested", "said"),
    [
        (
            "pdserve_run, pdserve_judge",
            "pdserve_workload is not set: mark the test with @pytest.mark.pdserve_panels("
            "'prefill', 'decode'), or with @pytest.mark.parametrize('pdserve_workload', "
            "[Workload(...)])",
        ),
        (
            "pdserve_claim, pdserve_judge_claim",
            "pdserve_claim is not set: mark the test with @pytest.mark.pdserve_claims("
            "'claims.toml'), a file next to the test",
        ),
    ],
    ids=["workload", "claim"],
)
def test_a_fixture_that_no_marker_sets_says_how_to_set_it_and_starts_nothing(
    requested: str, said: str, house: House
) -> None:
    house.pytester.makepyfile(f"def test_it({requested}): pass\n")
    result = house.pytester.runpytest_inprocess("--system", "stub", "--topology", "dp")
    result.assert_outcomes(errors=1)
    assert said in result.outlines
    assert not house.runs.exists()


OWN = """
import pytest
from pytest_pdserve import Workload
@pytest.fixture(params=[1, 2])
def pdserve_workload(request):
    return Workload(input_len=512, output_len=256, num_prompts=64 * request.param)
def test_own(pdserve_run, pdserve_judge):
    pdserve_judge(pdserve_run)
"""


def test_a_project_may_set_the_workload_by_a_fixture_of_its_own(sim: SimulatedProject) -> None:
    (sim.path / "suites" / "test_own.py").write_text(OWN)
    sim.run("-k", "test_own and dp").assert_outcomes(passed=2, deselected=10)
    assert {run["workload"]["num_prompts"] for run in sim.records()} == {64, 128}


def test_a_workload_of_a_projects_own_lies_beside_the_sweep(sim: SimulatedProject) -> None:
    (sim.path / "suites" / "test_own.py").write_text(OWN)
    result = sim.run("--collect-only", "-q")
    assert result.ret == 0
    assert {name for name in ids(result) if "own" in name} == {
        *("test_own[1-1p3d]", "test_own[2-1p3d]", "test_own[1-dp]", "test_own[2-dp]")
    }


def test_a_test_may_ask_for_its_topology_alone(house: House) -> None:
    house.pytester.makepyfile("def test_it(pdserve_topology): assert pdserve_topology.groups == 1")
    asked = ("--system", "stub", "--topology", "dp,1p3d", "-v")
    result = house.pytester.runpytest_inprocess(*asked)
    result.assert_outcomes(passed=2)
    assert not house.runs.exists()


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("pdserve_panels()", "pdserve_panels() does not fit pdserve_panels(*panels): "),
        ("pdserve_panels('load')", "pdserve_panels('load') does not fit pdserve_panels("),
        ("pdserve_requires(gpus=8)", "pdserve_requires(gpus=8) does not fit pdserve_requires("),
        ("pdserve_requires(nodes='4')", "pdserve_requires(nodes='4') does not fit "),
        ("pdserve_requires(True)", "pdserve_requires(True) does not fit pdserve_requires("),
        ("pdserve_claims()", "pdserve_claims() does not fit pdserve_claims(path): "),
        ("pdserve_claims('no.toml')", "*no.toml cannot be read: No such file or directory"),
    ],
)
def test_a_misused_marker_quotes_its_signature(marker: str, said: str, house: House) -> None:
    house.pytester.makepyfile(
        f"import pytest\n@pytest.mark.{marker}\ndef test_it(pdserve_deployment): pass\n"
    )
    result = house.pytester.runpytest_inprocess("--system", "stub", "--collect-only")
    sentence = only_sentence(result)
    assert sentence.startswith(said) or sentence.endswith(said.removeprefix("*"))


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ("nodes=8", "needs nodes >= 8, the system has 4"),
        ("gpus_per_node=2", "needs gpus_per_node >= 2, the system has 1"),
        ("disaggregated=True", "dp does not separate prefill and decode"),
    ],
)
def test_an_unmet_requirement_skips_with_both_numbers(
    requirement: str, reason: str, house: House
) -> None:
    house.pytester.makepyfile(
        f"import pytest\n@pytest.mark.pdserve_requires({requirement})\n"
        "def test_it(pdserve_deployment): pass\n"
    )
    arguments = ("--system", "stub", "--topology", "dp", "-rs")
    result = house.pytester.runpytest_inprocess(*arguments)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED * {reason}"])
    strict = house.pytester.runpytest_inprocess(*arguments, "--pdserve-strict")
    assert strict.ret == pytest.ExitCode.TESTS_FAILED
    strict.stdout.fnmatch_lines([f"*{reason} (--pdserve-strict)"])
    assert not house.runs.exists()


CLAIM = """
schema_version = 1
[[claim]]
id = "a"
text = "t"
kind = "below"
metric = "mean_itl_ms"
subject = "1p3d"
others = ["dp"]
panel = "decode"
output_lens = [256, 512]
reason = "r"
source = "s"
"""
SPREAD = """
kind = "spread"
metric = "mean_itl_ms"
topologies = ["1p3d", "dp"]
direction = "smaller"
versus = { panel = "prefill", input_lens = [511] }
"""
CROSSOVER = """
kind = "crossover"
metric = "mean_itl_ms"
subject = "1p3d"
others = ["dp"]
better_at = [512]
worse_at = [300]
"""
SIDES = CLAIM.partition("kind = ")[2].partition("panel")[0]
THERE = "the article's cells and those of 'stub' have"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("256, 512]", "256, 300]", f"output_lens has 300; {THERE} 8, 256, 512, 1024, 2048, 4096"),
        (
            "output_lens = [256, 512]",
            "input_lens = [500, 512, 7]",
            f"input_lens has 500, 7; {THERE} 32, 512, 1024, 2048, 4096",
        ),
        (f"kind = {SIDES}", SPREAD, f"versus.input_lens has 511; {THERE} "),
        (f"kind = {SIDES}", CROSSOVER, f"worse_at has 300; {THERE} 8, 256, "),
        (
            '"dp"',
            '"1p1d"',
            "compares topologies of unequal size on 'stub': 1p3d (4 nodes, 4 GPUs), ",
        ),
        ('"dp"', '"1p4"', "topology '1p4' is not of the form "),
    ],
)
def test_a_claim_that_names_what_does_not_exist_is_refused(
    old: str, new: str, said: str, house: House
) -> None:
    house.suites("sweep", "claims")
    path = house.path / "suites" / "claims" / "claims.toml"
    assert old in CLAIM
    path.write_text(CLAIM.replace(old, new))
    result = house.run("--topology", "1p3d,dp,1p1d", "--collect-only")
    sentence = only_sentence(result)
    assert "claims.toml: claim 'a'" in sentence
    assert said in sentence


@pytest.mark.parametrize(
    ("text", "topologies"),
    [
        (CLAIM, "all"),
        (CLAIM.replace("256, 512]", "8]"), "all"),
        (CLAIM.replace('"dp"', '"1p1d"'), "1p3d"),  # it is not asked
        (
            CLAIM.replace('"dp"', '"1p1d"')
            .replace("mean_itl_ms", "output_throughput")
            .replace('id = "a"', 'id = "a"\nper = "gpu"'),
            "1p3d,1p1d",
        ),
    ],
    ids=["article", "own cells", "unequal, not asked", "per GPU"],
)
def test_a_claim_that_can_be_judged_is_collected(text: str, topologies: str, house: House) -> None:
    house.suites("sweep", "claims")
    (house.path / "suites" / "claims" / "claims.toml").write_text(text)
    result = house.run("--topology", topologies, "--collect-only", "-q", "-k", "test_claim[a]")
    assert ids(result) == ["test_claim[a]"]
