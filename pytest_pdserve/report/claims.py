"""Claims in the terminal's summary."""

from __future__ import annotations

from collections import Counter

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.session import Session

_FEW = 12
"""Claims that are all listed; of more, those that pass are only counted."""


def claim_lines(session: Session) -> list[str]:
    """One line per claim, or their count and the ones that do not simply hold."""
    many = len(session.claims) > _FEW
    said = [(claim, verdict, claim_status(session, verdict)) for claim, verdict in session.claims]
    lines = []
    if many:
        counts = Counter(status.partition(":")[0] for _, _, status in said)
        lines.append("claims: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    for claim, verdict, status in said:
        if not (many and verdict.status is Status.PASS):
            miss = f" ({verdict.misses[0]})" if verdict.misses and not verdict.known else ""
            lines.append(f"claim {claim.id}: {status}{miss}")
    alone = [claim.id for claim, _ in session.claims if claim.caution]
    if alone:
        which = ", ".join(alone) if len(alone) < _FEW else f"{len(alone)} claims"
        lines.append(
            f"caution: {which}: ITL of a disaggregated topology by itself, which also falls where "
            "decode instances starve (docs/claims.md)"
        )
    return lines


def claim_status(session: Session, verdict: ClaimVerdict) -> str:
    """What became of a claim, in a few words."""
    if verdict.known is not None:
        return f"KNOWN ISSUE: contradicted in {', '.join(verdict.contradicted)}: {verdict.known}"
    if verdict.status is Status.FAIL and session.system.judgement.claims == "report":
        return f"does not hold on {session.system.name}, where claims are reported, not enforced"
    return str(verdict.status)
