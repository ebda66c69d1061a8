"""What a simulated system adds to its model: seed, history, noise."""

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

MOST_DRIFT = 1000.0
"""How many times slower or faster drift may make a night."""
MAX_PROMPTS = 100_000
"""Requests of a load, which take 10 s."""
MAX_LENGTH = 163_840
"""Tokens of a prompt or an output, which are all that the model takes."""
MOST_STEP_TOKENS = 1_000_000
"""Tokens of a step at most."""
MAX_GENERATED = 20_000_000
"""Tokens that a load generates, five times the article's most: they take 10 s and 1 GB."""


Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Word = Annotated[str, Meta(pattern=r"^[^\s]+$")]


def check_size(load: Workload) -> None:
    """Refuse a load that would be computed for hours.

    :raises ConfigError: naming what is too large.
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
    """What a simulated engine knows of the arguments of ``vllm serve``."""

    token_budget: int = TOKEN_BUDGET
    """Tokens of a step: ``--max-num-batched-tokens``."""
    max_sequences: int = MAX_SEQUENCES
    """Sequences of an engine: ``--max-num-seqs``."""


_ENGINE_FLAGS = {
    "--max-num-batched-tokens": ("token_budget", MOST_STEP_TOKENS),
    "--max-num-seqs": ("max_sequences", MAX_SEQUENCES),
}
"""Arguments that the simulation knows: field and largest value."""


def engine_limits(arguments: Sequence[str]) -> EngineLimits:
    """Return what arguments of ``vllm serve`` say to a simulated engine.

    :raises ConfigError: if there is one that the simulation does not know, or a value is out of
        range.
    """
    said: dict[str, int] = {}
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag not in _ENGINE_FLAGS:
            known = " and ".join(f"{name}=N" for name in _ENGINE_FLAGS)
            raise ConfigError(f"argument {argument!r:.80} of a simulated engine: expected {known}")
        name, most = _ENGINE_FLAGS[flag]
        if not (value.isascii() and value.isdecimal() and 1 <= int(value[:9]) <= most):
            raise ConfigError(
                f"argument {argument!r:.80} of a simulated engine: expected a number from 1 to "
                f"{most}"
            )
        said[name] = int(value)
    return EngineLimits(**said)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSpec:
    """How a simulated run differs from the model's bare answer; by default not at all."""

    noise: Literal["none", "reference"] = "none"
    """Where the keys that are not given start from: ``reference`` is noise as public nightly runs
    show it."""
    seed: Count = 0
    """Of routing and noise, beside the workload's own."""
    noise_seed: Count = 0
    """Seed of noise alone: each start of an upgrade gate has another."""
    night: Count = 0
    """Which night it is: runs of one night share a part of their noise, and drift counts nights."""
    replay: bool = False
    """Whether the cells of the sweep before this one were run first, with the same prompts."""
    run_cv: Share = 0.0
    """Coefficient of variation of all service times from run to run."""
    ttft_cv: Share = 0.0
    """The same of the time to first token, beside :attr:`run_cv`."""
    ttft_tail_cv: Share = 0.0
    """The same of its 99th percentile, beside both."""
    icc: Share = 0.2
    """Share of the variance that runs of one night have in common."""
    heavy_tails: bool = False
    """Whether noise is drawn from Student's t of 3 degrees of freedom, not from the normal."""
    slow_runs: Share = 0.0
    """Share of runs that are slowed by 5 to 50 %."""
    drift_per_night: Annotated[float, Meta(gt=-1, le=1)] = 0.0
    """By how much, as a fraction, every night is slower than the one before."""
    bad_node: Word | None = None
    """A node that is slower than the others."""
    bad_node_factor: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0
    """How much longer its steps take."""

    @staticmethod
    def complete(table: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table of a system file with the keys that its ``noise`` starts from."""
        return {**(_REFERENCE if table.get("noise") == "reference" else {}), **table}

    def check(self) -> None:
        """Refuse drift that has grown out of all measure by its night.

        :raises ConfigError: naming both keys.
        """
        if abs(self.night * math.log1p(self.drift_per_night)) > math.log(MOST_DRIFT):
            raise ConfigError(
                f"simulation.night = {self.night} with drift_per_night = {self.drift_per_night:g} "
                f"is more than {MOST_DRIFT:g} times slower or faster; name an earlier night"
            )


_REFERENCE: dict[str, Any] = {
    "run_cv": 0.008,
    "ttft_cv": 0.0127,
    "ttft_tail_cv": 0.058,
    "slow_runs": 0.01,
}
"""Throughput, ITL, TPOT, E2EL 0.8 %; TTFT p50 1.5 %, mean 2 %, p99 6 %; 1 % of runs slowed."""
