"""Result files of ``vllm bench serve``, of all supported versions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import TypeVar

from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.numbers import finite

ARRAYS = (
    "ttfts",
    "itls",
    "input_lens",
    "output_lens",
    "start_times",
    "errors",
    "queue_times",
    "generated_texts",
)
"""Lists of one entry per request."""
KEPT = "kept_requests"
"""List of a few requests as they were sent, which clients of this package add."""

SIMULATED_BACKEND = "simulated"
"""Value of ``backend`` in a simulated result."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRequest:
    """A measured request that the client kept as a whole, so that it can be sent again."""

    index: int
    """Index among all requests."""
    prompt: str | tuple[int, ...]
    """Text, or token ids."""
    fields: Mapping[str, Any]
    """Other fields of the request that affect the answer, e.g. ``temperature``."""
    text: str
    """Text of the answer."""
    tokens: int
    """Tokens of the answer."""

    @property
    def greedy(self) -> bool:
        """True if sampling was greedy (temperature 0)."""
        return finite(self.fields.get("temperature")) == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """A client result: totals, metrics, and one entry per request if these were saved."""

    completed: int | None
    """Requests that completed; None if a result of another tool lacks them, as for the tokens."""
    failed: int | None
    """Requests that failed; None if the result lacks them, and they cannot be derived."""
    duration_s: float
    """Wall time of the load, seconds; NaN if a result of another tool lacks it."""
    total_input_tokens: int | None
    """Prompt tokens of completed requests."""
    total_output_tokens: int | None
    """Generated tokens of completed requests."""
    ttft_s: tuple[float, ...] = ()
    """Time to first token of each request, seconds; 0 if it failed, NaN if it is null."""
    itl_s: tuple[tuple[float, ...], ...] = ()
    """Gaps between chunks of each request, seconds."""
    input_lens: tuple[int, ...] = ()
    """Prompt tokens of each request."""
    output_lens: tuple[int, ...] = ()
    """Generated tokens of each request."""
    start_s: tuple[float, ...] = ()
    """Start of each request on the client's monotonic clock, seconds; absent before 2026."""
    queue_s: tuple[float, ...] = ()
    """How long the client held each request back after it was due, seconds, since it has at most
    ``max_concurrency`` in flight; absent before vLLM 0.30."""
    errors: tuple[str, ...] = ()
    """Error text of each request; empty if it completed."""
    answer_digests: tuple[str, ...] = ()
    """Digest of the text of each request; empty without a text."""
    kept: tuple[MeasuredRequest, ...] = ()
    """Answered requests that the client kept with prompt and text; never stored."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """All scalar values as the client wrote them, in its order; source of metrics."""

    @property
    def detailed(self) -> bool:
        """True if there is an entry per request."""
        return bool(self.output_lens)

    @property
    def has_totals(self) -> bool:
        """True if it contains the number of completed requests and their tokens."""
        return None not in (self.completed, self.total_input_tokens, self.total_output_tokens)

    @property
    def answers_identical(self) -> bool:
        """True if several requests were answered, and all with the same text."""
        answered = [
            answer
            for answer, tokens in zip(self.answer_digests, self.output_lens, strict=False)
            if tokens > 0
        ]
        return len(answered) > 1 and len(set(answered)) == 1

    @property
    def chunks(self) -> int | None:
        """Streamed chunks with content of all completed requests; None without both lists.

        A request of *n* chunks has *n* - 1 gaps between them.
        """
        if not self.itl_s or not self.output_lens:
            return None
        return sum(
            len(gaps) + 1
            for gaps, tokens in zip(self.itl_s, self.output_lens, strict=True)
            if tokens > 0
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str) -> BenchResult:
        """Parse the JSON object of a result file.

        ``failed`` came after vLLM 0.11.0 (pull request 26478); before, it is ``num_prompts -
        completed``. ``start_times`` came in January 2026 (32667). Until 0.8.5 (17028) the lists
        were always there, since then only after ``--save-detailed``.

        :raises ClientError: if a total is missing or not a number, or lists differ in length.
        """
        if not isinstance(data, Mapping):
            raise ClientError(f"{source} is not a result of vllm bench serve: not a JSON object")
        lists = {name: _list(data, name, source) for name in ARRAYS}
        _check_lengths(lists, source)
        completed = _count(data, "completed", source)
        return cls(
            completed=completed,
            failed=_failed(data, completed),
            duration_s=_number(data, "duration", source),
            total_input_tokens=_count(data, "total_input_tokens", source),
            total_output_tokens=_count(data, "total_output_tokens", source),
            ttft_s=_entries(lists, "ttfts", _seconds, source),
            itl_s=_entries(lists, "itls", _gaps, source),
            input_lens=_entries(lists, "input_lens", _length, source),
            output_lens=_entries(lists, "output_lens", _length, source),
            start_s=_entries(lists, "start_times", _seconds, source),
            queue_s=_entries(lists, "queue_times", _seconds, source),
            answer_digests=_entries(lists, "generated_texts", _digest, source),
            errors=_entries(
                lists, "errors", lambda text: "" if text is None else str(text), source
            ),
            kept=_kept(data, lists, source),
            raw={key: value for key, value in data.items() if not isinstance(value, list)},
        )


def _number(data: Mapping[str, Any], key: str, source: str) -> float:
    value = finite(data.get(key))
    if value is None or value < 0:
        raise ClientError(
            f"{source} is not a result of vllm bench serve: {key!r} is {data.get(key)!r:.40}, "
            "not a number"
        )
    return value


def _count(data: Mapping[str, Any], key: str, source: str) -> int:
    value = _number(data, key, source)
    if not value.is_integer():
        raise ClientError(f"{source}: {key!r} is {value!r}, not a whole number")
    return int(value)


def _failed(data: Mapping[str, Any], completed: int) -> int | None:
    failed, prompts = finite(data.get("failed")), finite(data.get("num_prompts"))
    if failed is None and prompts is not None:
        failed = prompts - completed
    return int(failed) if failed is not None and failed >= 0 else None


def _list(data: Mapping[str, Any], key: str, source: str) -> list[Any]:
    value = data.get(key) or []
    if not isinstance(value, list):
        raise ClientError(f"{source}: {key!r} is {type(value).__name__}, not a list")
    return value


def _entries(
    lists: Mapping[str, list[Any]], key: str, read: Callable[[Any], T], source: str
) -> tuple[T, ...]:
    read_entries = []
    for index, entry in enumerate(lists[key]):
        try:
            read_entries.append(read(entry))
        except (TypeError, ValueError, OverflowError) as error:
            shown = repr(entry)[:60]
            raise ClientError(
                f"{source}: {key}[{index}] is {shown}, not what it should be"
            ) from error
    return tuple(read_entries)


def _kept(
    data: Mapping[str, Any], lists: Mapping[str, list[Any]], source: str
) -> tuple[MeasuredRequest, ...]:
    """Return the requests of :data:`KEPT` that were answered.

    :raises ClientError: if an entry is malformed.
    """
    texts, lens = lists["generated_texts"], lists["output_lens"]
    kept = []
    for entry in _list(data, KEPT, source):
        try:
            index, prompt, fields = _length(entry["index"]), entry["prompt"], dict(entry["fields"])
            text, tokens = texts[index], _length(lens[index])
            if not isinstance(prompt, str):
                prompt = tuple(map(_length, prompt))
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            shown = repr(entry)[:60]
            raise ClientError(f"{source}: {KEPT} has {shown}, not what it should be") from error
        if text and tokens:
            kept.append(
                MeasuredRequest(
                    index=index, prompt=prompt, fields=fields, text=str(text), tokens=tokens
                )
            )
    return tuple(kept)


def _digest(entry: Any) -> str:
    return hashlib.sha256(str(entry).encode()).hexdigest()[:16] if entry else ""


LONGEST_S = 1e9
"""Largest time of a request, seconds."""


def _seconds(entry: Any) -> float:
    if isinstance(entry, bool) or (isinstance(entry, str) and entry != "NaN"):
        raise TypeError  # float() takes both for a number
    seconds = math.nan if entry is None else float(entry)
    if abs(seconds) > LONGEST_S:
        raise ValueError
    return seconds


def _gaps(entry: Any) -> tuple[float, ...]:
    if entry is None:
        return ()
    if set(map(type, entry)) == {float} and math.isfinite(sum(entry)):
        if max(map(abs, entry)) > LONGEST_S:
            raise ValueError
        return tuple(entry)  # a million of them is a common run
    return tuple(map(_seconds, entry))


def _length(entry: Any) -> int:
    if entry is not None and (isinstance(entry, bool | str) or entry != int(entry)):
        raise TypeError
    if not 0 <= (length := 0 if entry is None else int(entry)) <= LARGEST:
        raise ValueError
    return length


def _check_lengths(lists: Mapping[str, list[Any]], source: str) -> None:
    lengths = {name: len(values) for name, values in lists.items() if values}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ClientError(f"{source}: lists of one entry per request differ in length: {text}")
