"""Reports built from values: a few verdicts, or thousands of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pytest_pdserve.report.document import finished
from pytest_pdserve.values.phases import Held
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.report import Difference
from pytest_pdserve.values.report import EvidenceLine
from pytest_pdserve.values.report import FindingReport
from pytest_pdserve.values.report import MetricReport
from pytest_pdserve.values.report import Reason
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.sessions import SessionRef

SESSION = SessionRef(id="20261120T220000-p5-efa", started_at="2026-11-20T22:00:00.000Z")
ITL = MetricReport(
    metric="mean_itl_ms",
    unit="ms",
    better="lower",
    value=5.21,
    judged=True,
    status="FAIL",
    reference=4.71,
    nights=20,
    change=0.106,
    runs=(0.098, 0.106, 0.112),
    limit=0.05,
)
THROUGHPUT = MetricReport(
    metric="output_throughput", unit="tok/s", better="higher", value=500.0, judged=True
)
COMPLETED = MetricReport(
    metric="request_throughput", unit="req/s", better="higher", value=2.0, judged=False
)
HOSTILE = {
    "pipes": "a | b || c |",
    "backticks": "`x` ``` ~~~",
    "script": "<script>alert(1)</script>",
    "the end of a fold": "</summary></details></table>",
    "a row of its own": "x\n| --- | --- |\n\n# title",
    "emphasis": "**a** _b_ [c](javascript:d) ![e](f)",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u202egnp.exe \u2067",
    "300 characters": "n" * 300,
    "3,000 characters": "<&|" * 1000,
}
"""Texts that must be shown as they are, by what is wrong with them."""


def cell(**fields: Any) -> VerdictReport:
    """Return a cell that FAILs; keywords replace."""
    made = VerdictReport(
        kind="cell",
        status="FAIL",
        subject="1p3d, random-512-256-n4, p5-efa",
        topologies=("1p3d",),
        workload="random-512-256-n4",
        misses=("mean_itl_ms 5.21 ms, reference 4.71 ms (20 nights): +10.6 %, limit +5 %.",),
        evidence=(EvidenceLine(label="baseline", text="sweep.json"),),
        severity=2.1,
        metrics=(ITL, THROUGHPUT, COMPLETED),
        runs=3,
        records=("1p3d/random-512-256-n4.0.record.json",),
    )
    return replace(made, **fields)


def claim(**fields: Any) -> VerdictReport:
    """Return a claim that holds; keywords replace."""
    made = VerdictReport(
        kind="claim",
        status="PASS",
        subject="ITL below DP's (itl)",
        name="itl",
        topologies=("1p3d", "dp"),
    )
    return replace(made, **fields)


def report_of(*verdicts: VerdictReport, **fields: Any) -> Report:
    """Return the report of a session on ``p5-efa``."""
    given: dict[str, Any] = {
        "measured": bool(verdicts),
        "system": "p5-efa",
        "session": SESSION,
        "folder": f"runs/{SESSION.id}",
        **fields,
    }
    return finished(Report(verdicts=verdicts, **given))


def cells(count: int, statuses: Iterable[Any], name: str = "random") -> list[VerdictReport]:
    """Return so many cells, whose statuses take turns, each with every kind of value."""
    turns = list(statuses)
    odd = [replace(ITL, value=value, change=value) for value in (None, math.nan, math.inf, 1e300)]
    return [
        cell(
            status=turns[n % len(turns)],
            workload=f"{name}-{n}",
            metrics=(odd[n % len(odd)], THROUGHPUT),
            severity=float(n % 7),
        )
        for n in range(count)
    ]


def hostile(text: str) -> Report:
    """Return a report that has *text* wherever a record, a file or a server can put one."""
    seen = cell(
        topologies=(text,),
        workload=text,
        subject=text,
        misses=(text, text),
        evidence=(EvidenceLine(label=text, text=text),),
        records=(text,),
    )
    return report_of(
        seen,
        claim(subject=text, name=text, status="REPORTED", misses=(text,)),
        claim(subject=text, name=text),
        system=text,
        description=text,
        session=SessionRef(id=text),
        folder=text,
        versions={text: text},
        tests={text: 1},
        errors=(Reason(subject=text, why=text),),
        not_judged=(Reason(subject=text, why=text),),
        not_measured=(text,),
        baseline=text,
        differences=(Difference(what=text, before=text, now=text),) * 20,
        findings=(FindingReport(severity="note", check=text, message=text, cells=(text, text)),),
        notes=(text,),
        phases=SessionTimes(seconds={"load": 1.0}, held=Held(nodes=1, gpus=8, currency=text)),
    )
