"""A judged session for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_pdserve.judge.wording import describe_icc
from pytest_pdserve.report.table import text_table

if TYPE_CHECKING:
    from pytest_pdserve.session.rejudge import Judged


def render(judged: Judged) -> str:
    """Return a table of cells, and what is wrong with any."""
    return "\n".join(_lines(judged))


def _lines(judged: Judged) -> Iterator[str]:
    session_judge, session = judged.session_judge, judged.session
    if session.records[0].simulated:
        yield f"SIMULATED, no server ran: {session_judge.system.description}"
    rows = [
        (*key, verdict.status, "run again" if key in judged.again else "")
        for key, verdict in judged.cells.items()
    ]
    yield f"{session.run_id}, {session.night}"
    yield from text_table(("topology", "workload", "verdict", ""), rows, "llll")
    for verdict in (*judged.cells.values(), *judged.topologies.values()):
        if verdict.status != "PASS":
            yield f"{verdict.status}: {verdict.subject}"
            yield from (f"  {miss}" for miss in verdict.misses)
    yield from (f"unproven: {what}" for what in judged.unproven)
    yield from (f"unreadable: {why}" for why in session.unreadable)
    yield from (f"not measured: {' '.join(key)}" for key in judged.not_measured)
    nightly = session_judge.expectation
    yield f"baseline  {session_judge.baseline.origin if session_judge.baseline else 'none'}"
    if nightly is not None:
        icc = describe_icc(nightly.icc, calibrated=session_judge.calibration is not None)
        yield f"judged with {len(session_judge.history.nights)} nights before; {icc}"
    yield from (f"left out: {why}" for why in session_judge.history.unreadable)
