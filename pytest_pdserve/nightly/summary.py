"""What changed since the last night, as Markdown above the report of the session. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.report.formats.markdown_text import escaped
from pytest_pdserve.values.nightly import Event
from pytest_pdserve.values.nightly import NightlyState

_WORDS = {
    "new": "New",
    "still": "Still there",
    "gone": "Gone",
    "cluster-trouble": "Trouble with machines",
    "cluster-ok": "Machines work again",
}
_MOST = 50
"""Events that are listed."""


def nightly_markdown(state: NightlyState, events: Sequence[Event]) -> str:
    """Return the section about changes; it ends with an empty line.

    :param state: what the night left.
    :param events: what it told; none where its report is read again.
    """
    return "\n".join([f"## Night of {state.night}", "", *_lines(state, events), "", ""])


def _lines(state: NightlyState, events: Sequence[Event]) -> Iterator[str]:
    told = {event.key for event in events}
    known = [each for each in state.followed if each.confirmed and each.key not in told]
    troubled = state.trouble_since is not None and not any(
        event.kind == "cluster-trouble" for event in events
    )
    if not (events or known or troubled):
        yield "No regression is new, still there or gone, and no machine failed."
    if troubled:
        yield f"- **{_WORDS['cluster-trouble']}**, since {state.trouble_since}"
    for each in known[:_MOST]:
        yield f"- **Still followed**: {escaped(each.title)}, since {each.since}"
    if len(known) > _MOST:
        yield f"- … and {len(known) - _MOST} more"
    for event in events[:_MOST]:
        said = f"- **{_WORDS[event.kind]}**: {escaped(event.title)}, since {event.since}"
        more = "; ".join(event.changed)
        yield f"{said}; changed that night: {escaped(more)}" if more else said
    if len(events) > _MOST:
        yield f"- … and {len(events) - _MOST} more"
