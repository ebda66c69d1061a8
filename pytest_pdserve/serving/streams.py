"""Read a streamed completion to its end, or raise with the server's error message."""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pytest_pdserve.serving.answers import printable
from pytest_pdserve.values.errors import PathError

FINISHED = ("length", "stop")
"""Finish reasons of a successful request."""
_FIELDS = ("event", "id", "retry")
"""Fields of an event that are ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A streamed completion."""

    text: str
    """Generated text."""
    tokens: int | None
    """Completion tokens in the server's ``usage``; None without one."""


def read_stream(lines: Iterable[str], url: str) -> Completion:
    """Parse the server-sent events of one completion.

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
        if error := data.get("error"):
            message = error.get("message", error) if isinstance(error, dict) else error
            raise PathError(
                f"{url} answered with an error in its stream: {printable(str(message))}"
            )
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
    if reason is None and text and not ended:
        raise PathError(
            f"{url} stopped in the middle of a completion: no finish_reason, usage or [DONE] after "
            f"{events} events"
        )
    _check_end(text, tokens, reason, url)
    return Completion(text=text, tokens=tokens)


def _check_end(text: str, tokens: int | None, reason: str | None, url: str) -> None:
    """Raise if a stream that was read to its end is not a successful completion.

    :raises PathError: with what is wrong.
    """
    if reason is not None and reason not in FINISHED:
        shown, expected = printable(str(reason)), " or ".join(FINISHED)
        raise PathError(
            f"{url} ended a completion with finish_reason {shown!r}; expected {expected}"
        )
    if reason is None and not text:
        raise PathError(f"{url} ended a completion without text and without a finish_reason")
    if tokens and not text:
        raise PathError(f"{url} claims {tokens} tokens and sent no text")


def _contents(lines: Iterable[str], url: str) -> Iterator[str]:
    """Yield the content of each ``data:`` line.

    :raises PathError: if a line is not part of an event stream.
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
    """Return ``completion_tokens`` of *usage*; None if it is missing.

    :raises TypeError: if it is not a whole number.
    """
    tokens = usage.get("completion_tokens")
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int)):
        raise TypeError
    return tokens
