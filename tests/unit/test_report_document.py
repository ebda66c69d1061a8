"""The report of a session as a value: what is in it, its first line, and its order."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.judge.limits import Reference
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.report.document import PytestOutcomes
from pytest_pdserve.report.document import session_report
from pytest_pdserve.report.document import unmeasured_report
from pytest_pdserve.report.subjects import topology_report
from pytest_pdserve.report.writing import format_of
from pytest_pdserve.report.writing import write_report
from pytest_pdserve.results.kinds import REPORT
from pytest_pdserve.results.store import load_report
from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.phases import SessionPhases
from pytest_pdserve.session.session import Session
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import OUTCOMES
from pytest_pdserve.values.report import MetricReport
from pytest_pdserve.values.report import Reason
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.system import System
from tests.support.records import METRICS
from tests.support.reports import SESSION
from tests.support.reports import cell
from tests.support.reports import claim
from tests.support.reports import report_of
from tests.support.sessions import CELL
from tests.support.sessions import cell_in
from tests.support.sessions import session_in
from tests.support.stored_nights import Shelf

MakeCell = Callable[..., Cell]
KEY = ("1p3d", CELL)
NO_TESTS = PytestOutcomes()


@pytest.fixture
def session(tmp_path: Path, p5_efa: System) -> Session:
    """A session that has measured nothing yet."""
    return session_in(tmp_path, p5_efa, fingerprint="0123456789ab")


@pytest.fixture
def make_cell(make_record: Callable[..., Record], tmp_path: Path) -> MakeCell:
    return partial(cell_in, tmp_path, make_record)


def only(report: Report) -> VerdictReport:
    (verdict,) = report.verdicts
    return verdict


def metrics(report: Report) -> Mapping[str, MetricReport]:
    return {metric.metric: metric for metric in only(report).metrics}


def test_every_status_has_an_outcome_and_a_cell_may_be_measured_alone() -> None:
    assert set(OUTCOMES) == {*map(str, Status), "MEASURED"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"measured": False}, "Nothing was measured on p5-efa"),
        (
            {"measured": False, "ended": False},
            "No results of p5-efa: the session did not come to its end",
        ),
        (
            {"errors": (Reason(subject="t", why="no\nnodes \x1b[0m"),)},
            "Nothing was measured on p5-efa: no nodes [0m; 1 error without a verdict",
        ),
        ({"verdicts": (cell(), claim())}, "FAIL on p5-efa: 1 FAIL, 1 PASS"),
        (
            {"verdicts": (cell(),), "simulated": True, "ended": False},
            "FAIL on p5-efa (SIMULATED, no server ran): 1 FAIL; "
            "the session did not come to its end",
        ),
        (
            {"verdicts": (claim(),), "measured": False, "figures": True},
            "PASS on p5-efa (FIGURES, nothing was measured): 1 PASS",
        ),
        (
            {"verdicts": (claim(kind="smoke"),), "measured": False},
            "Nothing was measured on p5-efa; PASS on p5-efa: 1 PASS",
        ),
        (
            {"verdicts": (claim(),), "errors": (Reason(subject="t", why="w"),) * 2},
            "ERROR on p5-efa: 1 PASS; 2 errors without a verdict",
        ),
        (
            {"verdicts": (cell(status="NEW"),), "tests": {"passed": 3, "failed": 1}},
            "NEW on p5-efa: 1 NEW; 1 test failed",
        ),
    ],
)
def test_the_first_line_says_what_became_of_the_session(fields: dict[str, Any], said: str) -> None:
    assert report_of(*fields.pop("verdicts", ()), **fields).headline == said


def test_the_first_line_is_never_long() -> None:
    report = report_of(errors=(Reason(subject="t", why="x" * 5000),))
    assert len(report.headline) == 300


def test_verdicts_are_in_order_the_worst_first() -> None:
    given = [cell(status=status) for status in reversed(OUTCOMES)]
    mild, bad = cell(severity=1.0), cell(severity=3.0)
    report = report_of(mild, *given, bad)
    assert [each.severity for each in report.verdicts[:3]] == [3.0, 2.1, 1.0]
    assert [each.status for each in report.verdicts[2:]] == list(OUTCOMES)
    assert report.outcomes["FAIL"] == 3


def test_what_was_not_judged_says_why() -> None:
    report = report_of(
        cell(status="NOT JUDGED", misses=("every latency is void",)),
        claim(status="NOT ASKED", misses=("dp was not run; add --topology all",)),
        cell(status="MEASURED", misses=("no test judged it",)),
        cell(),
        not_judged=(Reason(subject="test_x", why="needs 4 nodes"),),
    )
    assert [(each.subject, each.why) for each in report.not_judged] == [
        ("1p3d random-512-256-n4", "every latency is void"),
        ("1p3d random-512-256-n4", "no test judged it"),
        ("itl", "dp was not run; add --topology all"),
        ("test_x", "needs 4 nodes"),
    ]


def test_a_report_is_what_was_written(tmp_path: Path) -> None:
    whole, folder = report_of(cell(), claim()), tmp_path / SESSION.id
    write_report(whole, folder / "report.json", "json")
    assert load_report(folder) == whole
    assert load_report(tmp_path) is None


def test_a_report_of_another_session_is_refused(tmp_path: Path) -> None:
    write_report(report_of(cell()), tmp_path / "report.json", "json")
    with pytest.raises(ConfigError, match=r"/session/id: is '2026.*', expected the folder's name"):
        load_report(tmp_path)


def test_a_status_that_nobody_gives_is_refused() -> None:
    data = REPORT.dump(report_of(cell()), "r.json")
    data["verdicts"][0]["status"] = "FINE"
    with pytest.raises(ConfigError, match=r"^r\.json: /verdicts/0/status: 'FINE' is not one of"):
        REPORT.parse(data, "r.json")


@pytest.mark.parametrize("name", ["a.txt", "a", "md", "a.md.bak"])
def test_a_file_whose_suffix_names_no_format_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"expected a file name that ends in \.md, \.html, \.json, "
    ):
        format_of(Path(name))


# Of a session.


def test_a_session_that_measured_nothing_reads_no_baseline(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "baselines" / "p5-efa" / "sweep.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    report = session_report(session, NO_TESTS)
    assert (report.measured, report.status, report.verdicts) == (False, None, ())
    assert report.headline == "Nothing was measured on p5-efa"
    assert report.session == session.store.session


def test_a_judged_metric_has_the_numbers_of_its_verdict(
    session: Session, make_cell: MakeCell, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    Shelf(folder=tmp_path, make_record=make_record).baseline()
    session.cells[KEY] = make_cell({"mean_itl_ms": 11.0, "output_throughput": 450.0})
    verdict = session.judge(session.cells[KEY])
    report = session_report(session, NO_TESTS)
    assert only(report).status == verdict.status == "SUSPICIOUS"
    assert only(report).misses == verdict.misses
    itl, rate = metrics(report)["mean_itl_ms"], metrics(report)["output_throughput"]
    assert [itl.value, itl.reference, itl.nights] == pytest.approx([11, 10, 20])
    assert [itl.change, itl.limit] == pytest.approx([0.1, 0.04])
    assert [rate.change, rate.limit] == pytest.approx([-0.1, -0.0385], abs=1e-4)
    assert report.baseline.startswith(str(tmp_path / "baselines" / "p5-efa" / "sweep.json"))


def test_a_cell_names_its_records_from_the_run_folder_on(
    session: Session, make_cell: MakeCell
) -> None:
    session.cells[KEY] = make_cell()
    session.judge(session.cells[KEY])
    said = only(session_report(session, NO_TESTS))
    assert said.records == (f"1p3d/{CELL}.0.record.json",)
    assert {each.label for each in said.evidence} == {"reference", "rerun", "accept"}
    assert said.status == "NEW"


def test_a_void_value_is_not_shown(session: Session, make_cell: MakeCell) -> None:
    finding = Finding(check="c", severity="note", message="m", voids=("mean_itl_ms",))
    session.cells[KEY] = make_cell(findings=(finding,))
    found = metrics(session_report(session, NO_TESTS))
    assert (found["mean_itl_ms"].value, found["mean_itl_ms"].void) == (None, True)
    assert found["mean_ttft_ms"].value == METRICS["mean_ttft_ms"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_no_file_can_hold_is_no_value(
    value: float, session: Session, make_cell: MakeCell
) -> None:
    session.cells[KEY] = make_cell({"mean_itl_ms": value})
    report = session_report(session, NO_TESTS)
    assert metrics(report)["mean_itl_ms"].value is None
    REPORT.dump(report, "r.json")


@pytest.mark.parametrize(
    ("waits", "why"),
    [
        (False, "no test judged it"),
        (True, "measured on fewer than 1 starts when the session ended"),
    ],
)
def test_a_cell_without_a_verdict_is_measured(
    waits: bool, why: str, session: Session, make_cell: MakeCell
) -> None:
    session.cells[KEY] = make_cell()
    session.waiting |= {KEY} if waits else set()
    said = only(session_report(session, NO_TESTS))
    assert (said.status, said.misses) == ("MEASURED", (why,))


def test_an_invalid_run_is_an_error_with_its_finding(session: Session, make_cell: MakeCell) -> None:
    finding = Finding(check="completed", severity="invalid", message="3 of 4 completed")
    session.invalid[KEY] = make_cell(findings=(finding,))
    report = session_report(session, NO_TESTS)
    assert (report.status, report.measured) == ("ERROR", True)
    assert only(report).misses == ("invalid: completed: 3 of 4 completed",)
    assert [(f.severity, f.cells) for f in report.findings] == [("invalid", (f"1p3d {CELL}",))]


def test_a_verdict_of_a_test_of_servers_is_told(session: Session) -> None:
    verdict = Verdict(status=Status.FAIL, subject="1p3d answers", misses=("2 of 3 tokens",))
    session.smoke["suites/smoke/test_smoke.py::test_answers[1p3d]"] = ("1p3d", verdict)
    said = only(session_report(session, NO_TESTS))
    assert (said.kind, said.status, said.topologies) == ("smoke", "FAIL", ("1p3d",))
    assert said.title.endswith("test_answers[1p3d]")


def test_what_differs_from_the_baseline_is_told_one_by_one(
    session: Session, make_cell: MakeCell, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    Shelf(folder=tmp_path, make_record=make_record).baseline()
    cluster = {"kind": "slurm", "nodes": ("node0", "node7")}
    versions = {"vllm": "0.15.2", "nixl": "0.10.1"}
    session.provenance = replace(session.provenance, versions=versions, cluster=cluster)
    session.cells[KEY] = make_cell(nodes=("node0", "node7"))
    report = session_report(session, NO_TESTS)
    assert [(each.what, each.before, each.now) for each in report.differences] == [
        ("vLLM", "0.15.1", "0.15.2"),
        ("nodes", "node0, node1", "node0, node7"),
    ]
    assert session.session_judge.differences == "vLLM 0.15.1 -> 0.15.2, nodes node7 are new"
    assert report.not_measured == ()


def test_cells_of_the_baseline_that_a_measured_topology_lacks_are_named(
    session: Session, make_cell: MakeCell, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    shelf = Shelf(folder=tmp_path, make_record=make_record)
    longer = make_cell().workload.__class__(input_len=1024, output_len=256, num_prompts=4)
    shelf.baseline(workloads=(make_cell().workload, longer))
    session.cells[KEY] = make_cell()
    assert session_report(session, NO_TESTS).not_measured == ("1p3d random-1024-256-n4",)


def test_time_and_cost_are_those_of_the_summary(session: Session, p5_efa: System) -> None:
    moments = iter([0.0, *([3600.0] * 9)])
    session.phases = SessionPhases(clock=lambda: next(moments))
    report = session_report(session, NO_TESTS)
    assert report.phases is not None
    assert (report.phases.total_s, report.phases.ended, report.cost) == (3600.0, True, None)
    session.system = replace(p5_efa, simulated=True)
    assert session_report(session, NO_TESTS).phases is None


def test_a_secret_stands_in_no_report(p5_efa: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDSERVE_API_KEY", "correct-horse-battery")
    why = "401 for key correct-horse-battery"
    report = unmeasured_report(p5_efa, errors=(Reason(subject="test_x", why=why),))
    assert "correct-horse-battery" not in str(REPORT.dump(report, "r.json"))
    assert "<PDSERVE_API_KEY>" in report.headline


@pytest.mark.parametrize(
    ("metric", "change", "improved"),
    [
        ("mean_itl_ms", -0.06, True),
        ("mean_itl_ms", -0.04, False),
        ("mean_itl_ms", 0.06, False),
        ("output_throughput", -0.06, True),
    ],
)
def test_a_metric_is_improved_tonight_beyond_its_limit(
    metric: str, change: float, improved: bool
) -> None:
    reference = Reference(median=1.0, spread=0.0, nights=20, limit=0.05, fail_limit=0.05)
    tonight = MetricNight(reference=reference, changes=(change,))
    seen = MetricVerdict(metric=metric, status=Status.PASS, tonight=tonight, nights=0)
    verdict = Verdict(status=Status.PASS, subject="dp", metrics=(seen,))
    (found,) = topology_report("dp", verdict).metrics
    assert found.improved_tonight is improved
