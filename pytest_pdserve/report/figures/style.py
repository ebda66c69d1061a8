"""Style of figures: colours and marks of topologies, sizes of text, Matplotlib's settings."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.topology import ARTICLE_TOPOLOGIES

INK = "#0a0b0c"
"""Stands for the colour of text; replaced when a figure is written."""
PAPER = "#fdfcfb"
"""Stands for the colour behind a figure; replaced likewise."""
GREY = "#8a8f94"
"""Grid and marks of second rank: readable on white and on black."""
TEXT_PX = 12
"""Size of text."""
PIXELS = 72
"""Pixels per inch of an SVG."""
_OKABE_ITO = ("#0072b2", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#cc79a7", "#8a8f94")
"""Colours that colour-blind readers can tell apart (Okabe and Ito, 2008); its yellow is too pale
for a line on white, and grey is in the place of its black."""
_MARKS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h")
_SETTINGS: Mapping[str, Any] = {
    "text.parse_math": False,  # a load's name may hold a dollar sign
    "svg.fonttype": "none",
    "svg.hashsalt": "pdserve",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": TEXT_PX,
    "axes.titlesize": TEXT_PX,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": TEXT_PX,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 6.5,
    "lines.markeredgewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": TEXT_PX,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.1,
    "legend.borderaxespad": 0,
    "path.simplify": False,
}
"""Matplotlib's settings of all figures."""
MISSING = "figures need Matplotlib: pip install 'pytest-pdserve[plot]'"
"""Message if Matplotlib is missing."""


@dataclass(frozen=True, slots=True)
class TopologyStyle:
    """Colour and mark of a topology."""

    color: str
    """As ``#rrggbb``."""
    mark: str
    """Matplotlib's name of it."""


def topology_styles(topologies: Sequence[str]) -> dict[str, TopologyStyle]:
    """Return the style of each topology: the article's have the same in every figure."""
    others = sorted(set(topologies).difference(ARTICLE_TOPOLOGIES))
    order = (*ARTICLE_TOPOLOGIES, *others)
    colors, marks = len(_OKABE_ITO), len(_MARKS)
    every = {
        name: TopologyStyle(_OKABE_ITO[place % colors], _MARKS[place % marks])
        for place, name in enumerate(order)
    }
    return {name: every[name] for name in order if name in set(topologies)}


def is_installed() -> bool:
    """Return whether figures can be drawn."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def check_installed() -> None:
    """Raise ConfigError with what to install, unless figures can be drawn."""
    if not is_installed():
        raise ConfigError(MISSING)


@contextmanager
def settings() -> Iterator[None]:
    """Apply Matplotlib's settings of all figures, whatever a user's own file sets."""
    import warnings

    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        # A browser has the characters that the font for measuring text lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield
