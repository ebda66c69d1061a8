"""Axes that figures have in common: scales, ticks and labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from pytest_pdserve.report.figures.plot import Axes
from pytest_pdserve.values.metrics import METRICS

_LOG_FROM = 20.0
"""Largest over smallest value from which an axis is logarithmic."""
_SUBS = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
"""Multiples of powers of ten that may have a tick, most first."""
_MAX_TICKS = {"x": 4, "y": 9}
"""Ticks of a logarithmic axis for which there is room."""
_NAMES = {
    "output_throughput": "output token throughput",
    "request_throughput": "request throughput",
    "total_token_throughput": "total token throughput",
}
_QUANTITIES = {
    "ttft": "time to first token (TTFT)",
    "itl": "inter-token latency (ITL)",
    "tpot": "time per output token (TPOT)",
    "e2el": "end-to-end latency (E2EL)",
}


def metric_title(name: str) -> str:
    """Return the name of a metric in words, e.g. ``mean inter-token latency (ITL)``."""
    row = METRICS[name]
    if row.quantity in _QUANTITIES:
        return f"{row.statistic} {_QUANTITIES[row.quantity]}"
    return _NAMES.get(name, name.replace("_", " "))


def metric_label(name: str) -> str:
    """Return the label of an axis: a short name and the unit."""
    row = METRICS[name]
    short = f"{row.statistic} {row.quantity.upper()}" if row.quantity else _NAMES.get(name)
    return f"{short or name.replace('_', ' ')} ({row.unit})"


def capital(text: str) -> str:
    """Return *text* with a capital first letter, and all else as it is."""
    return text[:1].upper() + text[1:]


def name_of(metric: str) -> str:
    """Return a metric's name as names of files have it."""
    return metric.replace("_", "-")


def plural(count: int, what: str) -> str:
    """Return a number and what it counts."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def left_out(count: int, what: str) -> str:
    """Return the end of a caption on what a page leaves out; empty if nothing."""
    verb = "is" if count == 1 else "are"
    return (
        f" {plural(count, f'more {what}')} {verb} not shown; pdserve plot draws all."
        if count
        else ""
    )


def scale(axis: Any, values: Iterable[float], *, floor: bool = True) -> None:
    """Give *axis* limits around *values*: from 0, or logarithmic where they differ much.

    :param floor: whether a linear axis begins at 0.
    """
    from matplotlib.ticker import FuncFormatter
    from matplotlib.ticker import LogLocator
    from matplotlib.ticker import MaxNLocator
    from matplotlib.ticker import NullLocator

    found = [value for value in values if math.isfinite(value)]
    low, high = min(found, default=0.0), max(found, default=1.0)
    set_limits = getattr(axis.axes, f"set_{axis.axis_name}lim")
    if low > 0 and high / low >= _LOG_FROM:
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
        set_limits(low / 1.25, high * 1.25)
        most = _MAX_TICKS[axis.axis_name]
        subs = next((s for s in _SUBS if math.log10(high / low) * len(s) <= most), _SUBS[-1])
        axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    else:
        span = (high - low) or abs(high) or 1.0
        least = 0.0 if floor and low >= 0 else low - 0.08 * span
        set_limits(least, high + 0.08 * (high - least or 1.0))
        axis.set_major_locator(
            MaxNLocator(5 if axis.axis_name == "x" else 6, steps=[1, 2, 2.5, 5, 10])
        )
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def lengths_axis(axes: Axes, lengths: Sequence[int], label: str) -> None:
    """Make the horizontal axis one of token lengths, each with a tick, as powers of two."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:g}" for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(lengths) / 1.25, max(lengths) * 1.25)
    axes.set_xlabel(label)
