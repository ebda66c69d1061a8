"""A session's report for the textfile collector of Prometheus's node exporter."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry
from prometheus_client import Gauge
from prometheus_client import generate_latest

from pytest_pdserve.values.report import OUTCOMES
from pytest_pdserve.values.report import Report

_SUBJECT = ("system", "kind", "topology", "workload", "name")
"""Labels of what a verdict is about."""


def prometheus_text(report: Report) -> str:
    """Return the report as text in the exposition format; its first line is a comment.

    A cell's judged metrics are samples of ``pdserve_metric_value``; each verdict has a sample of
    ``pdserve_verdict`` for every status, 1 for its own. What has no value has no sample.
    """
    registry = CollectorRegistry()
    _add_session(report, registry)
    _add_verdicts(report, registry)
    _add_metrics(report, registry)
    return f"# {report.headline}\n{generate_latest(registry).decode()}"


def _add_session(report: Report, registry: CollectorRegistry) -> None:
    measured = _gauge("session_measured", "Whether the session measured anything.", registry)
    measured.labels(report.system).set(int(report.measured))
    began = report.session.began if report.session else None
    if began is not None:
        text = "When the session began, seconds since 1970."
        gauge = _gauge("session_start_timestamp_seconds", text, registry)
        gauge.labels(report.system).set(began.timestamp())
    if report.phases is not None:
        gauge = _gauge("session_duration_seconds", "How long the session took.", registry)
        gauge.labels(report.system).set(report.phases.total_s)


def _add_verdicts(report: Report, registry: CollectorRegistry) -> None:
    text = "Whether the verdict on a subject has this status."
    gauge = _gauge("verdict", text, registry, (*_SUBJECT, "status"))
    for verdict in reversed(report.verdicts):  # of two with the same labels the worse one stays
        where = (" ".join(verdict.topologies), verdict.workload or "", verdict.name)
        for status in OUTCOMES:
            labels = (report.system, verdict.kind, *where, status)
            gauge.labels(*labels).set(int(verdict.status == status))


def _add_metrics(report: Report, registry: CollectorRegistry) -> None:
    text = "Value of a judged metric of a cell, in the unit that its label names."
    labels = ("system", "topology", "workload", "metric", "unit")
    gauge = _gauge("metric_value", text, registry, labels)
    for verdict in report.verdicts:
        if verdict.status == "ERROR":  # its runs are invalid
            continue
        for metric in verdict.metrics:
            value = metric.value
            if (
                verdict.kind == "cell"
                and metric.judged
                and value is not None
                and math.isfinite(value)
            ):
                where = (report.system, verdict.topologies[0], verdict.workload or "")
                gauge.labels(*where, metric.metric, metric.unit).set(value)


def _gauge(
    name: str, text: str, registry: CollectorRegistry, labels: tuple[str, ...] = ("system",)
) -> Gauge:
    return Gauge(f"pdserve_{name}", text, labels, registry=registry)
