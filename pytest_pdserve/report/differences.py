"""What ``pdserve baseline diff`` shows."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.judge.differences import Difference
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.metrics import METRICS


def difference_lines(differences: Sequence[Difference], *, everything: bool) -> list[str]:
    """A table of what differs, and how many metrics do not.

    :param everything: whether to show changes below the practical floor too.
    """
    first = all(d.old is None for d in differences)
    shown = [d for d in differences if everything or (d.notable and not first)]
    both = [d for d in differences if d.old is not None and d.new is not None]
    rows = [
        (
            d.cell[0],
            d.cell[1],
            d.metric,
            METRICS[d.metric].unit,
            _number(d.old),
            _number(d.new),
            _change(d),
        )
        for d in shown
    ]
    columns = ("topology", "workload", "metric", "unit", "old", "new", "change")
    worse = sum(d.notable and (d.worse or 0) > 0 for d in both)
    better = sum(d.notable and (d.worse or 0) < 0 for d in both)
    return [
        *(text_table(columns, rows, "llllrrl") if rows else []),
        f"{worse} metrics worse and {better} better by more than their practical floor, "
        f"{sum(d.old is None for d in differences)} new, "
        f"{sum(d.new is None for d in differences)} gone, {len(differences)} in all"
        + ("" if everything or len(shown) == len(differences) else "; the others with --all"),
    ]


def _number(envelope: Envelope | None) -> str:
    if envelope is None:
        return "-"
    return f"{envelope.ref:.6g} ({envelope.runs} runs)"


def _change(difference: Difference) -> str:
    if difference.old is None:
        return "new"
    if difference.new is None:
        return "gone"
    if difference.new.better == "equal":
        return "same" if difference.old.ref == difference.new.ref else "another count"
    worse = difference.worse or 0.0
    return f"{abs(worse):.1%} {'worse' if worse >= 0 else 'better'}"
