"""A figure as a report shows it: SVG, the numbers in it, and what it shows in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a report."""

    name: str
    """Name of its files, and of its element in a page, e.g. ``mean-ttft-ms``."""
    title: str
    """What it shows, in few words."""
    svg: str
    """An ``<svg>`` element, without an XML declaration. Text and axes have the colour of the page
    around it (``currentColor``); the group of class ``pdserve-overlay`` is the article's curves."""
    data: list[dict[str, object]]
    """What is drawn, a row for each point; all rows have the same columns."""
    caption: str
    """How to read it, in a sentence or two of plain text."""
