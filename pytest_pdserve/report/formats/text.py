"""A judged session for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.rules import RULE

if TYPE_CHECKING:
    from pytest_pdserve.session.rejudge import RejudgedSession

_ORDER = tuple(Status[name] for name in ("FAIL", "ERROR", "SUSPICIOUS", "EXPECTED"))


def render(judged: RejudgedSession) -> str:
    """Return a table of cells, and what is wrong with any, the worst first."""
    return "\n".join(_lines(judged))


def _lines(judged: RejudgedSession) -> Iterator[str]:
    session_judge, session = judged.session_judge, judged.session
    if session.records[0].simulated:
        yield f"SIMULATED, no server ran: {session_judge.system.description}"
    rows = [(*key, str(verdict.status)) for key, verdict in judged.cells.items()]
    sessions = sorted({record.session.id for record in session.records})
    yield f"{', '.join(sessions)}, {session.night}"
    yield from text_table(("topology", "workload", "verdict"), rows, "lll")
    verdicts = [*judged.topologies.values(), *judged.cells.values(), *(v for _, v in judged.claims)]
    verdicts = [each for each in verdicts if each.status not in (Status.PASS, Status.NOT_ASKED)]
    verdicts.sort(
        key=lambda each: (
            _ORDER.index(each.status) if each.status in _ORDER else len(_ORDER),
            -each.severity,
        )
    )
    for verdict in verdicts:
        yield f"{verdict.status}: {verdict.subject}"
        yield from (f"  {miss}" for miss in verdict.misses)
    if judged.unconfirmed:
        yield (
            f"not confirmed: {', '.join(judged.unconfirmed)}: a FAIL takes {RULE.max_runs} starts "
            "of one night, or a suspicious night before"
        )
    yield from (f"unproven: {what}" for what in judged.unproven)
    yield from (f"unreadable: {why}" for why in session.unreadable)
    yield from (f"not measured: {' '.join(key)}" for key in judged.not_measured)
    yield from session_judge.expected.problems
    yield f"baseline  {session_judge.baseline.origin if session_judge.baseline else 'none'}"
    yield from (f"left out: {why}" for why in session_judge.history.unreadable)
