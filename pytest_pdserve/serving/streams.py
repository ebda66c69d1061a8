"""A streamed completion, read to its end: its text, or in the server's words why it is none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pytest_pdserve.serving.answers import printable
from pytest_pdserve.values.errors import PathError

FINISHED = ("length", "stop")
"""Finish reasons of a request that was answered."""
_FIELDS = ("event", "id", "retry")
"""Fields of an event that are not read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One completed request."""

    text: str
    """What was generated."""
    tokens: int | None
    """Tokens that the server claims; None if it does not say."""


def read_stream(lines: Iterable[str], url: str) -> Answer:
    """Read the server-sent events of one completion.

    :raises PathError: if there is an error object anywhere, a finish reason other than
        :data:`FINISHED`, no end, tokens without text, nothing at all, or something that is not an
        event of a completion.
    """
    text, tokens, reason, ended, events = "", None, None, False, 0
    for content in _contents(lines, url):
        if content == "[DONE]":
            ended = True
            continue
        events += 1
        data = _object(content, url)
        if said := data.get("error"):
            said = printable(str(said.get("message", said) if isinstance(said, dict) else said))
            raise PathError(f"{url} answered with an error in its stream: {said}")
        try:
            for choice in data.get("choices") or ():
                text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                reason = choice.get("finish_reason") or reason
            if usage := data.get("usage"):
                tokens, ended = _tokens(usage), True
        except (AttributeError, TypeError, ValueError) as error:
            raise PathError(
                f"{url} streamed {printable(content)!r}, which is not an event of a completion"
            ) from error
    if reason is not None and reason not in FINISHED:
        said, known = printable(str(reason)), " or ".join(FINISHED)
        raise PathError(f"{url} ended a completion with finish_reason {said!r}; expected {known}")
    if reason is None and not text:
        raise PathError(f"{url} ended a completion without text and without a finish_reason")
    if reason is None and not ended:
        raise PathError(
            f"{url} stopped in the middle of a completion: no finish_reason, usage or [DONE] after "
            f"{events} events"
        )
    if tokens and not text:
        raise PathError(f"{url} claims {tokens} tokens and sent no text")
    return Answer(text=text, tokens=tokens)


def _contents(lines: Iterable[str], url: str) -> Iterator[str]:
    """Yield what stands behind ``data:``.

    :raises PathError: if there is a line that no stream of events has.
    """
    for line in lines:
        kind, colon, content = line.partition(":")
        if kind == "data" and colon:
            yield content.strip()
        elif kind.strip() and kind not in _FIELDS:
            raise PathError(f"{url} streamed {printable(line)!r}, which is not a server-sent event")


def _object(content: str, url: str) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise PathError(f"{url} streamed {printable(content)!r}, which is not a JSON object")
    return data


def _tokens(usage: dict[str, Any]) -> int | None:
    """Return the tokens that were generated; None if *usage* does not say.

    :raises TypeError: if it says something else than a number.
    """
    said = usage.get("completion_tokens")
    if said is not None and (isinstance(said, bool) or not isinstance(said, int)):
        raise TypeError
    return said
