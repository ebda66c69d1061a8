"""Settings of a simulated system: seed, noise, replay of the sweep, and limits of loads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from typing import Any
from typing import Literal

from msgspec import Meta

from pytest_pdserve.simulation.constants import MAX_SEQUENCES
from pytest_pdserve.simulation.constants import TOKEN_BUDGET
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.workload import Workload

MAX_DRIFT = 1000.0
"""Largest factor by which drift may make a night slower or faster."""
MAX_PROMPTS = 100_000
"""Largest number of requests of a load, which takes 10 s to simulate."""
MAX_LENGTH = 163_840
"""Largest number of tokens of a prompt or an output: the model's context length."""
MAX_STEP_TOKENS = 1_000_000
"""Largest number of tokens of a step."""
MAX_GENERATED = 20_000_000
"""Largest number of tokens that a load generates, five times the article's: 10 s and 1 GB."""


Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Word = Annotated[str, Meta(pattern=r"^[^\s]+$")]


def check_size(load: Workload) -> None:
    """Raise ConfigError if a load would take hours to compute.

    :raises ConfigError: with the number that is too large.
    """
    inputs, outputs = load.lengths or (1, 1)
    prompts = load.num_prompts if isinstance(load.num_prompts, int) else 1
    for what, size, most in (
        ("num_prompts", prompts, MAX_PROMPTS),
        ("input_len", inputs, MAX_LENGTH),
        ("output_len", outputs, MAX_LENGTH),
        ("num_prompts x output_len", prompts * outputs, MAX_GENERATED),
    ):
        if size > most:
            raise ConfigError(
                f"load {load.id} cannot be simulated: {what} = {size:,}, expected {most:,} at most"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The arguments of ``vllm serve`` that a simulated engine supports."""

    token_budget: int = TOKEN_BUDGET
    """Tokens of a step: ``--max-num-batched-tokens``."""
    max_sequences: int = MAX_SEQUENCES
    """Sequences of an engine: ``--max-num-seqs``."""


_ENGINE_FLAGS = {
    "--max-num-batched-tokens": ("token_budget", MAX_STEP_TOKENS),
    "--max-num-seqs": ("max_sequences", MAX_SEQUENCES),
}
"""Supported arguments, with field and largest value."""


def engine_limits(arguments: Sequence[str]) -> EngineLimits:
    """Return the limits of a simulated engine with these arguments of ``vllm serve``.

    :raises ConfigError: if an argument is not supported, or a value is out of range.
    """
    limits: dict[str, int] = {}
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag not in _ENGINE_FLAGS:
            supported = " and ".join(f"{name}=N" for name in _ENGINE_FLAGS)
            raise ConfigError(
                f"argument {argument!r:.80} of a simulated engine: expected {supported}"
            )
        name, most = _ENGINE_FLAGS[flag]
        if not (value.isascii() and value.isdecimal() and 1 <= int(value[:9]) <= most):
            raise ConfigError(
                f"argument {argument!r:.80} of a simulated engine: expected a number from 1 to "
                f"{most}"
            )
        limits[name] = int(value)
    return EngineLimits(**limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSpec:
    """Settings of the simulation: ``[simulation]`` of the system file; without noise by default."""

    noise: Literal["none", "reference"] = "none"
    """Defaults of the other keys: ``reference`` is the noise of public nightly runs."""
    seed: Count = 0
    """Seed of routing and noise, in addition to the workload's own."""
    noise_seed: Count = 0
    """Seed of the noise alone; differs for each start of an upgrade gate."""
    night: Count = 0
    """Number of the night; runs of one night share a part of their noise; drift grows by night."""
    replay: bool = False
    """True if the earlier cells of the sweep are simulated first, with the same prompts."""
    run_cv: Share = 0.0
    """Coefficient of variation of all service times from run to run."""
    ttft_cv: Share = 0.0
    """Additional coefficient of variation of the time to first token."""
    ttft_tail_cv: Share = 0.0
    """Additional coefficient of variation of the 99th percentile of the time to first token."""
    icc: Share = 0.2
    """Share of the variance that runs of one night share."""
    heavy_tails: bool = False
    """True if noise has Student's t distribution of 3 degrees of freedom, not a normal one."""
    slow_runs: Share = 0.0
    """Share of runs that are slowed by 5 to 50 %."""
    drift_per_night: Annotated[float, Meta(gt=-1, le=1)] = 0.0
    """Slowdown from each night to the next, as a fraction."""
    bad_node: Word | None = None
    """Name of a node that is slower than the others."""
    bad_node_factor: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0
    """Factor of the duration of that node's steps."""

    @staticmethod
    def complete(table: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table of a system file, completed with the defaults of its ``noise``."""
        return {**(_REFERENCE if table.get("noise") == "reference" else {}), **table}

    def check(self) -> None:
        """Raise ConfigError if drift is excessive at the system's night.

        :raises ConfigError: with both keys.
        """
        if abs(self.night * math.log1p(self.drift_per_night)) > math.log(MAX_DRIFT):
            raise ConfigError(
                f"simulation.night = {self.night} with drift_per_night = {self.drift_per_night:g} "
                f"is more than {MAX_DRIFT:g} times slower or faster; name an earlier night"
            )


_REFERENCE: dict[str, Any] = {
    "run_cv": 0.008,
    "ttft_cv": 0.0127,
    "ttft_tail_cv": 0.058,
    "slow_runs": 0.01,
}
"""Throughput, ITL, TPOT, E2EL 0.8 %; TTFT p50 1.5 %, mean 2 %, p99 6 %; 1 % of runs slowed."""
