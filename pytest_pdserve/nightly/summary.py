"""Markdown about changes since the last night, above the report of the session. Pure."""

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
_MAX_EVENTS = 50
"""Maximum number of listed events, and of regressions that are still followed."""


def nightly_markdown(state: NightlyState, events: Sequence[Event]) -> str:
    """Return the section about changes; it ends with an empty line.

    :param state: state after the night.
    :param events: events of the night; empty if its report is read again.
    """
    return "\n".join([f"## Night of {state.night}", "", *_lines(state, events), "", ""])


def _lines(state: NightlyState, events: Sequence[Event]) -> Iterator[str]:
    reported = {event.key for event in events}
    followed = [each for each in state.followed if each.confirmed and each.key not in reported]
    troubled = state.trouble_since is not None and not any(
        event.kind == "cluster-trouble" for event in events
    )
    if not (events or followed or troubled):
        yield "No regression is new, still there or gone, and no machine failed."
    if troubled:
        yield f"- **{_WORDS['cluster-trouble']}**, since {state.trouble_since}"
    for each in followed[:_MAX_EVENTS]:
        yield f"- **Still followed**: {escaped(each.title)}, since {each.since}"
    if len(followed) > _MAX_EVENTS:
        yield f"- … and {len(followed) - _MAX_EVENTS} more"
    for event in events[:_MAX_EVENTS]:
        line = f"- **{_WORDS[event.kind]}**: {escaped(event.title)}, since {event.since}"
        more = "; ".join(event.changed)
        yield f"{line}; changed that night: {escaped(more)}" if more else line
    if len(events) > _MAX_EVENTS:
        yield f"- … and {len(events) - _MAX_EVENTS} more"
