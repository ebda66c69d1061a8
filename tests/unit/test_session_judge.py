"""What a session's judge says of runs beside their numbers: since when, where, whether to run."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.session.session_judge import brief
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from tests.support.stored_nights import LONG
from tests.support.stored_nights import SHORT
from tests.support.stored_nights import Shelf

MakeRecord = Callable[..., Record]
KEY = ("1p3d", SHORT.id)
LONGER = ("1p3d", LONG.id)
VERSIONS = {"vllm": "0.15.1", "nixl": "0.10.1"}
TONIGHT = SessionRef(id="20261120T220000-p5-efa", started_at="2026-11-20T22:00:00.000Z")
SLOW, FINE = 11.0, 10.0


@pytest.fixture
def shelf(tmp_path: Path, make_record: MakeRecord) -> Shelf:
    """A project with a baseline of 20 nights: 1p3d has an ITL of 10 ms, and a limit of 4 %."""
    made = Shelf(folder=tmp_path, make_record=make_record, night_sd=0.0, run_sd=0.0)
    made.baseline(workloads=(SHORT, LONG))
    return made


def judge_of(shelf: Shelf, **provenance: object) -> SessionJudge:
    given = {"versions": VERSIONS, "host": {}, "fingerprint": "0123456789ab", **provenance}
    return SessionJudge(
        system=shelf.system,
        provenance=Provenance(**given),  # type: ignore[arg-type]
        nodes_known=True,
        session=TONIGHT,
        runs=shelf.runs,
        state=shelf.folder / "state",
        rootdir=shelf.folder,
    )


@pytest.fixture
def runs(make_record: MakeRecord) -> Callable[..., list[Record]]:
    """A factory of runs by their ITL, ms, each on a fresh start."""

    def make(*itl_ms: float, **fields: object) -> list[Record]:
        return [
            make_record({"mean_itl_ms": value}, **{"start": start, **fields})
            for start, value in enumerate(itl_ms)
        ]

    return make


Runs = Callable[..., list[Record]]


def itl(verdict: Verdict) -> str:
    return next(miss for miss in verdict.misses if miss.startswith("mean_itl_ms"))


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        (VERSIONS, "First seen tonight."),
        ({"vllm": "0.15.2"}, "vLLM 0.15.1 -> 0.15.2 since the baseline."),
        ({"nixl": "0.11.0"}, "NIXL 0.10.1 -> 0.11.0 since the baseline."),
        ({"driver": "575"}, "driver unknown -> 575 since the baseline."),
        (
            {"vllm": "0.15.2", "nixl": "0.11.0"},
            "vLLM 0.15.1 -> 0.15.2, NIXL 0.10.1 -> 0.11.0 since the baseline.",
        ),
    ],
    ids=["nothing", "vLLM", "NIXL", "the driver", "two of them"],
)
def test_a_failure_says_what_is_not_as_in_the_baseline(
    versions: Mapping[str, str], said: str, shelf: Shelf, runs: Runs
) -> None:
    judge = judge_of(shelf, versions={**VERSIONS, **versions})
    assert itl(judge.judge(KEY, runs(SLOW, SLOW, SLOW))).endswith(said)


def test_a_failure_says_which_nodes_are_new(shelf: Shelf, runs: Runs) -> None:
    judge = judge_of(shelf, cluster={"nodes": ["node0", "node7"]})
    said = itl(judge.judge(KEY, runs(SLOW, SLOW, SLOW)))
    assert said.endswith("First seen tonight; nodes node7 are new since the baseline.")


def test_a_failure_names_the_node_that_all_slow_runs_had(
    shelf: Shelf, runs: Runs, make_record: MakeRecord
) -> None:
    def on(node: str, record: Record) -> Record:
        decode = ProcessRecord(name="decode[0]", node=node, argv=("vllm",), env={}, log="l")
        return replace(record, processes=(decode,))

    for day in (18, 19):
        processes = on("node1", make_record()).processes
        shelf.session(day, cells=("1p3d",), processes=processes)
    slow = [on("node9", record) for record in runs(SLOW, SLOW, SLOW)]
    assert itl(judge_of(shelf).judge(KEY, slow)).endswith(
        "All 3 slow runs had node9 as decode, and none of 2 other runs: suspect the node."
    )


def test_runs_on_servers_that_stay_up_are_no_starts(shelf: Shelf, runs: Runs) -> None:
    said = itl(judge_of(shelf).judge(KEY, runs(SLOW, SLOW, SLOW, start=None)))
    assert "Confirmed by 3 runs (+10 %)." in said


def test_a_suspicious_cell_says_why_it_did_not_run_again(shelf: Shelf, runs: Runs) -> None:
    judge = judge_of(shelf)
    judge.why_unconfirmed[KEY] = "the session ended"
    said = "Seen in 1 start; it takes 3 to confirm: the session ended."
    assert said in itl(judge.judge(KEY, runs(SLOW)))


@pytest.mark.parametrize(
    ("itl_ms", "said"),
    [
        ((FINE,), ""),
        ((10.2,), ""),
        ((10.3,), "mean_itl_ms +3 %, limit +4 %"),
        ((SLOW,), "mean_itl_ms +10 %, limit +4 %"),
        ((SLOW, 12.0), "mean_itl_ms +14.9 %, limit +4 %"),
        ((SLOW, FINE), ""),
        ((SLOW, SLOW, SLOW), ""),
    ],
    ids=["fine", "within", "within its limit", "slow", "slow twice", "gone", "confirmed"],
)
def test_a_cell_wants_a_run_while_every_run_is_suspicious(
    itl_ms: tuple[float, ...], said: str, shelf: Shelf, runs: Runs
) -> None:
    judge = judge_of(shelf)
    worst = judge.worst_suspicion(KEY, runs(*itl_ms))
    assert (brief(worst) if worst else "") == said
    assert (judge.suspicion(KEY, runs(*itl_ms)) > 0) is bool(said)


def test_repeats_on_one_start_are_one_run(shelf: Shelf, runs: Runs) -> None:
    assert judge_of(shelf).suspicion(KEY, runs(SLOW, SLOW, SLOW, start=0)) > 0


def test_the_worst_metric_of_a_cell_is_the_one_that_is_told(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    run = make_record({"mean_itl_ms": 10.5, "mean_ttft_ms": 150.0})
    worst = judge_of(shelf).worst_suspicion(KEY, [run])
    assert worst is not None
    assert brief(worst) == "mean_ttft_ms +50 %, limit +10 %"


@pytest.mark.parametrize(
    ("itl_ms", "said"),
    [((FINE, SLOW), "mean_itl_ms +4.9 %, limit +2 %"), ((FINE, FINE), "")],
    ids=["one of two", "fine"],
)
def test_a_topology_wants_its_cells_to_run_again_by_their_median(
    itl_ms: tuple[float, float], said: str, shelf: Shelf, runs: Runs
) -> None:
    tonight = {KEY: runs(itl_ms[0]), LONGER: runs(itl_ms[1], workload=LONG)}
    worst = judge_of(shelf).worst_of_topology("1p3d", tonight)
    assert (brief(worst) if worst else "") == said


def test_a_topology_of_one_cell_is_not_judged(shelf: Shelf, runs: Runs) -> None:
    shelf.baseline()
    judge = judge_of(shelf)
    assert judge.worst_of_topology("1p3d", {KEY: runs(SLOW)}) is None
    assert judge.judge_topology("1p3d", {KEY: runs(SLOW)}) is None


def test_what_is_expected_wants_no_run(shelf: Shelf, runs: Runs) -> None:
    (shelf.folder / "baselines" / "p5-efa" / "expected.toml").write_text(
        'schema_version = 1\n[[expected]]\nuntil = 9999-12-31\nowner = "ann"\nreason = "r"\n'
    )
    judge = judge_of(shelf)
    assert judge.suspicion(KEY, runs(SLOW)) == 0
    assert judge.worst_of_topology("1p3d", {KEY: runs(SLOW), LONGER: runs(SLOW)}) is None


def test_alarms_are_looked_back_at_only_where_there_is_one(shelf: Shelf, runs: Runs) -> None:
    for day in range(1, 5):
        slow = {"mean_itl_ms": SLOW} if day % 2 else {}
        shelf.session(day, cells=("1p3d",), repeats=3, metrics=slow)
    judge = judge_of(shelf)
    judge.judge(KEY, runs(FINE))
    assert not judge.alarms_went_away
    verdict = judge.judge(KEY, runs(SLOW, SLOW, SLOW))
    assert verdict.status == "SUSPICIOUS"
    assert judge.alarms_went_away


def test_a_cell_whose_latencies_are_all_void_is_not_judged(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    latencies = ("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms")
    note = Finding(check="offered", severity="note", message="m", voids=latencies)
    verdict = judge_of(shelf).judge(KEY, [make_record(findings=(note,))])
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses == ("every latency that has a reference is void",)


def test_a_verdict_names_the_baseline(shelf: Shelf, runs: Runs) -> None:
    path = shelf.folder / "baselines" / "p5-efa" / "sweep.json"
    shelf.baseline(approver="Ada", accepted_on="2026-10-31")
    said = dict(judge_of(shelf).judge(KEY, runs(FINE)).evidence)
    assert said == {"baseline": f"{path} (vLLM 0.15.1, NIXL 0.10.1, accepted by Ada on 2026-10-31)"}


def test_a_run_like_the_baseline_passes(shelf: Shelf, runs: Runs) -> None:
    assert judge_of(shelf).judge(KEY, runs(FINE)).status == "PASS"
