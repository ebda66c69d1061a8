"""Figure of where the time of a session went."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.report.figures.plot import Axes
from pytest_pdserve.report.figures.plot import Panel
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.style import GREY
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.phases import duration_text

_USEFUL = "load"
"""The phase in which something is measured."""
_LOAD_COLOR = "#0072b2"
_ROW, _AROUND = 26, 82


def time_plots(times: SessionTimes | None) -> Iterator[Plot]:
    """Yield the figure of a session's time by phase; nothing if it has none."""
    spent = {} if times is None else {name: s for name, s in times.seconds.items() if s > 0}
    total_s = sum(spent.values())
    if times is None or not total_s:
        return
    ordered = sorted(spent.items(), key=lambda each: (each[0] == "overhead", -each[1]))
    rerun = f"; {duration_text(times.rerun_s)} of it were reruns" if times.rerun_s else ""
    held = f"; {times.held.text}" if times.held.text else ""
    yield Plot(
        name="session-time",
        title="Where the time of the session went",
        caption=(
            f"{duration_text(total_s)} in all{rerun}{held}. Blue is the load itself: the time in "
            "which something is measured."
        ),
        panels=(
            Panel(
                title=f"{duration_text(total_s)}, {times.runs} runs",
                draw=_Bars(ordered, total_s).draw,
                size=(460, _AROUND + _ROW * len(ordered)),
                left=96,
            ),
        ),
        rows=[
            {"phase": name, "seconds": seconds, "share": seconds / total_s}
            for name, seconds in ordered
        ],
        columns=1,
    )


@dataclass(frozen=True, slots=True)
class _Bars:
    spent: Sequence[tuple[str, float]]
    total_s: float

    def draw(self, axes: Axes) -> None:
        names = [name for name, _ in self.spent]
        seconds = [spent for _, spent in self.spent]
        colors = [_LOAD_COLOR if name == _USEFUL else GREY for name in names]
        axes.barh(range(len(names)), [100 * s / self.total_s for s in seconds], 0.62, color=colors)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        largest = 100 * max(seconds) / self.total_s
        axes.set_xlim(0, largest * 1.3)
        axes.set_xlabel("share of the session (%)")
        for place, spent in enumerate(seconds):
            label = f"{100 * spent / self.total_s:.0f} %, {duration_text(spent)}"
            axes.text(100 * spent / self.total_s + largest * 0.015, place, label, va="center")
