"""Sweeps: the workloads of the article's two panels on one system."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.workload import LENGTH_FLAGS
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import Concurrency
from pytest_pdserve.values.workload import Factor
from pytest_pdserve.values.workload import Length
from pytest_pdserve.values.workload import Name
from pytest_pdserve.values.workload import Options
from pytest_pdserve.values.workload import Prompts
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Rate
from pytest_pdserve.values.workload import Workload

Panel = Literal["prefill", "decode"]
PANELS: tuple[Panel, ...] = ("prefill", "decode")
Lengths = Annotated[tuple[Length, ...], Meta(min_length=1, extra_json_schema={"uniqueItems": True})]
ARTICLE_INPUT_LENS = (512, 1024, 2048, 4096)
ARTICLE_OUTPUT_LENS = (256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A workload of a sweep, and the point of the article that it corresponds to."""

    workload: Workload
    """Load."""
    panels: tuple[Panel, ...]
    """Panels that contain it."""
    article_lengths: tuple[int, int] | None = None
    """Prompt and output length of the article's point, tokens; None for data sets with lengths of
    their own."""

    @property
    def id(self) -> str:
        """The workload's id."""
        return self.workload.id

    @property
    def test_id(self) -> str:
        """Short name, unique in a sweep, e.g. ``512-256``."""
        return self.workload.parts.get("lengths", self.workload.id)

    @property
    def name(self) -> str:
        """Name in claims, with the article's lengths: ``512-256``, ``512-256-rate8``."""
        if self.article_lengths is None:
            return self.workload.id
        rate = self.workload.parts.get("rate")
        return "{}-{}".format(*self.article_lengths) + (f"-{rate}" if rate else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The article's two panels on one system."""

    input_lens: Lengths | None = None
    """Prefill panel: prompt lengths, with the first of :attr:`output_lens`; None for the
    article's."""
    output_lens: Lengths | None = None
    """Decode panel: output lengths, with the first of :attr:`input_lens`; None for the
    article's."""
    length_divisor: Annotated[int, Meta(ge=1, le=10_000_000)] = 1
    """Divisor of all lengths, for systems that are too slow for the article's."""
    num_prompts: Prompts = 1024
    """Requests per cell."""
    request_rate: Rate | None = None
    """Arrival rate, req/s; None sends all at once."""
    burstiness: Factor = 1.0
    """Shape of the gaps between requests; 1 is a Poisson process."""
    ramp_up: RampUp | None = None
    """Increase of the rate at the start; None for a constant rate."""
    max_concurrency: Concurrency | None = None
    """Largest number of requests in flight; None for no limit, as in the article."""
    dataset: Name = "random"
    """``--dataset-name``; a data set with lengths of its own makes a sweep of one load."""
    options: Options = field(default_factory=dict)
    """Further options of ``vllm bench serve``."""
    repeats: Annotated[int, Meta(ge=1, le=9999)] | None = None
    """Runs of a cell on each start of its servers; None for 1."""

    def points(self) -> tuple[Point, ...]:
        """Return the points of both panels, common ones once: 8 for the article's 4 + 5.

        :raises ConfigError: if a length cannot be divided, or the data set has lengths of its own.
        """
        return _points(self)

    def __hash__(self) -> int:
        return hash((self.input_lens, self.output_lens, self.dataset, self.num_prompts))

    def workloads(self) -> tuple[Workload, ...]:
        """Return the workloads of :meth:`points`."""
        return tuple(point.workload for point in self.points())


@functools.lru_cache(maxsize=64)
def _points(sweep: Sweep) -> tuple[Point, ...]:
    """Return the points of a sweep; cached, since a session often needs them."""
    if sweep.dataset == UNKNOWN:
        raise ConfigError("sweep.dataset = 'unknown': expected a --dataset-name of the client")
    if sweep.dataset not in LENGTH_FLAGS:
        for name in ("input_lens", "output_lens"):
            if getattr(sweep, name) is not None:
                raise ConfigError(
                    f"sweep.{name}: data set {sweep.dataset!r} brings lengths of its own; leave "
                    "it out"
                )
        return (Point(workload=_workload(sweep, None, None), panels=PANELS),)
    inputs = sweep.input_lens or ARTICLE_INPUT_LENS
    outputs = sweep.output_lens or ARTICLE_OUTPUT_LENS
    cells: dict[tuple[int, int], list[Panel]] = {}
    for input_len in inputs:
        cells.setdefault((input_len, outputs[0]), []).append("prefill")
    for output_len in outputs:
        cells.setdefault((inputs[0], output_len), []).append("decode")
    return tuple(
        Point(
            workload=_workload(sweep, *(_divided(sweep, each) for each in lengths)),
            panels=tuple(panels),
            article_lengths=lengths,
        )
        for lengths, panels in cells.items()
    )


def _divided(sweep: Sweep, length: int) -> int:
    if length % sweep.length_divisor:
        raise ConfigError(
            f"sweep.length_divisor = {sweep.length_divisor} does not divide length {length}"
        )
    return length // sweep.length_divisor


def _workload(sweep: Sweep, input_len: int | None, output_len: int | None) -> Workload:
    return Workload(
        input_len=input_len,
        output_len=output_len,
        num_prompts=sweep.num_prompts,
        request_rate=sweep.request_rate,
        burstiness=sweep.burstiness,
        ramp_up=sweep.ramp_up,
        max_concurrency=sweep.max_concurrency,
        dataset=sweep.dataset,
        options=sweep.options,
    )
