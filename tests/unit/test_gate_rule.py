"""The rule of upgrade gates: blocks of runs in, GO, NO-GO or NOT ENOUGH EVIDENCE out."""

from __future__ import annotations

import csv
import itertools
import math
import random
import statistics
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_pdserve.judge.gate.blocks import Block
from pytest_pdserve.judge.gate.blocks import GateJudgement
from pytest_pdserve.judge.gate.blocks import Start
from pytest_pdserve.judge.gate.levels import allowed_pairs
from pytest_pdserve.judge.gate.rule import judge_gate
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.gate import GatedStack
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate import GateResult
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import MetricEvidence
from pytest_pdserve.values.gate import MetricState
from pytest_pdserve.values.metrics import METRICS

GPU = Path(__file__).parents[1] / "data" / "gpu_four_h200_five_starts.csv"
POLICY = GatePolicy()
ITL_ONLY = GatePolicy(margins={"mean_itl_ms": 0.03})
USUAL = {
    "output_throughput": 4400.0,
    "mean_ttft_ms": 300.0,
    "mean_itl_ms": 5.0,
    "mean_tpot_ms": 5.0,
    "mean_e2el_ms": 1500.0,
}
CELL = ("1p3d", "w0")
CELLS = (*(("1p3d", f"w{number}") for number in range(3)), ("dp", "w0"), ("dp", "w1"))
Change = Callable[[Key, str], float]
"""Factor of a value of B, by cell and metric."""


def equal(_: Key, __: str) -> float:
    return 1.0


def worse_in_first_cell(key: Key, metric: str) -> float:
    if key != CELL:
        return 1.0
    return 1 / 1.05 if metric == "output_throughput" else 1.05


def one_block(
    rng: random.Random, cells: Sequence[Key], *, noise: float = 0.005, change: Change = equal
) -> Block:
    def start(factor: Change) -> Start:
        return {
            key: {
                name: value * math.exp(rng.gauss(0, noise)) * factor(key, name)
                for name, value in USUAL.items()
            }
            for key in cells
        }

    return Block(baseline=(start(equal), start(equal)), candidate=(start(change), start(change)))


def played(policy: GatePolicy = POLICY, **options: Any) -> list[GateJudgement]:
    """Judge after every block, each of the cells that the last judgement asks for."""
    rng, blocks, said = random.Random(1), [], []
    cells: Sequence[Key] = options.pop("cells", CELLS)
    while cells:
        blocks.append(one_block(rng, cells, **options))
        said.append(judge_gate(blocks, policy))
        cells = said[-1].cells
    return said


def itl_block(a: tuple[float, float], b: tuple[float, float]) -> Block:
    def both(values: tuple[float, float]) -> tuple[Start, Start]:
        first, second = ({CELL: {"mean_itl_ms": value}} for value in values)
        return first, second

    return Block(baseline=both(a), candidate=both(b))


def only(said: GateJudgement) -> MetricEvidence:
    (evidence,) = said.evidence
    return evidence


# How many pairs may be beyond the margin.


def test_allowed_pairs_are_the_table_of_the_rank_sum_test() -> None:
    table = [allowed_pairs(blocks) for blocks in range(9)]
    assert table == [-1, -1, 0, 3, 9, 19, 31, 47, 66]


@pytest.mark.parametrize(("blocks", "level"), [(2, 1 / 70), (3, 0.01)])
def test_as_many_pairs_are_as_rare_as_the_level_says(blocks: int, level: float) -> None:
    runs = 2 * blocks
    orders = list(itertools.combinations(range(2 * runs), runs))
    beyond = [sum(place - rank for rank, place in enumerate(b_runs)) for b_runs in orders]

    def share(most: int) -> float:
        return sum(pairs <= most for pairs in beyond) / len(orders)

    assert share(allowed_pairs(blocks)) <= level < share(allowed_pairs(blocks) + 1)


