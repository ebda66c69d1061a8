"""Judging claims: each cell's comparisons, what they add up to, and what was known of them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.kinds import JUDGES
from pytest_pdserve.judge.kinds import ClaimContext
from pytest_pdserve.judge.kinds import Finding
from pytest_pdserve.judge.sides import Lookup
from pytest_pdserve.judge.sides import Side
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.claim_parts import Regime
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.sweep import Point

CoversClaim = Callable[[Sequence[str], Sequence[str]], ExpectedChange | None]
"""The entry that covers a claim, given the cells that contradict it and those where it holds."""
POINT = "read off plots: one run per side, no variance"
_SHOWN = {
    Status.PASS: (),
    Status.INCONCLUSIVE: (Status.INCONCLUSIVE,),
    Status.EXPECTED: (Status.FAIL, Status.INCONCLUSIVE),
    Status.NOT_JUDGED: (Status.NOT_JUDGED,),
    Status.FAIL: (Status.FAIL, Status.NOT_JUDGED),
}
"""Which comparisons a verdict names."""


def no_claim_is_expected(contradicted: Sequence[str], holding: Sequence[str]) -> None:
    """Cover no claim."""
    del contradicted, holding


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict(Verdict):
    """A verdict that knows its cells."""

    expected: ExpectedChange | None = None
    """The entry that covers it, if one does."""
    contradicted: tuple[str, ...] = ()
    """Names of the cells that contradict the claim."""
    wants_pair: tuple[Key, ...] = ()
    """Cells of which one more run on a fresh start would tell whether it FAILs."""

    @property
    def reason(self) -> str:
        """The status and why, in one line."""
        return f"{self.status}: {self.detail or (self.misses or (self.subject,))[0]}"

    @property
    def detail(self) -> str:
        """Where the claim fails as expected, and why; empty for any other claim."""
        if self.expected is None:
            return ""
        entry = self.expected
        where = ", ".join(self.contradicted)
        return f"contradicted in {where}: {entry.reason} (until {entry.until}, {entry.owner})"


def sides_of(claim: Claim, points: Iterable[Point], lookup: Lookup) -> Iterator[Side]:
    """Every side that judging *claim* looks at."""
    sweep = tuple(points)
    for relation in claim.relations:
        for point in sweep:
            versus = relation.versus is not None and relation.versus.admits(point)
            if claim.admits(point) or versus:
                for topology in relation.named:
                    yield lookup(topology, point.workload, relation.metric)


def judge_claim(
    claim: Claim,
    sweep: Sequence[Point],
    lookup: Lookup,
    *,
    covers: CoversClaim = no_claim_is_expected,
) -> ClaimVerdict:
    """Judge a claim in every cell of its regime; one cell that contradicts it is enough to FAIL.

    If no cell contradicts the claim but a value is missing or void, it is NOT JUDGED: it never
    passes on what was not measured.

    :param sweep: all cells that the system measures; those outside the regime are passed over.
    :param lookup: finds sides.
    :param covers: finds the expected change that covers the claim.
    :raises ValueError: if the claim cannot be decided by any measurement.
    """
    if claim.undecidable is not None:
        raise ValueError(f"{claim.id} cannot be decided: {claim.undecidable}")
    cells = [point for point in sweep if claim.admits(point)]
    if not cells:
        return _verdict(claim, Status.NOT_JUDGED, misses=(_nowhere(claim, sweep),))
    context = ClaimContext(regime=claim.regime, cells=cells, sweep=sweep, lookup=lookup)
    made = (
        f for relation in claim.relations for f in JUDGES[str(relation.kind)](relation, context)
    )
    findings = tuple(dict.fromkeys(made))
    entry = _entry(findings, cells, covers)
    status = _status(findings, is_expected=entry is not None)
    return _verdict(
        claim,
        status,
        misses=_misses(findings, status),
        findings=findings,
        sides=tuple(sides_of(claim, sweep, lookup)),
        expected=entry if status is Status.EXPECTED else None,
    )


def _entry(
    findings: Sequence[Finding], cells: Sequence[Point], covers: CoversClaim
) -> ExpectedChange | None:
    """The entry that covers what contradicts the claim.

    It is not asked for if the claim neither is contradicted nor holds everywhere: then nobody
    knows whether an entry is needed.
    """
    contradicted = _cells(finding for finding in findings if finding.is_violated)
    open_ = _cells(finding for finding in findings if finding.status is not Status.PASS)
    holding = [point.name for point in cells if point.name not in open_]
    if not contradicted and len(holding) < len(cells):
        return None
    return covers(contradicted, holding)


def _status(findings: Sequence[Finding], *, is_expected: bool) -> Status:
    """The first of FAIL, NOT JUDGED, EXPECTED, INCONCLUSIVE and PASS that applies."""
    found = {finding.status for finding in findings}
    if Status.FAIL in found and not is_expected:
        return Status.FAIL
    if Status.NOT_JUDGED in found:
        return Status.NOT_JUDGED
    if is_expected:
        return Status.EXPECTED
    return Status.INCONCLUSIVE if Status.INCONCLUSIVE in found else Status.PASS


def _misses(findings: Sequence[Finding], status: Status) -> tuple[str, ...]:
    shown = [finding for finding in findings if finding.status in _SHOWN[status]]
    shown.sort(key=lambda finding: not finding.is_violated)
    return tuple(f"{finding.workload}: {finding.text}" for finding in shown)


def _nowhere(claim: Claim, sweep: Sequence[Point]) -> str:
    """Return the miss of a claim whose regime has no cell of the sweep."""
    panel = Regime(panel=claim.regime.panel)
    there = ", ".join(w.name for w in sweep if panel.admits(w)) or "none"
    return f"no cell of {_panel(claim)} lies in the claim's regime; the sweep has {there}"


def _cells(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.cell for finding in findings))


def _verdict(
    claim: Claim,
    status: Status,
    *,
    misses: tuple[str, ...],
    findings: Sequence[Finding] = (),
    sides: Sequence[Side] = (),
    expected: ExpectedChange | None = None,
) -> ClaimVerdict:
    lines: dict[str, list[str]] = {}
    for finding in findings:
        lines.setdefault(finding.workload, []).append(f"{finding.status} {finding.text}")
    origins = sorted({side.origin for side in sides if side.value is not None})
    against = [f for f in findings if f.status is Status.FAIL or (expected and f.is_violated)]
    wanted = () if expected else (cell for finding in findings for cell in finding.wants_pair)
    further = [
        ("statistics", _statistics(findings, read=any(side.uncertainty for side in sides))),
        ("sides from", "; ".join(origins) or "nowhere"),
        ("size", _sizes(claim, sides)),
        ("expected", expected.reason if expected else ""),
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
        expected=expected,
        contradicted=_cells(against),
        wants_pair=tuple(dict.fromkeys(wanted)),
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
    said = [f"{' or '.join(map(str, pairs))} {several} of runs"] if pairs else []
    if any(not f.pairs and f.status is not Status.NOT_JUDGED for f in findings):
        said += [POINT, *(["intervals are how far readings may be off"] if read else [])]
    return "; ".join(said)


def _panel(claim: Claim) -> str:
    both = claim.regime.panel == "both"
    return "either panel" if both else f"the {claim.regime.panel} panel"
