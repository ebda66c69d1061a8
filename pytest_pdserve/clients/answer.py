"""One streamed answer: the arrival time of each chunk, and the error if it failed."""

from __future__ import annotations

from array import array
from typing import Any

import msgspec

_MAX_TEXT = 300
"""Maximum characters of the server's text in an error."""
MAX_EVENT_BYTES = 1 << 20
"""A longer event is an error."""
FINISHED = (None, "length", "stop")
"""Finish reasons of a request that succeeded."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_NO_EVENT = (msgspec.MsgspecError, RecursionError, ValueError)


class Answer:
    """A server's answer to one request, with the time of each chunk.

    A chunk is an event with a choice, as vLLM's client counts them (``endpoint_request_func.py``):
    the first ends the time to first token, each later one ends an inter-token gap.
    """

    __slots__ = (
        "_at_ns",
        "_rest",
        "chunks_ns",
        "done",
        "error",
        "merged",
        "prompt_tokens",
        "status",
        "texts",
        "tokens",
        "uncertain",
    )

    def __init__(self) -> None:
        self.chunks_ns = array("q")
        """Arrival of each chunk."""
        self.uncertain: list[tuple[int, int, int]] = []
        """Chunks that may have arrived earlier: index of the first, their number, and the longest
        time by which they were earlier, ns."""
        self.texts: list[str] = []
        self.tokens: int | None = None
        """Generated tokens in the server's ``usage``."""
        self.prompt_tokens: int | None = None
        """Prompt tokens in the server's ``usage``."""
        self.merged = 0
        """Chunks that were read together with the previous one, so that their gap is unknown."""
        self.error = ""
        """Why the request failed; empty if it has not."""
        self.status = 200
        self.done = False
        """True if ``[DONE]`` has arrived."""
        self._rest = b""
        self._at_ns = 0

    def fail(self, why: str) -> None:
        """Set the error, unless there is one."""
        self.error = self.error or why

    def feed(self, body: bytes, at_ns: int) -> None:
        """Parse a part of the body that arrived at *at_ns*."""
        self._at_ns = at_ns
        data = self._rest + body if self._rest else body
        if self.status != 200:
            self._rest = data[: 2 * _MAX_TEXT]
            return
        *events, self._rest = data.split(b"\n\n") if b"\r" not in data else _split(data)
        for event in events:
            if event.startswith(b"data:") and b"\n" not in event:
                self._take(event[5:].strip(), at_ns)
            else:
                self._take_lines(event, at_ns)
        if len(self._rest) > MAX_EVENT_BYTES:
            self.fail(f"streamed an event of more than {MAX_EVENT_BYTES} bytes")
            self._rest = b""

    def _take_lines(self, event: bytes, at_ns: int) -> None:
        """Parse an event of several lines, without comments and event names."""
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                self._take(line[5:].strip(), at_ns)

    def _take(self, content: bytes, at_ns: int) -> None:
        if content == b"[DONE]":
            self.done = True
            return
        try:
            event = _decode(content)
        except _NO_EVENT:
            self.fail(f"streamed {content[:_MAX_TEXT]!r}, which is not an event of a completion")
            return
        if event.error is not None:
            message = event.error.get("message") if isinstance(event.error, dict) else event.error
            self.fail(f"error in the stream: {str(message or event.error)[:_MAX_TEXT]}")
        if event.choices:
            choice = event.choices[0]
            self.merged += bool(self.chunks_ns) and self.chunks_ns[-1] == at_ns
            self.chunks_ns.append(at_ns)
            text = choice.text or (choice.delta.content if choice.delta else None)
            if text:
                self.texts.append(text)
            if choice.finish_reason not in FINISHED:
                self.fail(f"finish_reason {choice.finish_reason!r}")
        if event.usage is not None:
            self.tokens = _latest(event.usage.completion_tokens, self.tokens)
            self.prompt_tokens = _latest(event.usage.prompt_tokens, self.prompt_tokens)

    def end(self) -> None:
        """Check the complete body, and set the error if it is not a valid answer."""
        if self.status != 200:
            self.fail(f"HTTP {self.status}: {self._rest.decode(errors='replace')[:_MAX_TEXT]}")
        elif self._rest.strip():
            self.feed(b"\n\n", self._at_ns)
        if not self.chunks_ns:
            self.fail("the answer has no chunk")

    def earliest_ns(self) -> array[int]:
        """Return the earliest possible arrival of each chunk.

        Chunks that were read together are spread evenly over the uncertain time.
        """
        early = array("q", self.chunks_ns)
        for first, count, uncertain_ns in self.uncertain:
            before = early[first - 1] if first else 0
            for place in range(count):
                back = uncertain_ns * (count - place) // count
                early[first + place] = max(before, early[first + place] - back)
        return early

    @property
    def text(self) -> str:
        """The generated text."""
        return "".join(self.texts)


def _latest(count: int | None, before: int | None) -> int | None:
    return before if count is None else count


def _split(data: bytes) -> list[bytes]:
    """Split a stream whose lines end in CR LF into events; the last part is incomplete."""
    return data.replace(b"\r\n", b"\n").split(b"\n\n")
