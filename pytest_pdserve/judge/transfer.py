"""Judge KV transfers by references and by a system's required rate, and name slow nodes."""

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
    """The verdict on one pair and one shape."""

    measured: PairFigures
    """The pair with all of its figures."""
    figure: TransferFigure
    """The figure that is judged."""
    reference: TransferReference | None
    """The stored reference; None if there is none."""

    @property
    def change(self) -> float | None:
        """Change of the duration from the reference, as a fraction; None without a reference."""
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
        figure = _figure_text(self.measured, self.figure)
        if self.reference is None or self.change is None:
            return f"{figure}; no reference yet"
        reference = self.reference
        return (
            f"{figure}, reference {reference.ms:.2f} ms ({reference.gb_s:.2f} GB/s, "
            f"{_count(len(reference.runs), 'run')}): {self.change:+.0%}, limit "
            f"{reference.limit:+.0%}"
        )


def judge_transfers(
    measured: Iterable[PairFigures], baseline: TransferBaseline | None
) -> tuple[TransferVerdict, ...]:
    """Return a verdict on each figure by the reference of its backend, memory and shape."""
    return tuple(
        TransferVerdict(
            measured=pair,
            figure=figure,
            reference=baseline.find(pair.backend, pair.memory, figure.shape) if baseline else None,
        )
        for pair in measured
        for figure in pair.figures
    )


def confirmed(
    first: Sequence[TransferVerdict], second: Sequence[TransferVerdict]
) -> tuple[TransferVerdict, ...]:
    """Return *first*, each FAIL replaced by *second*'s verdict if that measurement was faster.

    A disturbance slows one measurement; a slow pair is slow in both.
    """
    again = {_key(verdict): verdict for verdict in second}
    return tuple(
        min(verdict, again.get(_key(verdict), verdict), key=lambda one: one.figure.median_ms)
        if verdict.status is Status.FAIL
        else verdict
        for verdict in first
    )


def _key(verdict: TransferVerdict) -> tuple[Pair, str, TransferShape]:
    return verdict.measured.pair, verdict.measured.backend, verdict.figure.shape


def below_floor(
    measured: Sequence[PairFigures], floor_gb_s: float, *, source: str
) -> dict[Pair, str]:
    """Return a sentence for each pair that does not reach *floor_gb_s*.

    :param source: setting that requires it, e.g. ``[transfer] floor_gb_s``.
    """
    return {
        pair.pair: f"{_figure_text(pair, figure)}, expected at least {floor_gb_s:g} GB/s ({source})"
        for pair in measured
        for figure in pair.figures
        if figure.gb_s < floor_gb_s
    }


def slow_nodes(slow: Mapping[Pair, bool]) -> tuple[str, ...]:
    """Return the nodes that are the probable cause of slow pairs.

    A node is returned if all of its pairs are slow, and the other node of one of them has a fast
    pair; or, if there is no such node, if it is in every one of several pairs.

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
    """Yield a sentence for each node that is the probable cause of slow pairs."""
    for node in slow_nodes(slow):
        pairs = [pair for pair in slow if node in _nodes(pair)]
        yield f"{node} is {_slow_everywhere(len(pairs))}"


def slow_node_text(measured: Sequence[PairFigures], floor_gb_s: float, *, source: str) -> str:
    """Return why a node is excluded, as a clause with the figures of all of its pairs.

    :param source: setting that requires *floor_gb_s*.
    """
    figures = ", ".join(
        f"{one.pair} {figure.median_ms:.2f} ms ({figure.gb_s:.3g} GB/s)"
        for one in measured
        for figure in one.figures
    )
    pairs = len({one.pair for one in measured})
    return (
        f"{_slow_everywhere(pairs)} by {measured[0].transport}: {figures}; expected at least "
        f"{floor_gb_s:g} GB/s ({source})"
    )


def _slow_everywhere(pairs: int) -> str:
    return f"slow in all of its {_count(pairs, 'pair')} that were measured"


def _nodes(pair: Pair) -> tuple[str, str]:
    return pair.reader, pair.source


def _figure_text(measured: PairFigures, figure: TransferFigure) -> str:
    return (
        f"{measured.pair} by {measured.transport}, {figure.shape.id}: {figure.median_ms:.2f} ms "
        f"({figure.gb_s:.2f} GB/s, posting {figure.median_posting_ms:.2f} ms)"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
