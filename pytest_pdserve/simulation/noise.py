"""Run-to-run noise: one factor for all service times, and two more for first tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace

from pytest_pdserve.simulation.constants import Constants
from pytest_pdserve.simulation.engine import Request
from pytest_pdserve.simulation.options import SimulationSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The noise of one run."""

    service: float = 1.0
    """Factor of every service time."""
    ttft: float = 1.0
    """Factor of every time to first token."""
    ttft_tail: float = 1.0
    """Additional factor at the 99th percentile of TTFT; grows from 1 at the median."""


def draw(spec: SimulationSpec, key: str) -> Draw:
    """Return the noise of a run; the same *key* gives the same noise.

    The part that a night shares is drawn per night, so it affects all cells equally.

    :param key: name of the run, e.g. of topology, workload and repeat.
    """
    seed = f"{spec.seed}/{spec.night}" + (f"/{spec.noise_seed}" if spec.noise_seed else "")
    night = random.Random(seed)  # noqa: S311 - a simulation
    run = random.Random(f"{seed}/{key}")  # noqa: S311

    def factor(cv: float) -> float:
        common, own = _standard(night, spec), _standard(run, spec)
        return math.exp(cv * (math.sqrt(spec.icc) * common + math.sqrt(1 - spec.icc) * own))

    drawn = Draw(
        service=factor(spec.run_cv), ttft=factor(spec.ttft_cv), ttft_tail=factor(spec.ttft_tail_cv)
    )
    slowed = run.uniform(1.05, 1.5) if run.random() < spec.slow_runs else 1.0
    drifted = (1 + spec.drift_per_night) ** spec.night
    return replace(drawn, service=drawn.service * slowed * drifted)


def _standard(source: random.Random, spec: SimulationSpec) -> float:
    """Return a random value of variance 1."""
    normal = source.gauss(0.0, 1.0)
    if not spec.heavy_tails:
        return normal
    chi_square = sum(source.gauss(0.0, 1.0) ** 2 for _ in range(3))
    return normal / math.sqrt(chi_square / 3) / math.sqrt(3)


def slowed(constants: Constants, factor: float) -> Constants:
    """Return *constants* with every time multiplied by *factor*."""
    times = {f.name: getattr(constants, f.name) for f in fields(constants) if f.name.endswith("_s")}
    return replace(constants, **{name: value * factor for name, value in times.items()})


def delay_first_tokens(requests: Sequence[Request], drawn: Draw) -> None:
    """Move the sending time of each request so that its TTFT has the drawn noise.

    Steps do not change, so gaps and throughput do not either.
    """
    ranked = sorted(requests, key=lambda r: r.first - r.start)
    for position, request in enumerate(ranked):
        above = max(0.0, (position / len(ranked) - 0.5) / 0.49)
        factor = drawn.ttft * drawn.ttft_tail ** (above * above)
        request.start = request.first - (request.first - request.start) * factor
