"""Which topologies of so many nodes meet a latency target, as the simulation has it."""

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

from pytest_pdserve.plan.host import planned_hosts
from pytest_pdserve.plan.placement import place
from pytest_pdserve.report.table import text_table
from pytest_pdserve.session import check_acquirable
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

if TYPE_CHECKING:
    from pytest_pdserve.cluster.simulation.engine import Request

N = TypeVar("N", int, float)
_REAL = ("rate", "slo_ttft_ms", "slo_itl_ms")
LIMITS = (
    "Simulated, not measured: a model fitted to the means of one article's single runs "
    "(DeepSeek-V2-Lite, vLLM 0.15.1, 4 nodes x 8 H100-class GPUs, TP 8, random prompts).",
    "Not in the model: other models, GPUs or TP sizes, prompts that share prefixes, failures."
    " More data-parallel engines than 4, or lengths beyond 4096, are extrapolated.",
    "A difference below 10 % says nothing (docs/simulation-fit.md); measure the first two.",
)

REPLAYED = (
    "A cell of the article's sweep: prefix caches are as its earlier cells, of the same prompts, "
    "leave them; --fresh empties them."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the topologies."""

    nodes: int
    """Nodes, all of them used."""
    input_lens: tuple[int, ...]
    """Prompt lengths, equally frequent, tokens."""
    output_lens: tuple[int, ...]
    """Output lengths, equally frequent and independent of the prompt's, tokens."""
    rate: float = math.inf
    """Poisson arrivals, req/s; infinity sends all at once."""
    num_prompts: int = 1024
    """Requests simulated."""
    slo_ttft_ms: float = math.inf
    """Highest mean time to first token that will do."""
    slo_itl_ms: float = math.inf
    """Highest mean inter-token latency that will do."""
    seed: int = 0
    """Of lengths, arrivals and routing."""
    fresh: bool = False
    """Whether prefix caches are empty even for a cell of the system's own sweep."""

    def check(self) -> None:
        """Make sure that it can be answered.

        :raises ConfigError: if a number is not above 0.
        """
        named = {
            "--nodes": [self.nodes],
            "--input-len": self.input_lens,
            "--output-len": self.output_lens,
            "--rate": [self.rate],
            "--num-prompts": [self.num_prompts],
            "--slo-ttft-ms": [self.slo_ttft_ms],
            "--slo-itl-ms": [self.slo_itl_ms],
        }
        for name, values in named.items():
            for value in values:
                if not value > 0:
                    raise ConfigError(f"{name} {value:g} makes no sense; it must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One topology's means, and what they are worth."""

    topology: str
    """Id."""
    output_throughput: float
    """Tokens/s, from the first request to the last token."""
    mean_ttft_ms: float
    """Mean time to first token."""
    mean_itl_ms: float
    """Mean over all gaps between tokens."""
    keeps_up: bool
    """Whether it serves what is offered."""
    preempts: bool
    """Whether sequences lost their place in KV memory, and were computed anew."""
    meets: bool
    """Whether both targets are met."""
    front: bool = False
    """Whether no other topology is as good or better in all three, and better in one."""


def question_of(options: Mapping[str, Any], system: System) -> Question:
    """Read the command line's options.

    :raises ConfigError: if one is no number, or *system* is a real one.
    """
    if system.cluster.kind != "simulated":
        raise ConfigError(
            f"--explore simulates, but system {system.name!r} is of kind {system.cluster.kind!r}; "
            "give --system simulated"
        )
    check_acquirable(system)
    whole = {
        name: _numbers(name, options[name], int)
        for name in ("input_len", "output_len", "num_prompts", "seed")
    }
    real = {name: _numbers(name, options[name], float) for name in _REAL}
    given = options["nodes"]
    question = Question(
        nodes=_numbers("nodes", given, int)[0] if given else system.cluster.nodes,
        input_lens=whole["input_len"],
        output_lens=whole["output_len"],
        num_prompts=whole["num_prompts"][0],
        seed=whole["seed"][0],
        fresh=options["fresh"],
        **{name: values[0] for name, values in real.items()},
    )
    question.check()
    return question


def _numbers(name: str, text: str, kind: Callable[[str], N]) -> tuple[N, ...]:
    try:
        return tuple(kind(part) for part in str(text).split(","))
    except ValueError:
        flag = name.replace("_", "-")
        raise ConfigError(f"--{flag} {text!r} is no number, or list of numbers") from None


def candidates(nodes: int) -> tuple[Topology, ...]:
    """Every dp, route and prefill/decode topology that uses all of *nodes*.

    ``2x1p3d`` is no other than ``2p6d``: one router knows all instances, and no groups.
    """
    routes = [f"route{n}" for n in range(2, nodes + 1) if nodes % n == 0]
    splits = [f"{prefill}p{nodes - prefill}d" for prefill in range(1, nodes)]
    return tuple(map(Topology.parse, ["dp", *routes, *splits]))


def explore(question: Question, system: System) -> tuple[Answer, ...]:
    """Simulate every candidate; those that meet the targets come first, then by throughput.

    One pair of lengths sent all at once as in a cell of the system's sweep is simulated as that
    cell is, its history included.

    :raises ConfigError: if the question makes no sense.
    """
    question.check()
    answers = [_answer(topology, question, system) for topology in candidates(question.nodes)]
    marked = [_marked(answer, answers) for answer in answers]
    return tuple(sorted(marked, key=lambda a: (not a.meets, not a.keeps_up, -a.output_throughput)))


def _answer(topology: Topology, question: Question, system: System) -> Answer:
    from pytest_pdserve.cluster.simulated import history  # noqa: PLC0415 - knows simpy
    from pytest_pdserve.cluster.simulated import serve  # noqa: PLC0415

    system = _resized(system, question.nodes)
    nodes = tuple(host.name for host in planned_hosts(system))
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
        request_rate=question.rate,
    )
    earlier = history(workload, system) if replays(question, system) else ()
    outcome = serve(placement, (*earlier, workload), system, lengths=pairs, repeat=question.seed)[
        -1
    ]
    requests = outcome.requests
    gaps = sum(r.output_len - 1 for r in requests)
    ttft = 1000 * sum(r.first - r.start for r in requests) / len(requests)
    itl = 1000 * sum(r.last - r.first for r in requests) / gaps if gaps else 0.0
    keeps_up = _keeps_up(requests)
    return Answer(
        topology=topology.id,
        output_throughput=sum(r.output_len for r in requests) / outcome.duration_s,
        mean_ttft_ms=ttft,
        mean_itl_ms=itl,
        keeps_up=keeps_up or math.isinf(question.rate),
        preempts=any(counts.preemptions for counts in outcome.served),
        meets=ttft <= question.slo_ttft_ms and itl <= question.slo_itl_ms,
    )


def replays(question: Question, system: System) -> bool:
    """Whether *question* is a cell of the system's sweep, and what came before it counts."""
    cells = {(c.input_len, c.output_len) for c in system.sweep.workloads()}
    pairs = set(itertools.product(question.input_lens, question.output_lens))
    return (
        system.simulation.replay
        and not question.fresh
        and math.isinf(question.rate)
        and question.num_prompts == system.sweep.num_prompts
        and len(pairs) == 1
        and pairs <= cells
    )


def _keeps_up(requests: Sequence[Request]) -> bool:
    """Whether about as many are in flight in the last quarter of arrivals as in the second.

    Where requests come faster than they are served, 2.3 times as many are; 3 more are chance.
    """
    end = max(r.arrival for r in requests)

    def in_flight(quarter: int) -> float:
        moments = [end * (quarter + n / 20) / 4 for n in range(20)]
        return sum(r.arrival <= now < r.last for r in requests for now in moments) / len(moments)

    return in_flight(3) <= 1.6 * in_flight(1) + 3


def _resized(system: System, nodes: int) -> System:
    return replace(system, cluster=replace(system.cluster, nodes=nodes))


def _marked(answer: Answer, others: Sequence[Answer]) -> Answer:
    """Say whether *answer* lies on the Pareto front of those that meet the targets and keep up."""

    def gains(a: Answer) -> tuple[float, float, float]:
        return a.output_throughput, -a.mean_ttft_ms, -a.mean_itl_ms

    def usable(a: Answer) -> bool:
        return a.meets and a.keeps_up

    def beats(a: Answer, b: Answer) -> bool:
        pairs = list(zip(gains(a), gains(b), strict=True))
        return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)

    beaten = any(beats(other, answer) for other in others if usable(other))
    return replace(answer, front=usable(answer) and not beaten)


def render(question: Question, answers: Sequence[Answer], *, replayed: bool = False) -> str:
    """The table, and below it what it cannot say."""
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
        said = ["falls behind"] * (not a.keeps_up) + ["preempts"] * a.preempts
        rows.append(
            (
                a.topology,
                f"{a.output_throughput:.0f}",
                f"{a.mean_ttft_ms:.0f}",
                f"{a.mean_itl_ms:.1f}",
                "met" if a.meets else "missed",
                "*" if a.front else "",
                ", ".join(said),
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
