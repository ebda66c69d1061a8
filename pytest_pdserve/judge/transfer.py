"""Whether transfers are slower than they were, or than a system promises, and which node is."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferBaseline
from pytest_pdserve.values.transfer import TransferFigure
from pytest_pdserve.values.transfer import TransferReference
from pytest_pdserve.values.transfer import TransferShape


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferVerdict:
    """What is said of one pair and one shape."""

    measured: PairFigures
    """The pair."""
    figure: TransferFigure
    """What it showed."""
    reference: TransferReference | None
    """What it is held against; None where there is nothing."""

    @property
    def change(self) -> float | None:
        """How much longer it took than the reference, as a fraction; None without one."""
        return None if self.reference is None else self.figure.median_ms / self.reference.ms - 1

    @property
    def status(self) -> Status:
        """PASS, FAIL, or NEW without a reference."""
        if self.reference is None or self.change is None:
            return Status.NEW
        return Status.FAIL if self.change > self.reference.limit else Status.PASS

    @property
    def text(self) -> str:
        """One sentence with the numbers."""
        said = _figure_text(self.measured, self.figure)
        if self.reference is None or self.change is None:
            return f"{said}; no reference yet"
        reference = self.reference
        return (
            f"{said}, reference {reference.ms:.2f} ms ({reference.gb_s:.2f} GB/s, "
            f"{_count(len(reference.runs), 'run')}): {self.change:+.0%}, limit "
            f"{reference.limit:+.0%}"
        )


def judge_transfers(
    measured: Iterable[PairFigures], baseline: TransferBaseline | None
) -> tuple[TransferVerdict, ...]:
    """Hold every figure against the reference of its backend, memory and shape."""
    return tuple(
        TransferVerdict(
            measured=each,
            figure=figure,
            reference=baseline.find(each.backend, each.memory, figure.shape) if baseline else None,
        )
        for each in measured
        for figure in each.figures
    )


def confirmed(
    first: Sequence[TransferVerdict], second: Sequence[TransferVerdict]
) -> tuple[TransferVerdict, ...]:
    """Return *first* with each FAIL as *second* says of the same pair and shape, if it was faster.

    A disturbance makes one measurement slow, a slow pair both.
    """
    again = {_key(each): each for each in second}
    return tuple(
        min(each, again.get(_key(each), each), key=lambda one: one.figure.median_ms)
        if each.status is Status.FAIL
        else each
        for each in first
    )


def _key(verdict: TransferVerdict) -> tuple[Pair, str, TransferShape]:
    return verdict.measured.pair, verdict.measured.backend, verdict.figure.shape


def below_floor(
    measured: Sequence[PairFigures], floor_gb_s: float, *, source: str
) -> dict[Pair, str]:
    """Return the pairs that do not reach *floor_gb_s*, each with a sentence.

    :param source: what says so, e.g. ``[transfer] floor_gb_s``.
    """
    return {
        each.pair: f"{_figure_text(each, figure)}, expected at least {floor_gb_s:g} GB/s ({source})"
        for each in measured
        for figure in each.figures
        if figure.gb_s < floor_gb_s
    }


def slow_nodes(slow: Mapping[Pair, bool]) -> tuple[str, ...]:
    """Return the nodes that slow pairs point at.

    A node is named if all of its pairs are slow, and another node of these pairs has one that is
    not; or, where every pair is slow, if it alone is in all of them and there are several.

    :param slow: every pair that was measured, and whether it is slow.
    """
    pairs = {frozenset((pair.reader, pair.source)) for pair in slow}
    fast = {node for pair, is_slow in slow.items() if not is_slow for node in _nodes(pair)}
    suspects = {node for pair, is_slow in slow.items() if is_slow for node in _nodes(pair)} - fast
    named = {node for node in suspects if any(node in two and two & fast for two in pairs)}
    if not named and len(pairs) > 1:
        named = {node for node in suspects if all(node in two for two in pairs)}
    return tuple(sorted(named))


def node_lines(slow: Mapping[Pair, bool]) -> Iterator[str]:
    """Yield a sentence for each node that slow pairs point at."""
    for node in slow_nodes(slow):
        pairs = [pair for pair in slow if node in _nodes(pair)]
        yield f"{node} is slow in all of its {_count(len(pairs), 'pair')} that were measured"


def _nodes(pair: Pair) -> tuple[str, str]:
    return pair.reader, pair.source


def _figure_text(measured: PairFigures, figure: TransferFigure) -> str:
    return (
        f"{measured.pair} by {measured.transport}, {figure.shape.id}: {figure.median_ms:.2f} ms "
        f"({figure.gb_s:.2f} GB/s, posting {figure.median_posting_ms:.2f} ms)"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
