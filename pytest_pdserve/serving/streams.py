"""A streamed completion, read to its end: its text, or in the server's words why it is none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pytest_pdserve.values.errors import PathError

FINISHED = ("length", "stop")
"""Finish reasons of a request that was answered."""
_SHOWN = 300


class RefusedError(PathError):
    """The server rejected the request (HTTP 4xx)."""


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
        :data:`FINISHED`, tokens without text, nothing at all, or something that is no event.
    """
    text, tokens, reason = "", None, None
    for data in _events(lines, url):
        if said := data.get("error"):
            message = said.get("message", said) if isinstance(said, dict) else said
            raise PathError(f"{url} answered with an error in its stream: {str(message)[:_SHOWN]}")
        for choice in data.get("choices") or ():
            text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            reason = choice.get("finish_reason") or reason
        tokens = (data.get("usage") or {}).get("completion_tokens", tokens)
    if reason is not None and reason not in FINISHED:
        known = " or ".join(FINISHED)
        raise PathError(f"{url} ended a completion with finish_reason {reason!r}; expected {known}")
    if reason is None and not text:
        raise PathError(f"{url} ended a completion without text and without a finish_reason")
    if tokens and not text:
        raise PathError(f"{url} claims {tokens} tokens and sent no text")
    return Answer(text=text, tokens=tokens)


def _events(lines: Iterable[str], url: str) -> Iterator[dict[str, Any]]:
    for line in lines:
        kind, colon, content = line.partition(":")
        if kind != "data" or not colon or content.strip() == "[DONE]":
            continue
        try:
            data = json.loads(content)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise PathError(
                f"{url} streamed {content.strip()[:_SHOWN]!r}, which is not a JSON object"
            )
        yield data
