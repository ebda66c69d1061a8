"""``pdserve judge``: a stored session, judged as it would be by the baseline of today."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import system_named
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.system import System

if TYPE_CHECKING:
    from pytest_pdserve.judge.verdict import Verdict
    from pytest_pdserve.results.history import Key
    from pytest_pdserve.results.history import StoredSession
    from pytest_pdserve.session.session_judge import SessionJudge

FAILED = 1
"""Exit code where something is worse."""
UNJUDGED = 3
"""Exit code where nothing is, but something was not judged: invalid, unreadable, or missing."""


NAME = "judge"
TEXT = "Judge a stored session by the baseline and the nights before it; exit 1 on a FAIL"
DESCRIPTION = (
    f"{TEXT}, 3 where nothing FAILed but something was not judged: a cell that is INVALID, a "
    "record that cannot be read, a cell of the baseline without a run; 4 for bad input, also where "
    "nothing of the session can be read"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_system(parser)
    add_runs(parser)
    parser.add_argument("--json", action="store_true", help="Every test, as JSON")
    parser.add_argument(
        "--partial", action="store_true", help="Accept that cells of the baseline have no run"
    )
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="Folder in it (default: newest)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is said of a stored session."""

    session_judge: SessionJudge
    """What it was held against."""
    session: StoredSession
    """What was judged."""
    cells: dict[Key, Verdict | None]
    """Verdict of each cell that was measured; None if a run of it was invalid."""
    topologies: dict[str, Verdict]
    """Verdict of each topology as a whole, where nights judge it."""
    again: tuple[Key, ...]
    """Cells that would be run once more on a fresh start before a verdict."""
    partial: bool
    """Whether cells of the baseline may be without a run."""

    @property
    def invalid(self) -> tuple[Key, ...]:
        """Cells that were measured, of which a run is invalid."""
        return tuple(key for key, verdict in self.cells.items() if verdict is None)

    @property
    def not_measured(self) -> tuple[Key, ...]:
        """Cells of the baseline of which the session has no run that can be read."""
        baseline = self.session_judge.baseline
        return tuple(key for key in (baseline.keys if baseline else ()) if key not in self.cells)

    @property
    def failed(self) -> bool:
        """Whether anything is worse."""
        verdicts = (*self.cells.values(), *self.topologies.values())
        return any(verdict is not None and verdict.status == "FAIL" for verdict in verdicts)

    @property
    def exit_code(self) -> int:
        """What the command ends with: missing evidence is no 0."""
        if self.failed:
            return FAILED
        missing = self.not_measured and not self.partial
        return UNJUDGED if self.invalid or self.session.unreadable or missing else 0


def rejudge(
    system: System, runs: Path, run_id: str | None, *, state: Path, partial: bool = False
) -> Judged:
    """Judge a stored session of *system* below *runs*, the newest if none is named.

    :param state: folder of envelopes of single hosts.
    :param partial: whether cells of the baseline may be without a run.
    :raises ConfigError: if there is none, nothing of it can be read, or the baseline cannot be
        used.
    """
    from pytest_pdserve.results.building import Provenance
    from pytest_pdserve.results.selection import find_session
    from pytest_pdserve.session.session_judge import SessionJudge

    session = find_session(runs, system, run_id)
    first = session.records[0]
    session_judge = SessionJudge(
        system=system,
        provenance=Provenance(
            versions=first.versions,
            host=first.host,
            fingerprint=first.fingerprint,
            cluster=first.cluster,
        ),
        nodes_known="endpoint" not in first.host,
        session=session.session,
        runs=runs,
        state=state,
        most_runs=Rules().most_runs,
    )
    valid, counted, nightly = session.valid(), session.runs(), session_judge.expectation
    keys = dict.fromkeys((record.topology, record.workload.id) for record in session.records)
    wholes = {name: session_judge.judge_topology(name, counted) for name, _ in keys}
    return Judged(
        session_judge=session_judge,
        session=session,
        cells={key: session_judge.judge(valid[key]) if key in valid else None for key in keys},
        topologies={name: verdict for name, verdict in wholes.items() if verdict is not None},
        again=tuple(key for key in counted if nightly and nightly.suspicious(counted, key)),
        partial=partial,
    )


def run(options: argparse.Namespace) -> int:
    """Judge, and print what there is to say.

    :returns: the exit code.
    :raises ConfigError: as :func:`rejudge`.
    """
    from pytest_pdserve.results.baselines import state_folder

    judged = rejudge(
        system_named(options.system),
        options.runs,
        options.run_id,
        state=state_folder(),
        partial=options.partial,
    )
    print(json.dumps(to_json(judged)) if options.json else "\n".join(_lines(judged)))
    return judged.exit_code


def to_json(judged: Judged) -> dict[str, Any]:
    """All verdicts; numbers that are not there are null.

    Keys: ``run_id``, ``nights_before``, ``icc`` by metric; ``exit_code``, 1 on a FAIL, else 3 where
    one of these is not empty: ``invalid``, cells; ``unreadable``, a sentence for each file;
    ``not_measured``, cells of the baseline without a run (not with ``--partial``); ``cells`` and
    ``topologies`` by name with ``verdict``, ``misses``; ``again``, cells to be run again;
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


def _said(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"verdict": "INVALID", "misses": []}
    return {"verdict": str(verdict.status), "misses": list(verdict.misses)}


def _lines(judged: Judged) -> Iterator[str]:
    from pytest_pdserve.judge.wording import describe_icc
    from pytest_pdserve.report.table import text_table

    session_judge, session = judged.session_judge, judged.session
    if session.records[0].simulated:
        yield f"SIMULATED, no server ran: {session_judge.system.description}"
    rows = [
        (*key, verdict.status if verdict else "INVALID", "run again" if key in judged.again else "")
        for key, verdict in judged.cells.items()
    ]
    yield f"{session.run_id}, {session.night}"
    yield from text_table(("topology", "workload", "verdict", ""), rows, "llll")
    for verdict in (*judged.cells.values(), *judged.topologies.values()):
        if verdict is not None and verdict.status != "PASS":
            yield f"{verdict.status}: {verdict.subject}"
            yield from (f"  {miss}" for miss in verdict.misses)
    for record in session.records:
        yield from (f"INVALID: {record.cell}: {f.message}" for f in record.invalid)
    yield from (f"UNREADABLE: {why}" for why in session.unreadable)
    yield from (f"NOT MEASURED: {' '.join(key)}" for key in judged.not_measured)
    nightly = session_judge.expectation
    yield f"baseline  {session_judge.baseline.origin if session_judge.baseline else 'none'}"
    if nightly is not None:
        icc = describe_icc(nightly.icc, calibrated=session_judge.calibration is not None)
        yield f"judged with {len(session_judge.history.nights)} nights before; {icc}"
    yield from (f"left out: {why}" for why in session_judge.history.unreadable)