@pytest.mark.parametrize(
    ("worse", "blocks", "verdict"),
    [
        (2, 2, None),
        (3, 3, GateVerdict.NO_GO),
        (3, 4, GateVerdict.NO_GO),
        (3, 5, None),
        (4, 6, GateVerdict.NO_GO),
        (4, 7, None),
        (5, 8, GateVerdict.NOT_ENOUGH),
    ],
)
def test_no_go_needs_three_blocks_and_two_thirds_of_all(
    worse: int, blocks: int, verdict: GateVerdict | None
) -> None:
    even = [itl_block((5.0, 5.0), (5.0, 5.3))] * (blocks - worse)
    said = judge_gate([*even, *[itl_block((5.0, 5.0), (5.3, 5.3))] * worse], ITL_ONLY)
    assert (said.verdict, said.blocks) == (verdict, blocks)


# Verdicts.


def test_equal_stacks_are_go_and_finished_cells_are_left_out() -> None:
    said = played(noise=0.008)
    assert said[-1].verdict is GateVerdict.GO
    assert [judged.verdict for judged in said[:-1]] == [None] * (len(said) - 1)
    assert set(said[1].cells) < set(CELLS)
    assert said[-1].cells == ()


def test_a_slower_cell_is_no_go_after_the_third_block_and_named_first() -> None:
    said = played(change=worse_in_first_cell)
    assert [judged.verdict for judged in said] == [None, None, GateVerdict.NO_GO]
    first = said[-1].evidence[0]
    assert (first.topology, first.workload, first.state) == (*CELL, MetricState.WORSE)
    assert first.blocks_against == 3
    assert first.estimate == pytest.approx(0.05, abs=0.01)


def test_a_better_candidate_is_go_after_two_blocks() -> None:
    said = played(change=lambda _, name: 1.1 if METRICS[name].better == "higher" else 0.9)
    assert [judged.verdict for judged in said] == [None, GateVerdict.GO]


def test_all_cells_a_little_slower_are_no_go_by_the_medians_of_their_topology() -> None:
    cells = [("1p3d", f"w{number}") for number in range(9)]
    said = played(
        ITL_ONLY,
        cells=cells,
        noise=0.012,
        change=lambda _, name: 1.025 if name == "mean_itl_ms" else 1.0,
    )
    assert said[-1].verdict is GateVerdict.NO_GO
    assert [each.workload for each in said[-1].evidence if each.state is MetricState.WORSE] == [
        None
    ]


def test_a_spent_budget_is_not_enough_evidence_with_a_forecast_and_the_noisiest_metric() -> None:
    rng = random.Random(1)
    blocks = [one_block(rng, CELLS, noise=0.03) for _ in range(8)]
    said = judge_gate(blocks, POLICY)
    assert (said.verdict, said.cells) == (GateVerdict.NOT_ENOUGH, ())
    assert said.noisiest is not None
    waiting = [each.forecast_blocks for each in said.evidence if each.forecast_blocks]
    assert said.noisiest.forecast_blocks == said.forecast_blocks == max(waiting) > 8


@pytest.mark.parametrize("blocks", [3, 5])
def test_a_gate_ends_after_the_blocks_of_its_policy(blocks: int) -> None:
    rng = random.Random(1)
    measured = [one_block(rng, CELLS, noise=0.03) for _ in range(blocks)]
    policy = GatePolicy(max_blocks=blocks)
    assert judge_gate(measured, policy).verdict is GateVerdict.NOT_ENOUGH
    assert judge_gate(measured[:-1], policy).verdict is None


def test_blocks_after_the_verdict_are_not_read() -> None:
    rng = random.Random(1)
    blocks = [one_block(rng, CELLS, change=worse_in_first_cell) for _ in range(3)]
    later = [one_block(rng, CELLS) for _ in range(5)]
    assert judge_gate([*blocks, *later], POLICY) == judge_gate(blocks, POLICY)


def test_a_topology_is_measured_whole_until_its_median_is_good() -> None:
    cells = [("1p3d", f"w{number}") for number in range(4)]
    steady = [itl_of(cells, at) for at in (1.0, 1.0, 1.0, 1.0)]
    jumped = [itl_of(cells, at) for at in (1.0, 1.06, 1.0, 1.0)]
    two_blocks = [in_block(steady), in_block(jumped)]
    assert judge_gate(two_blocks, ITL_ONLY).cells == tuple(cells)


def itl_of(cells: Sequence[Key], factor: float) -> Start:
    return {key: {"mean_itl_ms": 5.0 * factor} for key in cells}


def in_block(starts: Sequence[Start]) -> Block:
    a, b, c, d = starts
    return Block(baseline=(a, d), candidate=(b, c))


