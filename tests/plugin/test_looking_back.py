"""What a session says because of nights before it: gains, alarms that go away, lost records."""

from __future__ import annotations

import shutil

import pytest

from tests.support.simulated import CELL
from tests.support.simulated import DP
from tests.support.simulated import ROOT
from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values
from tests.support.simulated import lines

ALARM, GONE = 0.2, 0.0


def nights(sim: SimulatedProject, *slower: float) -> pytest.RunResult:
    """Sessions of the one cell on successive nights, slower by a fraction each; the last result."""
    for number, by in enumerate(slower, start=1):
        sim.system(night=number, drift_per_night=(1 + by) ** (1 / number) - 1)
        result = sim.run(*DP)
    return result


def test_what_is_better_for_three_nights_is_to_be_accepted(known: SimulatedProject) -> None:
    assert not lines(nights(known, -0.1, -0.1), "better ")
    known.system(night=3, drift_per_night=0.9 ** (1 / 3) - 1)
    result = known.run(*DP)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            f"better for 3 nights: {CELL} * (and 4 more metrics). Accept it, so that a later loss "
            "is seen: pdserve baseline propose --system sim"
        ]
    )


@pytest.mark.slow
def test_one_night_cannot_fail_where_alarms_go_away(known: SimulatedProject) -> None:
    result = nights(known, ALARM, GONE, ALARM, GONE, ALARM)
    result.assert_outcomes(passed=1)
    (line,) = lines(result, "SUSPICIOUS: ")
    assert (
        "One night alone does not FAIL on this system, because earlier alarms were gone the next "
        "night; the next night settles it."
    ) in line
    assert lines(result, "one night cannot FAIL on this system: ") == [
        "one night cannot FAIL on this system: of the last 30 nights, 2 or more had an alarm that "
        "was gone the next night"
    ]
    known.system(night=6, drift_per_night=(1 + ALARM) ** (1 / 6) - 1)
    known.run(*DP).assert_outcomes(failed=1)


CLAIM = """
schema_version = 1
[[claim]]
id = "itl"
text = "ITL below 1P3D's"
kind = "below"
metric = "mean_itl_ms"
subject = "dp"
others = ["1p3d"]
panel = "prefill"
input_lens = [512]
reason = "none"
source = "here"
"""


@pytest.mark.slow
def test_a_violated_claim_that_is_not_enforced_is_reported_with_its_numbers(
    known: SimulatedProject,
) -> None:
    shutil.copytree(ROOT / "suites" / "claims", known.path / "suites" / "claims")
    (known.path / "suites" / "claims" / "claims.toml").write_text(CLAIM)
    for night in (1, 2):
        known.system(night=night, judgement={"claims": "report"})
        result = known.run("-k", "not article and (512-256 or itl)", "-v", "--junitxml", "said.xml")
        result.assert_outcomes(passed=3)
        result.stdout.fnmatch_lines(["*::test_claim?itl? REPORTED *"])
        assert 'name="pdserve_verdict" value="REPORTED"' in (known.path / "said.xml").read_text()
    result.stdout.re_match_lines(
        [
            r"claim itl: REPORTED: does not hold; not enforced on sim \(random-512-256-n64: "
            r"mean_itl_ms of dp = 23\.\d+ ms, claimed < 10\.\d+ ms \(1p3d 10\.\d+ ms, 2\.112 "
            r"times, violated by more than its noise of 4 %, as last night, margin 0 %\)\)$"
        ]
    )


def test_a_second_session_of_a_night_is_no_night_before(known: SimulatedProject) -> None:
    known.system(night=1, drift_per_night=0.03)
    for _ in range(2):
        assert lines(known.run(*DP), "SUSPICIOUS: ")


def test_a_record_that_cannot_be_read_is_left_out_and_named(known: SimulatedProject) -> None:
    known.run(*DP)
    (torn,) = known.path.glob("runs/*/dp/*.0.record.json")
    torn.write_text(torn.read_text()[:100])
    known.system(night=1)
    result = known.run(*DP)
    result.assert_outcomes(passed=1)
    (line,) = lines(result, "left out of the nights before: ")
    assert line.startswith(f"left out of the nights before: {torn} is not valid JSON")


def test_a_cell_that_sees_less_than_is_promised_says_why(
    sim: SimulatedProject, clean: Values
) -> None:
    sim.draw(clean, spread=0.03)
    result = sim.run(*DP)
    (line,) = lines(result, "1 of 1 cells see less than this system promises ")
    assert line.startswith(
        "1 of 1 cells see less than this system promises (mean_itl_ms 8 %, mean_ttft_ms 20 %, "
        f"p99_ttft_ms 80 %): dp {CELL.split()[1]} "
    )
    assert line.endswith(
        " (64 prompts last 6.27 s). More prompts or nights help (pdserve calibrate)"
    )
