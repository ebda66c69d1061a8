"""Verdicts, exit codes and metrics."""

from __future__ import annotations

from docs.reference_pages.fields import attribute_docs
from docs.reference_pages.markdown import code
from docs.reference_pages.markdown import inline
from docs.reference_pages.markdown import table
from pytest_pdserve.judge.verdict import UNSETTLED
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.metrics import METRICS

_OUTCOMES = {
    Status.EXPECTED: "xfailed",
    Status.FAIL: "failed",
    Status.NOT_JUDGED: "skipped",
    Status.NOT_ASKED: "skipped",
    Status.ERROR: "error",
}


def results_page() -> str:
    """Return the page of verdicts, exit codes and metrics."""
    return f"""\
# Verdicts, exit codes, metrics

## Verdicts

[How a night is judged](../judging.md) says when a cell gets which verdict.

{table(["verdict", "meaning", "outcome in pytest", "with `--pdserve-strict`"], map(_status, Status))}
## Exit codes

Of every command of `pdserve`. If several apply, the first of 3, 2, 4, 7, 1, 6 counts; [the page on judging](../judging.md#exit-codes-of-pdserve)
has the details of each command. pytest keeps its own exit codes: 0 passed, 1 failed, 2 interrupted, 4 usage error, 5 nothing was judged.

{table(["code", "name", "meaning"], map(_code, ExitCode))}
## Metrics

Every metric of a record. Judged metrics are compared with a reference; the floor is the smallest limit that a system has unless its
`[judgement.floors]` says otherwise; the gate margin is the largest loss that an [upgrade gate](../gate.md) accepts.

{table(["metric", "unit", "better", "judged", "floor", "gate margin"], map(_metric, METRICS))}"""


def _status(status: Status) -> list[str]:
    strict = "failed" if status in UNSETTLED or status is Status.NOT_JUDGED else "the same"
    outcome = _OUTCOMES.get(status, "passed")
    return [code(status), inline(attribute_docs(Status)[status.name]), outcome, strict]


def _code(each: ExitCode) -> list[str]:
    return [code(int(each)), each.text, inline(attribute_docs(ExitCode)[each.name])]


def _metric(name: str) -> list[str]:
    metric = METRICS[name]
    judged = "yes" if metric.judged else ""
    margin = "" if metric.gate_margin is None else f"{metric.gate_margin:.0%}"
    floor = f"{metric.floor:.0%}" if metric.judged and metric.better != "equal" else ""
    return [code(name), inline(metric.unit), metric.better, judged, floor, margin]