# One metric.


@pytest.mark.parametrize(
    ("b", "against"),
    [
        pytest.param((5.2, 5.2), 3, id="both worse than both"),
        pytest.param((5.2, 5.0), 0, id="one worse than both"),
        pytest.param((5.06, 5.06), 0, id="both worse by less than the limit"),
        pytest.param((4.8, 4.8), 0, id="both better"),
    ],
)
def test_a_block_counts_against_b_when_both_its_runs_are_worse_than_both_of_a(
    b: tuple[float, float], against: int
) -> None:
    said = judge_gate([itl_block((5.0, 5.0), b)] * 3, ITL_ONLY)
    assert only(said).blocks_against == against


def test_the_limit_is_half_the_margin_or_so_many_spreads() -> None:
    quiet = only(judge_gate([itl_block((5.0, 5.0), (5.0, 5.0))], ITL_ONLY))
    assert quiet.limit == pytest.approx(math.sqrt(1.03) - 1)
    noisy = only(judge_gate([itl_block((5.0, 5.2), (5.0, 5.2))] * 3, ITL_ONLY))
    assert noisy.limit == pytest.approx(1.04 ** (1.85 * 1.05) - 1)


def test_worse_throughput_is_less_and_is_told_by_ratio() -> None:
    def start(value: float) -> Start:
        return {CELL: {"output_throughput": value}}

    block = Block(baseline=(start(1050.0), start(1050.0)), candidate=(start(1000.0), start(1000.0)))
    said = judge_gate([block] * 3, GatePolicy(margins={"output_throughput": 0.03}))
    found = only(said)
    assert said.verdict is GateVerdict.NO_GO
    assert (found.baseline, found.candidate) == (1050.0, 1000.0)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))


def test_what_is_good_stays_good() -> None:
    noisy = ("dp", "w9")

    def block(*itl: float) -> Block:
        a, b, c, d = (
            {CELL: {"mean_itl_ms": mine}, noisy: {"mean_itl_ms": other}}
            for mine, other in zip(itl, (5.0, 6.0, 5.5, 5.5), strict=True)
        )
        return Block(baseline=(a, b), candidate=(c, d))

    steady, jumping = block(5.0, 5.0, 5.0, 5.0), block(5.0, 5.0, 5.5, 4.9)
    for blocks, state in (
        ([steady, steady, jumping, jumping], MetricState.GOOD),
        ([jumping, jumping, steady, steady], MetricState.UNDECIDED),
    ):
        said = judge_gate(blocks, ITL_ONLY)
        (mine,) = [each for each in said.evidence if each.topology == CELL[0]]
        assert (mine.state, mine.pairs_beyond, mine.pairs_allowed) == (state, 16, 9)


# Values that are missing.


def without(start: Start, key: Key, metric: str) -> Start:
    left = {name: value for name, value in start[key].items() if name != metric}
    return {**start, key: left}


def test_a_metric_that_only_a_has_is_never_good() -> None:
    rng = random.Random(1)
    blocks = []
    for _ in range(8):
        block = one_block(rng, CELLS, noise=0.001)
        first, second = (without(each, CELL, "mean_itl_ms") for each in block.candidate)
        blocks.append(Block(baseline=block.baseline, candidate=(first, second)))
    said = judge_gate(blocks, POLICY)
    (lacking,) = [each for each in said.evidence if each.state is MetricState.UNDECIDED]
    assert said.verdict is GateVerdict.NOT_ENOUGH
    assert (lacking.workload, lacking.metric, lacking.blocks) == ("w0", "mean_itl_ms", 0)
    assert (lacking.estimate, lacking.high, lacking.pairs_allowed) == (None, None, None)
    assert (said.forecast_blocks, said.noisiest) == (None, None)


def test_a_metric_that_no_run_has_is_not_gated() -> None:
    rng = random.Random(1)
    blocks = []
    for _ in range(3):
        block = one_block(rng, [CELL], noise=0.001)
        a, b, c, d = (without(each, CELL, "mean_itl_ms") for each in block.starts)
        blocks.append(Block(baseline=(a, b), candidate=(c, d)))
    said = judge_gate(blocks, POLICY)
    assert said.verdict is GateVerdict.GO
    assert "mean_itl_ms" not in {each.metric for each in said.evidence}


