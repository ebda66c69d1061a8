"""A judged session as JSON: every test."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from pytest_pdserve.judge.verdict import Verdict
    from pytest_pdserve.session.rejudge import Judged


def render(judged: Judged) -> str:
    """Return :func:`content` as a text."""
    return json.dumps(content(judged))


def content(judged: Judged) -> dict[str, Any]:
    """All verdicts; numbers that are not there are null.

    Keys: ``run_id``, ``nights_before``, ``icc`` by metric; ``exit_code`` of the command;
    ``invalid``, cells; ``unreadable``, a sentence for each file; ``not_measured``, cells of the
    baseline without a run; ``unproven``, sentences; ``cells`` and ``topologies`` by name with
    ``verdict``, ``misses``; ``again``, cells to be run again;
    ``tests``, one a metric and cell that was measured (``runs`` is 0 where no run has the metric)
    and one a metric and topology.
    """
    nightly = judged.session_judge.expectation
    tests = nightly.judge(judged.session.runs()) if nightly else ()
    valid = {" ".join(key) for key in judged.cells if key not in judged.invalid}
    return {
        "run_id": judged.session.run_id,
        "system": judged.session.records[0].system,
        "simulated": judged.session.records[0].simulated,
        "nights_before": len(judged.session_judge.history.nights),
        "icc": nightly.icc if nightly else {},
        "exit_code": judged.exit_code,
        "invalid": [" ".join(key) for key in judged.invalid],
        "unreadable": list(judged.session.unreadable),
        "unproven": list(judged.unproven),
        "not_measured": [" ".join(key) for key in judged.not_measured],
        "cells": {" ".join(key): _said(verdict) for key, verdict in judged.cells.items()},
        "topologies": {name: _said(verdict) for name, verdict in judged.topologies.items()},
        "again": [" ".join(key) for key in judged.again],
        "tests": [
            {k: None if isinstance(v, float) and v - v != 0 else v for k, v in asdict(t).items()}
            for t in tests
            if t.runs or t.cell in valid
        ],
    }


def _said(verdict: Verdict) -> dict[str, Any]:
    return {"verdict": str(verdict.status), "misses": list(verdict.misses)}
