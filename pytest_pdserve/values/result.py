"""What ``vllm bench serve`` wrote, whichever version wrote it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.metrics import METRICS

_ARRAYS = ("ttfts", "itls", "input_lens", "output_lens", "start_times", "errors")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One client result: totals, metrics, and one entry per request where they were saved."""

    completed: int
    """Requests that completed."""
    failed: int | None
    """Requests that failed; None where the version does not say and it cannot be derived."""
    duration_s: float
    """Wall time of the benchmark proper, seconds."""
    total_input_tokens: int
    """Prompt tokens of completed requests."""
    total_output_tokens: int
    """Generated tokens of completed requests."""
    metrics: tuple[tuple[str, float], ...]
    """Judged metrics by name, in their own units; only finite numbers."""
    ttft_s: tuple[float, ...] = ()
    """Time to first token of each request, seconds; 0 where it failed."""
    itl_s: tuple[tuple[float, ...], ...] = ()
    """Gaps between chunks of each request, seconds."""
    input_lens: tuple[int, ...] = ()
    """Prompt tokens of each request."""
    output_lens: tuple[int, ...] = ()
    """Generated tokens of each request."""
    start_s: tuple[float, ...] = ()
    """Start of each request on the client's monotonic clock, seconds; absent before vLLM 0.11."""
    errors: tuple[str, ...] = ()
    """Error text of each request, empty where it completed."""
    raw: tuple[tuple[str, Any], ...] = ()
    """All single values as the client wrote them, in its order."""

    @property
    def detailed(self) -> bool:
        """Whether there is an entry per request."""
        return bool(self.output_lens)

    @property
    def chunks(self) -> int | None:
        """Streamed chunks with content of all completed requests; None without details.

        A request of *n* chunks has *n* - 1 gaps between them.
        """
        if not self.itl_s:
            return None
        return sum(
            len(gaps) + 1
            for gaps, tokens in zip(self.itl_s, self.output_lens, strict=True)
            if tokens > 0
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str) -> BenchResult:
        """Read a result file's object.

        ``failed`` came with vLLM 0.11; before, it is ``num_prompts - completed``. The lists are there
        only after ``--save-detailed``.

        :raises ClientError: if a total is missing or no number, or lists differ in length.
        """
        if not isinstance(data, Mapping):
            raise ClientError(f"{source} is no result of vllm bench serve: not a JSON object")
        lists = {name: _list(data, name, source) for name in _ARRAYS}
        _check_lengths(lists, source)
        completed = int(_number(data, "completed", source))
        return cls(
            completed=completed,
            failed=_failed(data, completed, source),
            duration_s=_number(data, "duration", source),
            total_input_tokens=int(_number(data, "total_input_tokens", source)),
            total_output_tokens=int(_number(data, "total_output_tokens", source)),
            metrics=tuple(_metrics(data)),
            ttft_s=tuple(map(float, lists["ttfts"])),
            itl_s=tuple(tuple(map(float, gaps)) for gaps in lists["itls"]),
            input_lens=tuple(map(int, lists["input_lens"])),
            output_lens=tuple(map(int, lists["output_lens"])),
            start_s=tuple(map(float, lists["start_times"])),
            errors=tuple(map(str, lists["errors"])),
            raw=tuple((key, value) for key, value in data.items() if not isinstance(value, list)),
        )


def _number(data: Mapping[str, Any], key: str, source: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ClientError(
            f"{source} is no result of vllm bench serve: {key!r} is {value!r}, not a number"
        )
    return value


def _failed(data: Mapping[str, Any], completed: int, source: str) -> int | None:
    if "failed" in data:
        return int(_number(data, "failed", source))
    if "num_prompts" in data:
        return int(_number(data, "num_prompts", source)) - completed
    return None


def _list(data: Mapping[str, Any], key: str, source: str) -> list[Any]:
    value = data.get(key) or []
    if not isinstance(value, list):
        raise ClientError(f"{source}: {key!r} is {type(value).__name__}, not a list")
    return value


def _check_lengths(lists: Mapping[str, list[Any]], source: str) -> None:
    lengths = {name: len(values) for name, values in lists.items() if values}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ClientError(f"{source}: lists of one entry per request differ in length: {said}")


def _metrics(data: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [
        (name, float(data[name]))
        for name, metric in METRICS.items()
        if metric.better != "equal"
        and isinstance(data.get(name), int | float)
        and math.isfinite(data[name])
    ]
