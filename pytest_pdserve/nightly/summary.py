"""What changed since the last night, as Markdown above the report of the session. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from datetime import date

from pytest_pdserve.report.formats.markdown_text import escaped
from pytest_pdserve.values.nightly import Event

_WORDS = {
    "new": "New",
    "still": "Still there",
    "gone": "Gone",
    "cluster-trouble": "Trouble with machines",
    "cluster-ok": "Machines work again",
}
_MOST = 50
"""Events that are listed."""


def nightly_markdown(night: date, events: Sequence[Event]) -> str:
    """Return the section about changes; it ends with an empty line."""
    return "\n".join([f"## Night of {night}", "", *_lines(events), "", ""])


def _lines(events: Sequence[Event]) -> Iterator[str]:
    if not events:
        yield "No regression is new, still there or gone, and no machine failed."
    for event in events[:_MOST]:
        said = f"- **{_WORDS[event.kind]}**: {escaped(event.title)}, since {event.since}"
        more = "; ".join(event.changed)
        yield f"{said}; changed that night: {escaped(more)}" if more else said
    if len(events) > _MOST:
        yield f"- … and {len(events) - _MOST} more"