def test_a_cell_without_any_gated_metric_is_named_and_no_go_ahead() -> None:
    rng = random.Random(1)
    blocks = []
    for _ in range(8):
        block = one_block(rng, CELLS, noise=0.001)
        a, b, c, d = ({**each, CELL: {"p99_ttft_ms": 400.0}} for each in block.starts)
        blocks.append(Block(baseline=(a, b), candidate=(c, d)))
    said = judge_gate(blocks, POLICY)
    assert (said.verdict, said.without_metrics) == (GateVerdict.NOT_ENOUGH, (CELL,))
    assert said.forecast_blocks is None


def test_a_cell_that_appears_in_a_later_block_is_judged_too() -> None:
    rng = random.Random(1)
    blocks = [one_block(rng, CELLS[1:], noise=0.001), one_block(rng, CELLS, noise=0.001)]
    assert judge_gate(blocks, POLICY).cells == CELLS[:1]


def test_a_gate_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one block"):
        judge_gate([], POLICY)


def test_a_value_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        judge_gate([itl_block((5.0, 0.0), (5.0, 5.0))], ITL_ONLY)


# The policy.


def test_itl_like_metrics_have_3_percent_ttft_10_and_p99_is_not_gated() -> None:
    assert POLICY.margins == {
        "mean_ttft_ms": 0.10,
        "mean_itl_ms": 0.03,
        "mean_tpot_ms": 0.03,
        "mean_e2el_ms": 0.03,
        "output_throughput": 0.03,
    }
    assert POLICY.max_blocks == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margins": {}}, "margins of the gate are empty, expected at least one metric"),
        ({"margins": {"itl": 0.03}}, "margin of 'itl': expected a metric among mean_ttft_ms,"),
        ({"margins": {"failed": 0.03}}, "margin of 'failed': expected a metric among"),
        ({"margins": {"mean_itl_ms": 0.0}}, "margin of mean_itl_ms = 0, expected a fraction"),
        ({"margins": {"mean_itl_ms": 3.0}}, "margin of mean_itl_ms = 3, expected a fraction"),
        ({"margins": {"mean_itl_ms": math.nan}}, "margin of mean_itl_ms = nan, expected"),
        ({"max_blocks": 2}, "blocks of the gate = 2, expected 3 to 64"),
        ({"max_blocks": 65}, "blocks of the gate = 65, expected 3 to 64"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        GatePolicy(**options)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("change", [equal, worse_in_first_cell], ids=["GO", "NO-GO"])
def test_a_result_is_the_same_after_it_was_written_and_read(change: Change) -> None:
    said = played(change=change)[-1]
    assert said.verdict is not None
    stack = GatedStack(name="vllm==0.32.0", components={"vllm": "0.32.0"})
    result = GateResult(
        verdict=said.verdict,
        system="p5-efa",
        baseline=stack,
        candidate=stack,
        policy=POLICY,
        evidence=said.evidence,
        blocks=said.blocks,
        runs=60,
        wall_s=1800.0,
    )
    assert msgspec.json.decode(msgspec.json.encode(result), type=GateResult) == result


# The same rule again, written down from docs/gate-rule.md for one list of values at a time.


class Plain:
    """A metric of a cell: runs of A and of B by block, logarithms."""

    def __init__(self, margin: float) -> None:
        self.margin, self.good = math.log1p(margin), False
        self.blocks: list[tuple[tuple[float, float], tuple[float, float]]] = []

    def apart(self) -> list[float]:
        return [abs(first - second) for block in self.blocks for first, second in block]

    def typical(self) -> float:
        return math.sqrt(statistics.mean(each**2 for each in self.apart()) / 2)

    def is_worse(self, typical: float) -> bool:
        spread = max(1.05 * statistics.median(self.apart()), typical)
        limit = max(self.margin / 2, 1.85 * spread)
        against = sum(min(b) - max(a) > limit for a, b in self.blocks)
        return against >= (3, 3, 3, 3, 3, 4, 4, 5, 6)[len(self.blocks)]

    def look(self) -> None:
        a_runs = [run for a, _ in self.blocks for run in a]
        b_runs = [run for _, b in self.blocks for run in b]
        beyond = sum(b - a > self.margin for a in a_runs for b in b_runs)
        allowed = (-1, -1, 0, 3, 9, 19, 31, 47, 66)[len(self.blocks)]
        self.good = self.good or beyond <= allowed


Subject = tuple[str, str | None]


def plain_judgement(
    blocks: Sequence[Block], policy: GatePolicy
) -> tuple[GateVerdict | None, dict[tuple[Subject, str], bool]]:
    found: dict[tuple[Subject, str], Plain] = {}
    for block in blocks:
        open_topologies = {
            subject[0]
            for (subject, _), plain in found.items()
            if subject[1] is None and not plain.good
        }
        for metric, margin in policy.margins.items():
            cells = {key: logs_of(block, key, metric) for key in block.baseline[0]}
            for key, logs in cells.items():
                found.setdefault((key, metric), Plain(margin)).blocks.append(logs)
            for topology in {key[0] for key in cells}:
                if block is not blocks[0] and topology not in open_topologies:
                    continue
                of_topology = [logs for key, logs in cells.items() if key[0] == topology]
                if len(of_topology) > 1:
                    subject = ((topology, None), metric)
                    added = found.setdefault(subject, Plain(margin))
                    added.blocks.append(median_over(of_topology))
        for plain in found.values():
            plain.look()
    verdict = GateVerdict.GO if all(plain.good for plain in found.values()) else None
    for metric in policy.margins:
        for is_topology in (False, True):
            alike = [
                plain
                for (subject, name), plain in found.items()
                if name == metric and (subject[1] is None) is is_topology
            ]
            typical = statistics.median(plain.typical() for plain in alike) if alike else 0.0
            if any(plain.is_worse(typical) for plain in alike):
                verdict = GateVerdict.NO_GO
    if verdict is None and len(blocks) == policy.max_blocks:
        verdict = GateVerdict.NOT_ENOUGH
    return verdict, {name: plain.good for name, plain in found.items()}


def logs_of(block: Block, key: Key, metric: str) -> tuple[tuple[float, float], tuple[float, float]]:
    sign = -1 if metric == "output_throughput" else 1
    a, b, c, d = (sign * math.log(start[key][metric]) for start in block.starts)
    return (a, b), (c, d)


def median_over(
    cells: Sequence[tuple[tuple[float, float], tuple[float, float]]],
) -> tuple[tuple[float, float], tuple[float, float]]:
    flat = [(*a, *b) for a, b in cells]
    relative = [[run - statistics.mean(runs) for run in runs] for runs in flat]
    a, b, c, d = (statistics.median(runs) for runs in zip(*relative, strict=True))
    return (a, b), (c, d)


@pytest.mark.quick_cases(8)
@pytest.mark.parametrize("seed", range(24))
def test_a_second_plain_writing_of_the_rule_agrees_after_every_block(seed: int) -> None:
    rng = random.Random(seed)
    noise = rng.choice((0.004, 0.01, 0.02))
    changes: Mapping[Key, float] = {key: rng.choice((1.0, 1.0, 1.0, 1.04)) for key in CELLS}
    blocks: list[Block] = []
    cells: Sequence[Key] = CELLS
    while cells:
        blocks.append(one_block(rng, cells, noise=noise, change=lambda key, _: changes[key]))
        said = judge_gate(blocks, POLICY)
        verdict, good = plain_judgement(blocks, POLICY)
        states = {
            ((each.topology, each.workload), each.metric): each.state is MetricState.GOOD
            for each in said.evidence
            if each.state is not MetricState.WORSE
        }
        assert said.verdict is verdict
        assert states == {name: good[name] for name in states}
        cells = said.cells


# Public cases, and runs on GPUs.


@pytest.mark.parametrize(
    ("a", "b", "estimate"),
    [
        pytest.param((97.949, 98.632), (98.79, 98.193), 0.002, id="128 tokens"),
        pytest.param((98.962, 99.566), (99.734, 99.088), 0.0015, id="4096 tokens"),
    ],
)
def test_a_regression_that_vanished_in_a_block_of_four_starts_is_not_no_go(
    a: tuple[float, float], b: tuple[float, float], estimate: float
) -> None:
    """MRv2 against MRv1: 5.3 and 2.1 % while MRv1 ran first, 0.2 % in A B B A.

    ``abba_regression_vanished.csv`` of the project's data: p50 TPOT, ms, of one block.
    """

    def both(values: tuple[float, float]) -> tuple[Start, Start]:
        first, second = ({CELL: {"p50_tpot_ms": value}} for value in values)
        return first, second

    policy = GatePolicy(margins={"p50_tpot_ms": 0.03})
    block = Block(baseline=both(a), candidate=both(b))
    once = judge_gate([block], policy)
    assert (once.verdict, only(once).blocks_against) == (None, 0)
    assert only(once).estimate == pytest.approx(estimate, abs=0.001)
    assert judge_gate([block] * 3, policy).verdict is GateVerdict.GO


def gpu_blocks(loss: float) -> list[Block]:
    """Twelve real runs of 1P3D 4096/256: the first two starts are A, the later ones lose *loss*."""
    with GPU.open() as file:
        rows = [row for row in csv.DictReader(file) if row["role"] == "measured"]
    runs = [
        float(row["output_throughput"]) * (1 if int(row["start"]) <= 2 else 1 - loss)
        for row in rows
        if (row["topology"], row["input_len"]) == ("1p3d", "4096")
    ]
    a, b = runs[:6], runs[6:]

    def starts(values: Sequence[float]) -> tuple[Start, Start]:
        first, second = ({CELL: {"output_throughput": value}} for value in values)
        return first, second

    return [
        Block(baseline=starts(a[place::3]), candidate=starts(b[place::3])) for place in range(3)
    ]


@pytest.mark.parametrize("loss", [0.15, 0.05])
def test_throughput_that_the_later_gpu_runs_lost_is_no_go(loss: float) -> None:
    said = judge_gate(gpu_blocks(loss), GatePolicy(margins={"output_throughput": 0.03}))
    found = only(said)
    assert (said.verdict, found.blocks, found.blocks_against) == (GateVerdict.NO_GO, 3, 3)
    assert found.estimate == pytest.approx(1 / (1 - loss) - 1, abs=0.012)


def test_the_same_gpu_runs_without_a_loss_are_go() -> None:
    said = judge_gate(gpu_blocks(0.0), GatePolicy(margins={"output_throughput": 0.03}))
    assert said.verdict is GateVerdict.GO


def h200_gate(candidate: str) -> list[Block]:
    """Return the whole blocks of a real gate on one H200, 192 prompts of 2,048/64 tokens."""
    starts: dict[int, dict[str, list[Start]]] = {}
    with (GPU.parent / "gpu_two_h200_gates.csv").open() as file:
        for row in csv.DictReader(file):
            if (row["candidate"], row["load"]) == (candidate, "2048/64"):
                values = {metric: float(row[metric]) for metric in POLICY.margins}
                sides = starts.setdefault(int(row["block"]), {"A": [], "B": []})
                sides[row["side"]].append({CELL: values})
    return [
        Block(baseline=(a1, a2), candidate=(b1, b2))
        for sides in starts.values()
        if all(len(side) == 2 for side in sides.values())
        for (a1, a2), (b1, b2) in [(sides["A"], sides["B"])]
    ]


def test_a_step_that_took_5_percent_longer_on_a_gpu_is_no_go() -> None:
    blocks = h200_gate("step_5pct_longer")
    assert [judge_gate(blocks[:n], POLICY).verdict for n in (1, 2, 3)] == [
        *(None, None),
        GateVerdict.NO_GO,
    ]
    evidence = judge_gate(blocks, POLICY).evidence
    worse = {each.metric: each.estimate for each in evidence if each.state is MetricState.WORSE}
    assert worse == {
        "output_throughput": pytest.approx(0.041, abs=0.001),
        "mean_e2el_ms": pytest.approx(0.040, abs=0.001),
    }


def test_a_stack_against_itself_on_a_gpu_is_no_worse_or_undecided() -> None:
    judgement = judge_gate(h200_gate("equal"), POLICY)
    assert judgement.verdict is None
    states = {metric.metric: metric.state for metric in judgement.evidence}
    undecided = {metric for metric, state in states.items() if state is MetricState.UNDECIDED}
    assert undecided == {"mean_itl_ms", "mean_tpot_ms"}
    assert {states[metric] for metric in states.keys() - undecided} == {MetricState.GOOD}
    assert {metric.blocks_against for metric in judgement.evidence} == {0}
