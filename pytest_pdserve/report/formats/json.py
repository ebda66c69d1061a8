"""A judged session as JSON: every metric of every cell and topology."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.values.metrics import METRICS

if TYPE_CHECKING:
    from pytest_pdserve.judge.cells import MetricVerdict
    from pytest_pdserve.judge.verdict import Verdict
    from pytest_pdserve.session.rejudge import RejudgedSession


def render(judged: RejudgedSession) -> str:
    """Return :func:`content` as a text."""
    return json.dumps(content(judged))


def content(judged: RejudgedSession) -> dict[str, Any]:
    """Return all verdicts.

    Keys: ``run_id``, ``system``, ``simulated``; ``exit_code`` of the command; ``nights_before``;
    ``one_night_can_fail``, false where alarms went away before; ``invalid``, cells; ``unreadable``,
    a sentence for each file; ``not_measured``, cells of the baseline without a run; ``unproven``,
    sentences; ``cells``, ``topologies`` and ``claims`` by name with ``verdict``, ``misses`` and
    ``metrics``; ``again``, cells that a session would run again.

    A metric has ``metric``, ``verdict``, ``unit``, ``reference`` (null of a topology), ``nights``
    of the reference, ``provisional``, ``runs`` and ``change`` (fractions: of each run, and of their
    median), ``limit`` (a fraction), ``suspicious_nights`` before, ``better``.
    """
    judge = judged.session_judge
    stay = judge.alarms_stay if "alarms_stay" in vars(judge) else True
    return {
        "run_id": judged.session.run_id,
        "system": judged.session.records[0].system,
        "simulated": judged.session.records[0].simulated,
        "nights_before": len(judge.history.nights),
        "one_night_can_fail": stay,
        "exit_code": judged.exit_code,
        "invalid": [" ".join(key) for key in judged.invalid],
        "unreadable": list(judged.session.unreadable),
        "unproven": list(judged.unproven),
        "not_measured": [" ".join(key) for key in judged.not_measured],
        "cells": {" ".join(key): _values_of(verdict) for key, verdict in judged.cells.items()},
        "topologies": {
            name: _values_of(verdict, valued=False) for name, verdict in judged.topologies.items()
        },
        "claims": {claim.id: _values_of(verdict) for claim, verdict in judged.claims},
        "again": [" ".join(key) for key in judged.again],
    }


def _values_of(verdict: Verdict, *, valued: bool = True) -> dict[str, Any]:
    return {
        "verdict": str(verdict.status),
        "misses": list(verdict.misses),
        "metrics": list(_metrics(verdict.metrics, valued=valued)),
    }


def _metrics(metrics: tuple[MetricVerdict, ...], *, valued: bool) -> Iterator[dict[str, Any]]:
    for verdict in metrics:
        metric, seen = METRICS[verdict.metric], verdict.tonight
        reference = seen.reference
        yield {
            "metric": verdict.metric,
            "verdict": str(verdict.status),
            "unit": metric.unit,
            "reference": as_value(reference.median, metric.better) if valued else None,
            "nights": reference.nights,
            "provisional": reference.is_provisional,
            "runs": [as_change(change, metric.better) for change in seen.changes],
            "change": as_change(seen.change, metric.better),
            "limit": as_change(reference.limit, metric.better),
            "suspicious_nights": verdict.nights,
            "better": verdict.is_better,
        }
