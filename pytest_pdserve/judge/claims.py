"""Verdicts on claims: the comparisons in all cells, combined into one verdict with evidence."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.kinds import JUDGES
from pytest_pdserve.judge.kinds import ClaimComparison
from pytest_pdserve.judge.kinds import ClaimContext
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
"""Returns the entry that covers a claim, from the cells that contradict it and those where it
holds."""
READ_OFF = "read off plots: one run per side, no variance"
_SHOWN = {
    Status.PASS: (),
    Status.INCONCLUSIVE: (Status.INCONCLUSIVE,),
    Status.EXPECTED: (Status.FAIL, Status.INCONCLUSIVE),
    Status.NOT_JUDGED: (Status.NOT_JUDGED,),
    Status.FAIL: (Status.FAIL, Status.NOT_JUDGED),
}
"""Statuses of the comparisons that a verdict lists as misses."""


def no_claim_is_expected(contradicted: Sequence[str], holding: Sequence[str]) -> None:
    """Return None: no claim is covered."""
    del contradicted, holding


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict(Verdict):
    """The verdict on a claim, with the cells that contradict it."""

    expected: ExpectedChange | None = None
    """The entry of expected.toml that covers it; None if none does."""
    contradicted: tuple[str, ...] = ()
    """Names of the cells that contradict the claim."""
    wants_pair: tuple[Key, ...] = ()
    """Cells that need one more run on a fresh start to decide whether it FAILs."""

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
    """Yield every side that *claim* is judged by."""
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
    passes without all of its values.

    :param sweep: all cells that the system measures; those outside the regime are ignored.
    :param lookup: returns sides.
    :param covers: returns the expected change that covers the claim.
    :raises ValueError: if the claim cannot be decided by any measurement.
    """
    if claim.undecidable is not None:
        raise ValueError(f"{claim.id} cannot be decided: {claim.undecidable}")
    cells = [point for point in sweep if claim.admits(point)]
    if not cells:
        return _verdict(claim, Status.NOT_JUDGED, misses=(_no_cell(claim, sweep),))
    context = ClaimContext(regime=claim.regime, cells=cells, sweep=sweep, lookup=lookup)
    compared = (
        f for relation in claim.relations for f in JUDGES[str(relation.kind)](relation, context)
    )
    comparisons = tuple(dict.fromkeys(compared))
    entry = _entry(comparisons, cells, covers)
    status = _status(comparisons, is_expected=entry is not None)
    return _verdict(
        claim,
        status,
        misses=_misses(comparisons, status),
        comparisons=comparisons,
        sides=tuple(sides_of(claim, sweep, lookup)),
        expected=entry if status is Status.EXPECTED else None,
    )


def _entry(
    comparisons: Sequence[ClaimComparison], cells: Sequence[Point], covers: CoversClaim
) -> ExpectedChange | None:
    """Return the entry that covers the contradictions of the claim; None if none does.

    If the claim is neither contradicted nor holds everywhere, it is unknown whether an entry is
    needed, so none is looked up.
    """
    contradicted = _cells(comparison for comparison in comparisons if comparison.is_violated)
    not_passed = _cells(c for c in comparisons if c.status is not Status.PASS)
    holding = [point.name for point in cells if point.name not in not_passed]
    if not contradicted and len(holding) < len(cells):
        return None
    return covers(contradicted, holding)


def _status(comparisons: Sequence[ClaimComparison], *, is_expected: bool) -> Status:
    """Return the first of FAIL, NOT JUDGED, EXPECTED, INCONCLUSIVE and PASS that applies."""
    statuses = {comparison.status for comparison in comparisons}
    if Status.FAIL in statuses and not is_expected:
        return Status.FAIL
    if Status.NOT_JUDGED in statuses:
        return Status.NOT_JUDGED
    if is_expected:
        return Status.EXPECTED
    return Status.INCONCLUSIVE if Status.INCONCLUSIVE in statuses else Status.PASS


def _misses(comparisons: Sequence[ClaimComparison], status: Status) -> tuple[str, ...]:
    shown = [comparison for comparison in comparisons if comparison.status in _SHOWN[status]]
    shown.sort(key=lambda comparison: not comparison.is_violated)
    return tuple(f"{comparison.workload}: {comparison.text}" for comparison in shown)


def _no_cell(claim: Claim, sweep: Sequence[Point]) -> str:
    """Return the miss of a claim whose regime has no cell of the sweep."""
    panel = Regime(panel=claim.regime.panel)
    names = ", ".join(w.name for w in sweep if panel.admits(w)) or "none"
    return f"no cell of {_panel(claim)} lies in the claim's regime; the sweep has {names}"


def _cells(comparisons: Iterable[ClaimComparison]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(comparison.cell for comparison in comparisons))


def _verdict(
    claim: Claim,
    status: Status,
    *,
    misses: tuple[str, ...],
    comparisons: Sequence[ClaimComparison] = (),
    sides: Sequence[Side] = (),
    expected: ExpectedChange | None = None,
) -> ClaimVerdict:
    lines: dict[str, list[str]] = {}
    for comparison in comparisons:
        lines.setdefault(comparison.workload, []).append(f"{comparison.status} {comparison.text}")
    origins = sorted({side.origin for side in sides if side.value is not None})
    against = [f for f in comparisons if f.status is Status.FAIL or (expected and f.is_violated)]
    wanted = () if expected else (cell for c in comparisons for cell in c.wants_pair)
    further = [
        ("statistics", _statistics(comparisons, read=any(side.uncertainty for side in sides))),
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
    """Return nodes and GPUs of each topology, or of all if they are equal."""
    sizes = {side.topology: side.size for side in sides if side.size is not None}
    per = "; throughput is per GPU" if claim.per == "gpu" else ""
    if not sizes:
        return ""
    if len(set(sizes.values())) == 1 and len(sizes) == len(claim.topologies):
        return f"{next(iter(sizes.values()))} each{per}"
    return "; ".join(f"{topology} {size}" for topology, size in sizes.items()) + per


def _statistics(comparisons: Sequence[ClaimComparison], *, read: bool) -> str:
    pairs = sorted({comparison.pairs for comparison in comparisons if comparison.pairs})
    several = "pair" if pairs == [1] else "pairs"
    parts = [f"{' or '.join(map(str, pairs))} {several} of runs"] if pairs else []
    if any(not f.pairs and f.status is not Status.NOT_JUDGED for f in comparisons):
        parts += [READ_OFF, *(["intervals are how far readings may be off"] if read else [])]
    return "; ".join(parts)


def _panel(claim: Claim) -> str:
    both = claim.regime.panel == "both"
    return "either panel" if both else f"the {claim.regime.panel} panel"
