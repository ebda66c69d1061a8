"""A figure before it is drawn: panels, and the rows of numbers that they show."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

Axes = Any
"""A Matplotlib ``Axes``: Matplotlib is imported where something is drawn."""
Row = dict[str, object]
"""One point of a figure by column; all rows of a figure have the same columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    """Stands above it."""
    draw: Callable[[Axes], None]
    """Draws what it shows."""
    size: tuple[int, int] = (400, 300)
    """Width and height in a page, CSS pixels, at which its text is as large as the page's."""
    left: int = 70
    """Room for the labels of the vertical axis, pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One figure."""

    name: str
    """Name of its files."""
    title: str
    """What it shows, in few words."""
    caption: str
    """How to read it, in plain sentences."""
    panels: tuple[Panel, ...]
    """At least one."""
    rows: Sequence[Row]
    """Its numbers."""
    topologies: tuple[str, ...] = ()
    """Topologies that the legend names."""
    columns: int = 2
    """Panels that stand beside each other on paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A reference and what is too far from it, in the metric's unit."""

    reference: float
    """Median of the baseline's nights."""
    limit: float
    """The value that is too much worse."""


Curve = Mapping[tuple[str, str], Mapping[str, float]]
"""Values by metric, of each topology and workload id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Published curves that are drawn behind."""

    title: str = ""
    """Where they were published."""
    cells: Curve = field(default_factory=dict)
    """Their values."""
