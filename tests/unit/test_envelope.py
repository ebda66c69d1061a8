"""Judging the runs of a cell: valid runs in, one verdict with every miss out."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pytest_pdserve.judge.envelope import describe
from pytest_pdserve.judge.envelope import judge_cell
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sources import Sources

MakeRecord = Callable[..., Record]


def limit(metric: str, ref: float, rtol: float = 0.1, issue: str | None = None) -> Envelope:
    better, unit = METRICS[metric].better, METRICS[metric].unit
    return Envelope(ref=ref, rtol=rtol, better=better, unit=unit, runs=5, known_issue=issue)


SESSION = SessionRef(id="20260814T101500-p5-efa", started_at="2026-08-14T10:15:00.000Z")


def baseline(envelopes: Mapping[str, Envelope], topology: str = "1p3d") -> Baseline:
    return Baseline(
        system="p5-efa",
        suite="sweep",
        source="baselines/p5-efa/sweep.json",
        provenance=Sources(
            date="2026-08-14", runs=(SESSION,), fingerprint=None, versions={"vllm": "0.15.1"}
        ),
        cells={topology: {"random-512-256-n4": envelopes}},
    )


SOUND = {
    "mean_ttft_ms": limit("mean_ttft_ms", 100.0),
    "output_throughput": limit("output_throughput", 500.0),
    "failed": limit("failed", 0.0, rtol=0.0),
}


def test_a_run_within_its_envelopes_passes(make_record: MakeRecord) -> None:
    verdict = judge_cell([make_record()], baseline(SOUND))
    assert (verdict.status, verdict.misses) == ("PASS", ())
    assert verdict.subject == "1p3d, random-512-256-n4, p5-efa"
    assert verdict.evidence == (
        ("baseline", "baselines/p5-efa/sweep.json (vLLM 0.15.1, 2026-08-14)"),
    )


def test_every_miss_is_told_with_value_limit_and_reference(make_record: MakeRecord) -> None:
    run = make_record({"mean_ttft_ms": 412.7, "output_throughput": 449.0, "failed": 1.0})
    verdict = judge_cell([run], baseline(SOUND))
    assert verdict.status == "FAIL"
    assert verdict.misses == (
        "failed = 1 requests, envelope == 0 requests (ref 0 requests, 5 runs)",
        "mean_ttft_ms = 412.7 ms, envelope <= 110 ms (ref 100 ms, 5 runs)",
        "output_throughput = 449 tok/s, envelope >= 450 tok/s (ref 500 tok/s, 5 runs)",
    )


def test_the_unit_of_evidence_is_a_run(make_record: MakeRecord) -> None:
    slow_once = [make_record({"mean_ttft_ms": value}) for value in (100.0, 100.0, 130.0)]
    assert judge_cell(slow_once, baseline(SOUND)).status == "PASS"
    slow = [make_record({"mean_ttft_ms": value}) for value in (100.0, 130.0, 130.0)]
    misses = judge_cell(slow, baseline(SOUND)).misses
    assert misses == ("mean_ttft_ms = 119.114 ms, envelope <= 110 ms (ref 100 ms, 5 runs)",)


@pytest.mark.parametrize(
    "known", [baseline(SOUND, topology="dp"), baseline({})], ids=["other cell", "empty cell"]
)
def test_a_cell_that_the_baseline_does_not_know_is_not_judged(
    known: Baseline, make_record: MakeRecord
) -> None:
    verdict = judge_cell([make_record()], known)
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses == (
        "no latency or throughput of this cell has a reference (baselines/p5-efa/sweep.json)",
    )


def test_counts_alone_are_no_judgement_of_speed(make_record: MakeRecord) -> None:
    verdict = judge_cell([make_record()], baseline({"failed": SOUND["failed"]}))
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses[0].startswith("no latency or throughput of this cell has a reference (")


def test_a_metric_that_runs_lack_fails_by_name(make_record: MakeRecord) -> None:
    whole = make_record()
    lacking = replace(
        whole, metrics={name: v for name, v in whole.metrics.items() if name != "mean_ttft_ms"}
    )
    misses = judge_cell([whole, lacking, lacking], baseline(SOUND)).misses
    assert misses == ("mean_ttft_ms is in the baseline, but 2 of 3 runs lack it",)


@pytest.mark.parametrize(
    ("metric", "values", "miss"),
    [
        (
            "mean_ttft_ms",
            (0.0, 100.0),
            "mean_ttft_ms: a timing or rate must be positive and finite: [0.0, 100.0]",
        ),
        ("failed", (0.0, 1.0), "failed: counts differ between runs: [0.0, 1.0]"),
    ],
    ids=["a time of 0", "counts that differ"],
)
def test_runs_without_one_number_fail(
    metric: str, values: tuple[float, ...], miss: str, make_record: MakeRecord
) -> None:
    runs = [make_record({metric: value}) for value in values]
    assert judge_cell(runs, baseline(SOUND)).misses == (miss,)


def test_what_sanity_voids_is_not_judged(make_record: MakeRecord) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=("mean_ttft_ms",))
    run = make_record({"mean_ttft_ms": 999.0}, findings=(note,))
    more = {**SOUND, "mean_itl_ms": limit("mean_itl_ms", 10.0)}
    assert judge_cell([make_record(), run], baseline(more)).status == "PASS"


def test_a_cell_whose_latencies_are_all_void_does_not_pass(make_record: MakeRecord) -> None:
    """Not even with a throughput as good as ever."""
    note = Finding(check="offered", severity="note", message="", voids=METRICS.latencies)
    verdict = judge_cell([make_record(findings=(note,))], baseline(SOUND))
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses[0].startswith("every latency that has a reference is void (")


def test_a_known_issue_may_miss_and_must_not_hold(make_record: MakeRecord) -> None:
    known = baseline({"mean_ttft_ms": limit("mean_ttft_ms", 100.0, issue="vllm#1")})
    assert judge_cell([make_record({"mean_ttft_ms": 412.7})], known).status == "PASS"
    met = judge_cell([make_record()], known)
    assert met.misses == (
        "mean_ttft_ms = 100 ms, envelope <= 110 ms (ref 100 ms, 5 runs) is met, though a known "
        "issue says it is not (vllm#1); remove known_issue",
    )


def test_one_run_is_no_plural() -> None:
    one = replace(limit("mean_ttft_ms", 100.0), runs=1)
    assert describe("mean_ttft_ms", one, 5.0).endswith("(ref 100 ms, 1 run)")


def test_runs_of_two_cells_are_not_judged_together(make_record: MakeRecord) -> None:
    with pytest.raises(ValueError, match="expected runs of one cell, got"):
        judge_cell([make_record(), make_record(topology="dp")], baseline(SOUND))
    with pytest.raises(ValueError, match="expected runs of one cell, got none"):
        judge_cell([], baseline(SOUND))
