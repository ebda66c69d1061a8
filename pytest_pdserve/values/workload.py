"""Workloads: what the benchmark client asks of a topology."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pdserve.values.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9._-]+")
"""What a dataset may be called; records are filed by it, so system.schema.json says the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One cell of a sweep: lengths, number and arrival of requests."""

    input_len: int
    """Prompt length, tokens."""
    output_len: int
    """Tokens generated per request; the end-of-sequence token is ignored."""
    num_prompts: int
    """Requests."""
    request_rate: float = math.inf
    """Open-loop arrival rate, req/s; infinity sends all at once."""
    max_concurrency: int | None = None
    """Requests in flight at most; None is no bound."""
    dataset: str = "random"
    """``--dataset-name`` of ``vllm bench serve``."""
    options: tuple[tuple[str, str], ...] = ()
    """Further options of ``vllm bench serve``, as (name without dashes, value)."""
    panels: tuple[str, ...] = ()
    """The article's panels that the cell belongs to: ``prefill``, ``decode``."""
    article_lengths: tuple[int, int] | None = None
    """Input and output length of the article's cell that this one is a scaled copy of."""

    @property
    def lengths(self) -> str:
        """Input and output length, as in ``512-256``; what test ids show."""
        return f"{self.input_len}-{self.output_len}{self._load}"

    @property
    def id(self) -> str:
        """Name of the workload in records and baselines, e.g. ``random-512-256-rate8``."""
        return f"{self.dataset}-{self.lengths}"

    @property
    def _load(self) -> str:
        return "" if math.isinf(self.request_rate) else f"-rate{self.request_rate:g}"

    def seed(self, repeat: int) -> int:
        """Seed of the client: the same for every topology, another for every cell and repeat.

        A second run with the same prompts would be answered from the prefix cache.
        """
        return zlib.crc32(f"{self.id}/{repeat}".encode()) % 1_000_000

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Workload:
        """Read what :meth:`to_json` wrote."""
        rate = data["request_rate"]
        lengths = data.get("article_lengths")
        return cls(
            input_len=data["input_len"],
            output_len=data["output_len"],
            num_prompts=data["num_prompts"],
            request_rate=math.inf if rate == "inf" else float(rate),
            max_concurrency=data["max_concurrency"],
            dataset=data["dataset"],
            options=tuple((name, value) for name, value in data["options"].items()),
            panels=tuple(data["panels"]),
            article_lengths=(lengths[0], lengths[1]) if lengths else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The workload as a JSON object; an infinite rate is written ``inf``, as vLLM does."""
        return {
            "id": self.id,
            "dataset": self.dataset,
            "input_len": self.input_len,
            "output_len": self.output_len,
            "num_prompts": self.num_prompts,
            "request_rate": "inf" if math.isinf(self.request_rate) else self.request_rate,
            "max_concurrency": self.max_concurrency,
            "options": dict(self.options),
            "panels": list(self.panels),
            "article_lengths": list(self.article_lengths) if self.article_lengths else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The article's two panels, as one system runs them."""

    input_lens: tuple[int, ...] = (512, 1024, 2048, 4096)
    """Prefill panel: prompt lengths, at the first of :attr:`output_lens`."""
    output_lens: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    """Decode panel: output lengths, at the first of :attr:`input_lens`."""
    length_divisor: int = 1
    """What the article's lengths are divided by on a system that is too slow for them."""
    num_prompts: int = 1024
    """Requests per cell."""
    max_concurrency: int | None = None
    """Requests in flight at most; the article sets no bound."""
    request_rate: float = math.inf
    """Arrival rate, req/s."""
    dataset: str = "random"
    """``--dataset-name``; lengths become ``--random-input-len`` and so on."""
    options: tuple[tuple[str, str], ...] = ()
    """Further options of ``vllm bench serve``."""
    repeats: int | None = None
    """Runs per cell where limits alone decide (None: 1); at most so many, the confirmations of a
    suspicious cell among them, where nights are judged (None: 4)."""

    def workloads(self) -> tuple[Workload, ...]:
        """The cells, shared ones once: 8 for the article's 4 + 5.

        :raises ConfigError: if a length cannot be divided.
        """
        cells: dict[tuple[int, int], list[str]] = {}
        for input_len in self.input_lens:
            cells.setdefault((input_len, self.output_lens[0]), []).append("prefill")
        for output_len in self.output_lens:
            cells.setdefault((self.input_lens[0], output_len), []).append("decode")
        return tuple(self._workload(lengths, tuple(panels)) for lengths, panels in cells.items())

    def _workload(self, lengths: tuple[int, int], panels: tuple[str, ...]) -> Workload:
        for length in lengths:
            if length % self.length_divisor:
                raise ConfigError(
                    f"sweep.length_divisor = {self.length_divisor} does not divide length {length}"
                )
        return Workload(
            input_len=lengths[0] // self.length_divisor,
            output_len=lengths[1] // self.length_divisor,
            num_prompts=self.num_prompts,
            request_rate=self.request_rate,
            max_concurrency=self.max_concurrency,
            dataset=self.dataset,
            options=self.options,
            panels=panels,
            article_lengths=lengths,
        )
