"""What the judgement of nights adds to the terminal's summary."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.judge.wording import describe_icc
from pytest_pdserve.session.session import Session


def night_lines(session: Session) -> list[str]:
    """What was seen at all: nights and runs; what is INCONCLUSIVE; topologies as a whole."""
    session_judge = session.session_judge
    nightly = session_judge.expectation if session_judge.nights_judged else None
    if nightly is None:
        return []
    cells = [cell for key, cell in session.cells.items() if nightly.knows(key)]
    runs = sum(len(cell.records) for cell in cells)
    icc = describe_icc(nightly.icc, calibrated=session_judge.calibration is not None)
    lines = [
        f"judged by nights: {len(cells)} cells in {runs} runs, {len(session_judge.history.nights)} "
        f"nights before; {icc}"
    ]
    if nightly.rules.most_runs < nightly.rules.least_runs:
        lines.append(
            f"one night cannot FAIL here: a suspicious cell has {nightly.rules.most_runs} runs at "
            f"most, and {nightly.rules.least_runs} are needed (--pdserve-repeats, an endpoint of "
            "somebody else's); windows of nights and limits can"
        )
    if session.unconfirmed:
        cells_left = ", ".join(" ".join(key) for key in session.unconfirmed)
        lines.append(
            f"not confirmed, as {session.confirmations} runs on fresh starts are all that a "
            f"session makes: {cells_left}"
        )
    for (topology, workload), verdict in session.verdicts.items():
        if verdict.status is Status.INCONCLUSIVE:
            lines.append(f"inconclusive: {topology} {workload}: {_first(verdict)}")
    lines += _undecided(
        nightly.undecided({(c.topology, c.workload.id): c.records for c in cells}, 3)
    )
    for verdict in session.wholes.values():
        said = f": {_first(verdict)}" if verdict.misses else ""
        lines.append(f"{verdict.subject}: {verdict.status}{said}")
    lines += [f"left out of the nights before: {why}" for why in session_judge.history.unreadable]
    return lines


def _undecided(tests: Sequence[tuple[tuple[str, str], str]]) -> list[str]:
    """What three nights in a row could not decide: it will not be decided by waiting."""
    if not tests:
        return []
    said = [f"{' '.join(key)} {metric}" for key, metric in tests]
    more = f" and {len(said) - 3} more" if len(said) > 3 else ""
    return [
        f"inconclusive for 3 nights in a row: {', '.join(said[:3])}{more}; too noisy for "
        "their margin (more baseline nights, a quieter cell), or slowly getting worse"
    ]


def _first(verdict: Verdict) -> str:
    more = len(verdict.misses) - 1
    return verdict.misses[0] + (f" (and {more} more)" if more else "")
