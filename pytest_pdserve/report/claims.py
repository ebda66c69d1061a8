"""Claims in the terminal's summary."""

from __future__ import annotations

from collections import Counter

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.session.session import Session

_MAX_LISTED = 12
"""Claims that are all listed; of more, those that pass are only counted."""


def claim_lines(session: Session) -> list[str]:
    """Return a line for each claim; of many claims their counts, and those that do not PASS."""
    many = len(session.claims) > _MAX_LISTED
    outcomes = [
        (claim, verdict, claim_outcome(session, verdict)) for claim, verdict in session.claims
    ]
    lines = []
    if many:
        counts = Counter(outcome for _, _, (outcome, _) in outcomes)
        lines.append("claims: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
    for claim, verdict, (outcome, detail) in outcomes:
        if not (many and verdict.status in (Status.PASS, Status.NOT_ASKED)):
            miss = "" if verdict.expected else _first_miss(verdict)
            lines.append(f"claim {claim.id}: {outcome}{detail and f': {detail}'}{miss}")
    alone = [claim.id for claim, _ in session.claims if claim.caution]
    if alone:
        which = ", ".join(alone) if len(alone) < _MAX_LISTED else f"{len(alone)} claims"
        lines.append(
            f"caution: {which}: ITL of a disaggregated topology by itself, which also falls where "
            "decode instances starve (docs/claims.md)"
        )
    return lines


def _first_miss(verdict: ClaimVerdict) -> str:
    """Return the first miss in parentheses, and how many more there are; empty without one."""
    if not verdict.misses:
        return ""
    more = len(verdict.misses) - 1
    return f" ({verdict.misses[0]}{f'; and {more} more' if more else ''})"


def claim_outcome(session: Session, verdict: ClaimVerdict) -> tuple[str, str]:
    """Return the outcome of a claim and its detail, which may be empty."""
    if verdict.status is Status.REPORTED:
        return str(verdict.status), f"does not hold; not enforced on {session.system.name}"
    return str(verdict.status), verdict.detail
