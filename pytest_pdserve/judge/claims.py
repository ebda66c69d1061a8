"""Judging claims: each cell's comparisons, what they add up to, and what was known of them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.kinds import JUDGES
from pytest_pdserve.judge.kinds import Finding
from pytest_pdserve.judge.kinds import Scene
from pytest_pdserve.judge.sides import Look
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.claim_parts import KnownIssue
from pytest_pdserve.values.claim_parts import Regime
from pytest_pdserve.values.sweep import Point

POINT = "point claim: one run per side, no variance"
UNPAIRED = "point claim: not the same runs on both sides, no variance"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict(Verdict):
    """A verdict that knows its cells."""

    known: str | None = None
    """Of a claim that fails exactly where that is known: what is known; None of any other."""
    contradicted: tuple[str, ...] = ()
    """Names of the cells that contradict the claim."""
    missing: bool = False
    """Whether a side was missing or unusable."""

    @property
    def reason(self) -> str:
        """The status and why, in one line."""
        known = self.known_text
        return f"{self.status}: {known}" if known else super(ClaimVerdict, self).reason

    @property
    def known_text(self) -> str:
        """Where the claim fails as known, and what is known; empty for any other claim."""
        where = ", ".join(self.contradicted)
        return f"contradicted in {where}: {self.known}" if self.known else ""


def sides_of(claim: Claim, points: Iterable[Point], look: Look) -> Iterator[Side]:
    """Every side that judging *claim* looks at."""
    sweep = tuple(points)
    for relation in claim.relations:
        for point in sweep:
            versus = relation.versus is not None and relation.versus.admits(point)
            if claim.admits(point) or versus:
                for topology in relation.named:
                    yield look(topology, point.workload, relation.metric)


def judge_claim(
    claim: Claim,
    sweep: Sequence[Point],
    look: Look,
    *,
    system: str = "",
) -> ClaimVerdict:
    """Judge a claim in every cell of its regime; one cell that contradicts it is enough to FAIL.

    If no cell contradicts the claim but a value is missing or void, it is NOT JUDGED: it never
    passes on what was not measured. It is EXPECTED if it fails just as its known issue says.

    :param sweep: all cells that the system measures; those outside the regime are passed over.
    :param look: finds sides.
    :param system: where sides were measured, as known issues name it.
    :raises ValueError: if the claim cannot be decided by any measurement.
    """
    if claim.undecidable is not None:
        raise ValueError(f"{claim.id} cannot be decided: {claim.undecidable}")
    cells = [point for point in sweep if claim.admits(point)]
    if not cells:
        return _verdict(claim, Status.NOT_JUDGED, misses=(_nowhere(claim, sweep),), missing=True)
    scene = Scene(regime=claim.regime, cells=cells, sweep=sweep, look=look)
    findings = [f for r in claim.relations for f in JUDGES[str(r.kind)](r, scene)]
    issue = claim.expected(system)
    status, misses, known = _outcome(findings, issue, [point.name for point in cells])
    return _verdict(
        claim,
        status,
        misses=misses,
        findings=findings,
        sides=tuple(sides_of(claim, sweep, look)),
        known=known,
        contradicted=_cells(findings, Status.FAIL),
        missing=any(finding.missing for finding in findings),
    )


def _outcome(
    findings: Sequence[Finding], issue: KnownIssue | None, names: Sequence[str]
) -> tuple[Status, tuple[str, ...], str | None]:
    """Return status, misses, and what is known of a claim that fails just as its issue says.

    :param names: of the cells in the claim's regime.
    """
    status, misses = _summed(findings)
    if any(finding.missing for finding in findings):
        new = set(_cells(findings, Status.FAIL)).difference(issue.cells if issue else ())
        if new:
            return Status.FAIL, misses, None
        lacking = tuple(f"{f.workload}: {f.text}" for f in findings if f.missing)
        return Status.NOT_JUDGED, lacking, None
    if issue is None:
        return status, misses, None
    status, misses, known = _held_against(issue, findings, names)
    return Status.EXPECTED if known is not None else status, misses, known


def _nowhere(claim: Claim, sweep: Sequence[Point]) -> str:
    """Return the miss of a claim whose regime has no cell of the sweep."""
    panel = Regime(panel=claim.regime.panel)
    there = ", ".join(w.name for w in sweep if panel.admits(w)) or "none"
    return f"no cell of {_panel(claim)} lies in the claim's regime; the sweep has {there}"


def _held_against(
    issue: KnownIssue, findings: Sequence[Finding], names: Sequence[str]
) -> tuple[Status, tuple[str, ...], str | None]:
    """Return status, misses, and what is known if the claim fails just as the issue says.

    :param names: of the cells in the claim's regime.
    """
    status, strange = _against(issue, findings, names)
    known = issue.why if status is Status.FAIL and not strange else None
    return status, strange or _summed(findings)[1], known


def _summed(findings: Sequence[Finding]) -> tuple[Status, tuple[str, ...]]:
    for status in (Status.FAIL, Status.INCONCLUSIVE):
        misses = tuple(f"{f.workload}: {f.text}" for f in findings if f.status is status)
        if misses:
            return status, misses
    return Status.PASS, ()


def _cells(findings: Sequence[Finding], status: Status) -> tuple[str, ...]:
    said = (f.cell for f in findings if f.status is status and not f.missing)
    return tuple(dict.fromkeys(said))


def _against(
    issue: KnownIssue, findings: Sequence[Finding], names: Sequence[str]
) -> tuple[Status, tuple[str, ...]]:
    """A claim with a known issue: FAIL without misses means that it fails just as known."""
    contradicted = _cells(findings, Status.FAIL)
    unclear = [c for c in _cells(findings, Status.INCONCLUSIVE) if c not in contradicted]
    strange = [cell for cell in issue.cells if cell not in names]
    new = [cell for cell in contradicted if cell not in issue.cells]
    healed = [c for c in issue.cells if c not in (*contradicted, *unclear, *strange)]
    misses = []
    if strange:
        misses.append(
            f"the known issue names {', '.join(strange)}, but the claim's cells are "
            f"{', '.join(names)}"
        )
    if healed:
        misses.append(
            f"holds in {', '.join(healed)}, though a known issue says it does not ({issue.why}); "
            "correct known_issue"
        )
    misses += [f"{f.workload}: {f.text}" for f in findings if f.status == "FAIL" and f.cell in new]
    if misses:
        return Status.FAIL, tuple(misses)
    if unclear:
        return _only(findings, Status.INCONCLUSIVE)
    return Status.FAIL, ()


def _only(findings: Sequence[Finding], status: Status) -> tuple[Status, tuple[str, ...]]:
    return status, tuple(f"{f.workload}: {f.text}" for f in findings if f.status is status)


def _verdict(
    claim: Claim,
    status: Status,
    *,
    misses: tuple[str, ...],
    findings: Sequence[Finding] = (),
    sides: Sequence[Side] = (),
    known: str | None = None,
    contradicted: tuple[str, ...] = (),
    missing: bool = False,
) -> ClaimVerdict:
    lines: dict[str, list[str]] = {}
    for finding in findings:
        lines.setdefault(finding.workload, []).append(f"{finding.status} {finding.text}")
    origins = sorted({side.origin for side in sides if side.value is not None})
    further = [
        ("statistics", _statistics(findings, read=any(side.uncertainty for side in sides))),
        ("sides from", "; ".join(origins) or "nowhere"),
        ("size", _sizes(claim, sides)),
        ("known issue", claim.known_issue.why if claim.known_issue else ""),
        ("caution", claim.caution or ""),
        ("reason", claim.reason),
        ("source", claim.source),
    ]
    return ClaimVerdict(
        status=status,
        subject=claim.subject,
        misses=misses,
        evidence=(
            *((workload, "; ".join(texts)) for workload, texts in lines.items()),
            *((label, text) for label, text in further if text),
        ),
        known=known,
        contradicted=contradicted,
        missing=missing,
    )


def _sizes(claim: Claim, sides: Sequence[Side]) -> str:
    """Nodes and GPUs of each topology; once if all are equal."""
    sizes = {side.topology: side.size for side in sides if side.size is not None}
    per = "; throughput is per GPU" if claim.per == "gpu" else ""
    if not sizes:
        return ""
    if len(set(sizes.values())) == 1 and len(sizes) == len(claim.topologies):
        return f"{next(iter(sizes.values()))} each{per}"
    return "; ".join(f"{topology} {size}" for topology, size in sizes.items()) + per


def _statistics(findings: Sequence[Finding], *, read: bool) -> str:
    pairs = sorted({finding.pairs for finding in findings if finding.pairs})
    several = "pair" if pairs == [1] else "pairs"
    said = [f"{' or '.join(map(str, pairs))} {several} of runs, t intervals"] if pairs else []
    said += ["a FAIL takes two pairs"] if 1 in pairs else []
    points = [finding for finding in findings if not finding.pairs and not finding.missing]
    if points:
        said.append(POINT if not any(finding.several for finding in points) else UNPAIRED)
        said += ["intervals are how far readings may be off"] if read else []
    return "; ".join(said)


def _panel(claim: Claim) -> str:
    both = claim.regime.panel == "both"
    return "either panel" if both else f"the {claim.regime.panel} panel"
