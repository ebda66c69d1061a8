"""Judge claims by the cells of a session; run the cells of a violated claim again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import sides_of
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.results.history import one_per_start
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.errors import PdserveError

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session


class ClaimNotJudgedError(PdserveError):
    """Raised when a topology or a cell that a claim needs ended in an ERROR."""


def judge_claim(session: Session, claim: Claim) -> ClaimVerdict:
    """Judge *claim* by the cells of *session*, and add the verdict to the session.

    If claims are enforced and this one is violated by more than noise explains, its cells run again
    on fresh starts before it FAILs. The verdict is NOT ASKED if a topology was not run.

    :raises ClaimNotJudgedError: if a topology or a cell that it needs ended in an ERROR.
    :raises PdserveError: if its cells could not run again.
    """
    verdict = _not_asked(session, claim) or _judged(session, claim)
    while verdict.wants_pair and _run_again(session, verdict):
        verdict = _judged(session, claim)
    if why := session.session_judge.why_unconfirmed.get(("", verdict.subject)):
        verdict = replace(verdict, evidence=(*verdict.evidence, ("not run again", why)))
    session.claims.append((claim, verdict))
    return verdict


def _run_again(session: Session, verdict: ClaimVerdict) -> bool:
    """Run the cells of a violated claim on fresh starts; return whether that was done."""
    topologies = {topology: session.deployments.get(topology) for topology, _ in verdict.wants_pair}
    possible = all(d is not None and d.restartable for d in topologies.values())
    enforced = session.system.judgement.claims == "enforce"
    keys = _fewest_runs(session, verdict.wants_pair)
    if not (possible and enforced) or session.reruns_exhausted(len(keys), ("", verdict.subject)):
        return False
    session.progress(f"{verdict.subject}: violated; running {len(keys)} cells on fresh starts")
    for topology, deployment in topologies.items():
        own_keys = [key for key in keys if key[0] == topology]
        if deployment is None or not own_keys:
            continue
        for other in session.deployments.values():
            other.stop()
        try:
            deployment.restart()
            for key in own_keys:
                session.measure_again(deployment, session.cells[key])
        finally:
            deployment.stop()
    return True


def _fewest_runs(session: Session, keys: Sequence[Key]) -> list[Key]:
    """Return the cells of *keys* with the fewest runs; all if they have equally many."""
    runs = {key: len(one_per_start(session.cells[key].records)) for key in keys}
    return [key for key in keys if runs[key] == min(runs.values())]


def _not_asked(session: Session, claim: Claim) -> ClaimVerdict | None:
    run = session.broken.union(topology for topology, _ in (*session.cells, *session.invalid))
    absent = [topology for topology in claim.topologies if topology not in run]
    if session.system.figures is not None or not absent:
        return None
    was = "was" if len(absent) == 1 else "were"
    why = f"{', '.join(absent)} {was} not run; add --topology all"
    return ClaimVerdict(status=Status.NOT_ASKED, subject=claim.subject, misses=(why,))


def _judged(session: Session, claim: Claim) -> ClaimVerdict:
    lookup = session.session_judge.lookup_for(
        claim, session.tonight(), broken=session.broken, invalid=session.invalid.keys()
    )
    sides = sides_of(claim, session.system.sweep.points(), lookup)
    if troubles := sorted({side.trouble for side in sides if side.trouble}):
        raise ClaimNotJudgedError(f"claim not judged: {'; '.join(troubles)}")
    return session.session_judge.judge_claim(claim, lookup)
