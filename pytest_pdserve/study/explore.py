"""Search for topologies of a number of nodes that meet a latency target, by simulation."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.plan.placement import place
from pytest_pdserve.report.table import text_table
from pytest_pdserve.simulation.options import SimulationSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

if TYPE_CHECKING:
    from pytest_pdserve.simulation.engine import Request

N = TypeVar("N", int, float)
RANGES = {
    "--nodes": (1, 64, ""),
    "--input-len": (1, 163_840, " tokens, which are all that the model takes"),
    "--output-len": (1, 163_840, " tokens, which are all that the model takes"),
    "--rate": (0.001, 1e6, " req/s, or inf for all at once"),
    "--num-prompts": (1, 100_000, ""),
}
"""Smallest and largest value of each option, and its unit: the range is simulated in minutes."""
LIMITS = (
    "Simulated, not measured: a model fitted to the means of one article's single runs "
    "(DeepSeek-V2-Lite, vLLM 0.15.1, 4 nodes x 8 H100-class GPUs, TP 8, random prompts).",
    "Not in the model: other models, GPUs or TP sizes, prompts that share prefixes, failures."
    " More data-parallel engines than 4, or lengths beyond 4096, are extrapolated.",
    "Differences below 10 % are not significant (docs/simulation-fit.md); measure the first two.",
)

REPLAYED = (
    "A cell of the article's sweep: prefix caches are as its earlier cells, of the same prompts, "
    "leave them; --fresh empties them."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The load and the latency targets for which topologies are compared."""

    nodes: int
    """Nodes, all of which are used."""
    input_lens: tuple[int, ...]
    """Prompt lengths, equally frequent, tokens."""
    output_lens: tuple[int, ...]
    """Output lengths, equally frequent and independent of the prompt's, tokens."""
    rate: float = math.inf
    """Poisson arrivals, req/s; infinity sends all at once."""
    num_prompts: int = 1024
    """Requests simulated."""
    slo_ttft_ms: float = math.inf
    """Largest acceptable mean time to first token."""
    slo_itl_ms: float = math.inf
    """Largest acceptable mean inter-token latency."""
    seed: int = 0
    """Seed of lengths, arrivals and routing."""
    fresh: bool = False
    """True if prefix caches are empty even for a cell of the system's own sweep."""

    def check(self) -> None:
        """Check that the question can be answered.

        :raises ConfigError: if a number is out of range, or there are no gaps for an ITL target.
        """
        for flag, values in (
            ("--nodes", [self.nodes]),
            ("--input-len", self.input_lens),
            ("--output-len", self.output_lens),
            ("--rate", [] if self.rate == math.inf else [self.rate]),
            ("--num-prompts", [self.num_prompts]),
        ):
            least, most, unit = RANGES[flag]
            for value in values:
                if not least <= value <= most:
                    shown = _short(str(value).removesuffix(".0"))
                    raise ConfigError(f"{flag} {shown}: expected {least:g} to {most:,.0f}{unit}")
        targets = {"--slo-ttft-ms": self.slo_ttft_ms, "--slo-itl-ms": self.slo_itl_ms}
        for flag, target in targets.items():
            if not target > 0:
                raise ConfigError(f"{flag} {target:g}: expected a number above 0")
        if max(self.output_lens) == 1 and self.slo_itl_ms < math.inf:
            raise ConfigError(
                f"--slo-itl-ms {self.slo_itl_ms:g} needs outputs of at least 2 tokens: "
                "--output-len 1 has no gap between tokens; remove the target, or use longer outputs"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The simulated means of one topology, and whether they meet the targets."""

    topology: str
    """Topology id."""
    output_throughput: float
    """Tokens/s, from the first request to the last token."""
    mean_ttft_ms: float
    """Mean time to first token."""
    mean_itl_ms: float | None
    """Mean over all gaps between tokens; None if no request has a gap."""
    keeps_up: bool
    """True if it serves requests as fast as they arrive."""
    preempts: bool
    """True if sequences were preempted for lack of KV memory, and computed again."""
    meets: bool
    """True if both targets are met."""
    front: bool = False
    """True if it is on the Pareto front: no other is at least as good in all three and better in
    one."""


def question_of(options: Mapping[str, Any], system: System) -> Question:
    """Return the question of the command line's options.

    :raises ConfigError: if an option is not a number, or *system* is not simulated.
    """
    backend = backend_of(system)
    if not backend.simulated:
        raise ConfigError(
            f"--explore simulates, but system {system.name!r} is of kind {backend.name!r}; "
            "give --system simulated"
        )
    backend.check(system)
    nodes = options["nodes"]
    question = Question(
        nodes=system.cluster.nodes if nodes is None else _number("--nodes", nodes, int),
        input_lens=_numbers("--input-len", options["input_len"], int),
        output_lens=_numbers("--output-len", options["output_len"], int),
        rate=_number("--rate", options["rate"], _real),
        num_prompts=_number("--num-prompts", options["num_prompts"], int),
        slo_ttft_ms=_number("--slo-ttft-ms", options["slo_ttft_ms"], _real),
        slo_itl_ms=_number("--slo-itl-ms", options["slo_itl_ms"], _real),
        seed=_number("--seed", options["seed"], int),
        fresh=options["fresh"],
    )
    question.check()
    return question


def _number(flag: str, text: str, kind: Callable[[str], N]) -> N:
    if "," in text:
        raise ConfigError(
            f"{flag} {_short(text)!r} is a list, expected one number; run the command for each"
        )
    return _numbers(flag, text, kind)[0]


def _numbers(flag: str, text: str, kind: Callable[[str], N]) -> tuple[N, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{flag} {_short(text)!r}: expected {expected}") from None


def _real(text: str) -> float:
    """Return a float; infinity only if the text is infinity, not if it is too large.

    :raises ValueError: if it is too large, or not a number.
    """
    if math.isinf(value := float(text)) and "inf" not in text.lower():
        raise ValueError
    return value


def _short(text: str) -> str:
    """Return *text*, shortened for a message."""
    return f"{text[:30]}…" if len(text) > 40 else text


def candidates(nodes: int) -> tuple[Topology, ...]:
    """Return every dp, route and prefill/decode topology that uses all *nodes*.

    ``2x1p3d`` is the same as ``2p6d``: one router has all instances, without groups.
    """
    routes = [f"route{n}" for n in range(2, nodes + 1) if nodes % n == 0]
    splits = [f"{prefill}p{nodes - prefill}d" for prefill in range(1, nodes)]
    return tuple(map(Topology.parse, ["dp", *routes, *splits]))


def explore(question: Question, system: System) -> tuple[Answer, ...]:
    """Simulate every candidate; return those that meet the targets first, then by throughput.

    A question that equals a cell of the system's sweep is simulated like that cell, including the
    cells before it.

    :raises ConfigError: if a number of the question is out of range.
    """
    question.check()
    answers = [_answer(topology, question, system) for topology in candidates(question.nodes)]
    with_front = [_with_front(answer, answers) for answer in answers]
    return tuple(
        sorted(with_front, key=lambda a: (not a.meets, not a.keeps_up, -a.output_throughput))
    )


def _answer(topology: Topology, question: Question, system: System) -> Answer:
    from pytest_pdserve.simulation.model import earlier_cells
    from pytest_pdserve.simulation.model import serve

    system = _resized(system, question.nodes)
    nodes = tuple(host.name for host in backend_of(system).hosts(system))
    placement = place(
        topology, nodes, system.cluster.gpus_per_node, default_tp=system.tensor_parallel
    )
    source = random.Random(question.seed)  # noqa: S311 - a simulation
    pairs = [
        (source.choice(question.input_lens), source.choice(question.output_lens))
        for _ in range(question.num_prompts)
    ]
    workload = Workload(
        input_len=question.input_lens[0],
        output_len=question.output_lens[0],
        num_prompts=question.num_prompts,
        request_rate=None if math.isinf(question.rate) else question.rate,
    )
    earlier = earlier_cells(workload, system) if replays(question, system) else ()
    outcome = serve(placement, (*earlier, workload), system, lengths=pairs, repeat=question.seed)[
        -1
    ]
    requests = outcome.requests
    gaps = sum(r.output_len - 1 for r in requests)
    ttft = 1000 * sum(r.first - r.start for r in requests) / len(requests)
    itl = 1000 * sum(r.last - r.first for r in requests) / gaps if gaps else None
    keeps_up = _keeps_up(requests)
    return Answer(
        topology=topology.id,
        output_throughput=sum(r.output_len for r in requests) / outcome.duration_s,
        mean_ttft_ms=ttft,
        mean_itl_ms=itl,
        keeps_up=keeps_up or math.isinf(question.rate),
        preempts=any(counts.preemptions for counts in outcome.served),
        meets=ttft <= question.slo_ttft_ms
        and (math.inf if itl is None else itl) <= question.slo_itl_ms,
    )


def replays(question: Question, system: System) -> bool:
    """Return whether *question* is a cell of a system that replays its sweep."""
    cells = {workload.lengths for workload in system.sweep.workloads()}
    pairs = set(itertools.product(question.input_lens, question.output_lens))
    return (
        system.table("simulation", SimulationSpec).replay
        and not question.fresh
        and math.isinf(question.rate)
        and question.num_prompts == system.sweep.num_prompts
        and len(pairs) == 1
        and pairs <= cells
    )


def _keeps_up(requests: Sequence[Request]) -> bool:
    """Return whether the last quarter of arrivals has about as many in flight as the second.

    If requests arrive faster than they are served, the ratio is 2.3; up to 3 more are chance.
    """
    end = max(r.arrival for r in requests)

    def in_flight(quarter: int) -> float:
        moments = [end * (quarter + n / 20) / 4 for n in range(20)]
        return sum(r.arrival <= now < r.last for r in requests for now in moments) / len(moments)

    return in_flight(3) <= 1.6 * in_flight(1) + 3


def _resized(system: System, nodes: int) -> System:
    return replace(system, cluster=replace(system.cluster, nodes=nodes))


def _with_front(answer: Answer, others: Sequence[Answer]) -> Answer:
    """Return *answer* marked as on the Pareto front of those that meet the targets, or not."""

    def gains(a: Answer) -> tuple[float, float, float]:
        return a.output_throughput, -a.mean_ttft_ms, -(a.mean_itl_ms or 0.0)

    def usable(a: Answer) -> bool:
        return a.meets and a.keeps_up

    def beats(a: Answer, b: Answer) -> bool:
        pairs = list(zip(gains(a), gains(b), strict=True))
        return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)

    beaten = any(beats(other, answer) for other in others if usable(other))
    return replace(answer, front=usable(answer) and not beaten)


def render(question: Question, answers: Sequence[Answer], *, replayed: bool = False) -> str:
    """Return the table of answers, and below it the limits of the simulation."""
    load = "all at once" if math.isinf(question.rate) else f"{question.rate:g} req/s, Poisson"
    inputs, outputs = (
        "/".join(map(str, lens)) for lens in (question.input_lens, question.output_lens)
    )
    targets = [
        f"mean {name} <= {value:g} ms"
        for name, value in (("TTFT", question.slo_ttft_ms), ("ITL", question.slo_itl_ms))
        if not math.isinf(value)
    ]
    rows = []
    for a in answers:
        notes = ["falls behind"] * (not a.keeps_up) + ["preempts"] * a.preempts
        rows.append(
            (
                a.topology,
                f"{a.output_throughput:.0f}",
                f"{a.mean_ttft_ms:.0f}",
                "-" if a.mean_itl_ms is None else f"{a.mean_itl_ms:.1f}",
                "met" if a.meets else "missed",
                "*" if a.front else "",
                ", ".join(notes),
            )
        )
    columns = ("topology", "output tok/s", "TTFT ms", "ITL ms", "targets", "front", "")
    return "\n".join(
        [
            f"SIMULATED: {question.nodes} nodes, input {inputs}, output {outputs}, {load}, "
            f"{question.num_prompts} requests; {' and '.join(targets) or 'no target'}",
            *text_table(columns, rows, "lrrrlll"),
            "* no other that meets the targets is as good in throughput, TTFT and ITL",
            *([REPLAYED] if replayed else []),
            *LIMITS,
        ]
    )
