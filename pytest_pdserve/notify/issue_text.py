"""Texts of issues about regressions and failed machines. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from urllib.parse import quote

from pytest_pdserve.report.formats.markdown_text import escaped
from pytest_pdserve.values.nightly import Event

MAX_BODY = 65_536
"""Maximum characters of an issue or a comment on GitHub."""
MAX_TITLE = 256
"""Maximum characters of a title on GitHub."""
_MAX_LIST = 6_000
"""Maximum characters of the list in one section: eight of them fit into a body."""
_SENTENCE = 600
"""Maximum characters of a sentence."""
_SHORT = 120
"""Maximum characters of a name or a title."""
_SAFE = "/:.,=+@"
"""Unquoted characters in markers, besides letters and digits; ``>`` would end a marker."""
_STATE = re.compile(r"<!-- pdserve-state since=(\S+) change=(\w+) closed=(\S+) -->")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueState:
    """State that pdserve stores in the text of an issue, in a hidden comment."""

    since: date
    """First night of the regression."""
    change: str
    """Digest of the facts that do not change every night."""
    closed: date | None = None
    """Night in which pdserve closed it; None if it did not."""

    @property
    def line(self) -> str:
        """The hidden comment."""
        closed = self.closed.isoformat() if self.closed else "-"
        return f"<!-- pdserve-state since={self.since} change={self.change} closed={closed} -->"


def marker(key: str) -> str:
    """Return the first line of the issue about *key*, by which the issue is found."""
    return f"<!-- pdserve:{quote(key, safe=_SAFE)} -->"


def state_of(body: str) -> IssueState | None:
    """Return the state in the text of an issue; None if it was removed or edited."""
    found = _STATE.search(body)
    if found is None:
        return None
    try:
        closed = None if found[3] == "-" else date.fromisoformat(found[3])
        return IssueState(since=date.fromisoformat(found[1]), change=found[2], closed=closed)
    except ValueError:
        return None


def change_of(event: Event) -> str:
    """Return a digest of the facts whose change needs a comment.

    Values and metrics do not: metrics near a limit come and go from night to night.
    """
    what = (event.title, event.cells, event.changed, event.expected)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def title(event: Event) -> str:
    """Return the issue's title; titles have no markup, so nothing is escaped."""
    shown = "".join(each if each.isprintable() else " " for each in event.title)
    line = " ".join(shown.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}…"


def body(event: Event, *, run_url: str = "", closed: bool = False) -> str:
    """Return the issue's text, of at most :data:`MAX_BODY` characters.

    :param run_url: page of the night's workflow run; empty without one.
    :param closed: whether the night of *event* closes the issue.
    """
    night = event.night if closed else None
    state = IssueState(since=event.since, change=change_of(event), closed=night)
    lines = [marker(event.key), state.line, "", _opening(event, closed=closed), "", *_facts(event)]
    for heading, entries, otherwise in _sections(event):
        lines += [*_list(heading, entries, otherwise)]
    if run_url:
        lines += ["", f"Workflow run of that night: {run_url}"]
    lines += ["", _closing(event)]
    return "\n".join(lines)


def change_comment(event: Event) -> str:
    """Return the comment on a regression that persists, but has changed."""
    head = f"Changed on the night of {event.night}. It is now:"
    lines = [head, "", f"**{escaped(event.title, _SHORT)}**", "", *_facts(event)]
    for heading, entries, otherwise in _sections(event):
        if heading != "Records":
            lines += _list(heading, entries, otherwise)
    return _comment(event, lines)


def back_comment(event: Event) -> str:
    """Return the comment on a regression that was closed and is back."""
    line = f"It is back: seen since the night of {event.since}, confirmed on {event.night}."
    return _comment(event, [line])


def gone_comment(event: Event) -> str:
    """Return the comment that is written when an issue is closed."""
    lines = [f"Closed by the night of {event.night}.", ""]
    return _comment(event, [*lines, *_list("", event.evidence, "")])


def comment_marker(event: Event) -> str:
    """Return the first line of a comment: each is written at most once."""
    return f"<!-- pdserve-event {event.kind} {event.night} {change_of(event)} -->"


def _comment(event: Event, lines: Iterable[str]) -> str:
    return "\n".join([comment_marker(event), *lines])


def _opening(event: Event, *, closed: bool) -> str:
    name = escaped(event.title, _SHORT)
    if closed:
        return f"**{name}**: closed by the night of {event.night}."
    if event.kind == "cluster-trouble":
        return f"**{name}**: cells that were not measured were not judged."
    return f"**{name}**: a confirmed regression."


def _facts(event: Event) -> Iterator[str]:
    """Yield system, topology, metrics and nights, a line each."""
    yield f"- system: {escaped(event.system, _SHORT)}"
    if event.topology:
        yield f"- topology: {escaped(event.topology, _SHORT)}"
    if event.metrics:
        yield f"- metrics: {escaped(', '.join(event.metrics), _SENTENCE)}"
    yield f"- first seen: night of {event.since}"
    yield f"- last seen: night of {event.night}"
    if event.confirmed:
        yield f"- confirmed: {escaped(event.confirmed, _SENTENCE)}"


def _sections(event: Event) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield the sections of the text: heading, entries, and the text without entries."""
    yield "Seen on the last night", event.evidence, "No evidence came with this event."
    if event.kind in ("cluster-trouble", "cluster-ok"):
        yield "Changed on the last night", event.changed, "No change is recorded for that night."
        return
    yield (
        f"Changed on the night of {event.since}",
        event.changed,
        "No change of versions, images or nodes is recorded for that night.",
    )
    yield "Cells", event.cells, "No single cell."
    yield "Expected changes that are in force", event.expected, "None covers it."
    yield "Records", event.records, "None."


def _list(heading: str, entries: tuple[str, ...], otherwise: str) -> Iterator[str]:
    """Yield a heading and as many entries as fit."""
    if heading:
        yield from ("", f"### {heading}", "")
    room = _MAX_LIST
    for number, entry in enumerate(entries):
        line = f"- {escaped(entry, _SENTENCE)}"
        room -= len(line) + 1
        if room < 0:
            yield f"- … and {len(entries) - number} more, in the session's report"
            break
        yield line
    if not entries and otherwise:
        yield otherwise


def _closing(event: Event) -> str:
    what = "nothing fails" if event.kind == "cluster-trouble" else "two nights find nothing"
    return (
        f"`pdserve nightly` rewrites this text every night, and closes the issue once {what}. "
        "Write comments: edits of this text are lost."
    )
