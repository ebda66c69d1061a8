"""What a gate does next: order, second tries, controls, faults, and what differs undeclared."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.backends.images import Image
from pytest_pdserve.backends.stacks.images import ProvidedImage
from pytest_pdserve.backends.stacks.images import told_apart
from pytest_pdserve.backends.stacks.using import system_with_stack
from pytest_pdserve.gating.images import check_images
from pytest_pdserve.gating.sides import parse_side
from pytest_pdserve.gating.sides import swapped_text
from pytest_pdserve.gating.starts import rotations
from pytest_pdserve.gating.verdict import packages_note
from pytest_pdserve.judge.gate.correctness import judge_answers
from pytest_pdserve.judge.gate.correctness import outcome_of
from pytest_pdserve.judge.gate.differences import find_differences
from pytest_pdserve.judge.gate.steps import GateProgress
from pytest_pdserve.judge.gate.steps import next_step
from pytest_pdserve.judge.gate.swaps import AttributionTarget
from pytest_pdserve.judge.gate.swaps import SwapStep
from pytest_pdserve.judge.gate.swaps import next_swap
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.gate import Attribution
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import MetricEvidence
from pytest_pdserve.values.gate import MetricState
from pytest_pdserve.values.gate_budget import GateBudget
from pytest_pdserve.values.gate_budget import parse_budget
from pytest_pdserve.values.gate_state import GateCells
from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.gate_state import GateStep
from pytest_pdserve.values.gate_state import Outcome
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.stack import components
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload

LOAD = Workload(input_len=512, output_len=256, num_prompts=4)
CELLS = (
    GateCells(topology="1p3d", workloads=(LOAD.id,)),
    GateCells(topology="dp", workloads=(LOAD.id,)),
)
DP = CELLS[1:]
ITL = GatePolicy(margins={"mean_itl_ms": 0.03})


class Gate:
    """A gate that is played start by start."""

    def __init__(self, make_record: Callable[..., Record], cells: Sequence[GateCells]) -> None:
        self.make_record, self.cells = make_record, cells
        self.starts: list[GateStart] = []
        self.runs: dict[str, tuple[Record, ...]] = {}

    def next(self) -> GateProgress:
        return next_step(self.starts, self.runs, cells=self.cells, policy=ITL, components=())

    def make(self, step: GateStep, outcome: Outcome = Outcome.OK, *, value: float = 5.0) -> None:
        """Add a start that ended so."""
        folder = f"{step.name}-{len(self.starts)}"
        why = "" if outcome is Outcome.OK else f"sad {step.name}"
        start = GateStart(step=step, folder=folder, outcome=outcome, why=why)
        self.starts.append(start)
        record = self.make_record({"mean_itl_ms": value}, topology=step.topology)
        self.runs[folder] = (record,)

    def play(self, *outcomes: Outcome) -> GateProgress:
        """Make the next starts, one for each outcome."""
        for outcome in outcomes:
            step = self.next().step
            assert step is not None
            self.make(step, outcome)
        return self.next()

    def end(self) -> tuple[GateVerdict, tuple[str, ...], str | None]:
        found = self.next().end
        assert found is not None
        return found.verdict, found.faults, found.error


@pytest.fixture
def gate(make_record: Callable[..., Record]) -> Gate:
    """A gate of one cell."""
    return Gate(make_record, DP)


@pytest.fixture
def wide(make_record: Callable[..., Record]) -> Gate:
    """A gate of two topologies."""
    return Gate(make_record, CELLS)


OK, FAULT, TROUBLE = Outcome.OK, Outcome.FAULT, Outcome.TROUBLE


def test_each_place_starts_every_topology_and_blocks_change_their_order(
    wide: Gate,
) -> None:
    gate = wide
    gate.play(*[OK] * 16)
    assert [(s.step.topology, s.step.side) for s in gate.starts[:6]] == [
        ("1p3d", "A"),
        ("dp", "A"),
        ("1p3d", "B"),
        ("dp", "B"),
        ("1p3d", "B"),
        ("dp", "B"),
    ]
    assert "".join(s.step.side for s in gate.starts if s.step.topology == "dp") == "ABBABAAB"


def test_starts_of_one_number_get_one_load(gate: Gate) -> None:
    gate.play(*[OK] * 8)
    assert [(s.step.side, s.step.repeat) for s in gate.starts] == [
        *(("A", 0), ("B", 0), ("B", 1), ("A", 1)),
        *(("B", 2), ("A", 2), ("A", 3), ("B", 3)),
    ]


def test_a_start_that_fails_once_is_made_again_and_does_not_count(gate: Gate) -> None:
    progress = gate.play(OK, FAULT, OK, OK, OK)
    assert [s.step.attempt for s in gate.starts] == [1, 1, 2, 1, 1]
    assert (len(progress.blocks), progress.end) == (1, None)


def test_a_candidate_that_fails_twice_is_no_go_if_the_baseline_then_works(
    gate: Gate,
) -> None:
    progress = gate.play(OK, FAULT, FAULT)
    assert progress.step is not None
    assert (progress.step.side, progress.step.control) == ("A", True)
    gate.play(OK)
    fault = "B fails on dp twice in a row, where A works before and after: sad b01-2B-dp-try2"
    assert gate.end() == (GateVerdict.NO_GO, (fault,), None)


def test_both_stacks_failing_is_an_error_that_names_both(gate: Gate) -> None:
    gate.play(OK, FAULT, FAULT, FAULT)
    verdict, faults, error = gate.end()
    assert (verdict, faults) == (GateVerdict.ERROR, ())
    assert error == (
        "both stacks fail on dp; B: sad b01-2B-dp-try2; A right after it: sad b01-2A-dp-control"
    )


@pytest.mark.parametrize(
    ("check", "outcome"),
    [("transfers", FAULT), ("completed", FAULT), ("client", TROUBLE), ("nodes", TROUBLE)],
)
def test_an_invalid_run_is_a_fault_of_the_servers_or_a_disturbance(
    make_record: Callable[..., Record], check: str, outcome: Outcome
) -> None:
    sound, finding = make_record(), Finding(check=check, severity="invalid", message="so")
    said = outcome_of([sound, make_record(findings=(finding,))])
    assert said == (outcome, f"the run of {LOAD.id} is invalid: {check}: so")
    assert outcome_of([sound]) == (OK, "")


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ((FAULT, FAULT), "A, the baseline, is broken itself on dp: sad b01-1A-dp-try2"),
        (
            (TROUBLE, TROUBLE),
            "a start of dp was disturbed 2 times: sad b01-1A-dp-try2",
        ),
        (
            (OK, TROUBLE, FAULT, TROUBLE),
            "a start of dp was disturbed 2 times: sad b01-2B-dp-try3",
        ),
        (
            (OK, FAULT, FAULT, TROUBLE, TROUBLE),
            "a start of dp was disturbed 2 times: sad b01-2A-dp-try2-control",
        ),
        (
            (FAULT, TROUBLE, FAULT),
            "A, the baseline, is broken itself on dp: sad b01-1A-dp-try3",
        ),
    ],
)
def test_a_broken_baseline_and_disturbances_are_errors(
    gate: Gate, outcomes: Sequence[Outcome], error: str
) -> None:
    gate.play(*outcomes)
    assert gate.end() == (GateVerdict.ERROR, (), error)


@pytest.mark.parametrize(
    "outcomes",
    [(OK, FAULT, TROUBLE, FAULT, OK), (OK, FAULT, FAULT, TROUBLE, OK)],
    ids=["a start of B", "the control"],
)
def test_a_disturbed_start_is_made_again_and_is_not_one_that_failed(
    gate: Gate, outcomes: Sequence[Outcome]
) -> None:
    gate.play(*outcomes)
    verdict, (fault,), error = gate.end()
    assert (verdict, error) == (GateVerdict.NO_GO, None)
    assert fault.startswith("B fails on dp twice in a row, where A works before and after: ")


def test_a_failed_and_a_disturbed_start_are_followed_by_one_that_counts(gate: Gate) -> None:
    progress = gate.play(OK, FAULT, TROUBLE, OK, OK, OK)
    assert [s.step.attempt for s in gate.starts] == [1, 1, 2, 3, 1, 1]
    assert (len(progress.blocks), progress.end) == (1, None)


def test_three_failures_of_the_candidate_and_none_of_the_baseline_are_a_fault(gate: Gate) -> None:
    gate.play(OK, FAULT, OK, FAULT, OK, OK)
    assert gate.next().end is None
    gate.play(FAULT, OK, OK, OK, OK)
    verdict, (fault,), _ = gate.end()
    assert verdict is GateVerdict.NO_GO
    assert fault.startswith("3 starts of B failed and none of A, though each worked when tried")


def test_failures_of_both_stacks_that_go_away_prove_nothing(gate: Gate) -> None:
    gate.play(FAULT, OK, FAULT, OK, FAULT, OK, OK)
    gate.play(FAULT, OK, OK, OK, OK)
    assert gate.end()[0] is GateVerdict.GO


def test_a_topology_that_is_decided_is_left_out_of_the_next_block(wide: Gate) -> None:
    gate = wide
    noise = {"1p3d": iter([5.0, 5.4, 5.1, 5.5] * 2), "dp": iter([5.0] * 8)}
    for _ in range(16):
        step = gate.next().step
        assert step is not None
        gate.make(step, value=next(noise[step.topology]))
    step = gate.next().step
    assert step is not None
    gate.make(step)
    after = gate.next().step
    assert after is not None
    assert (step.topology, after.topology, after.place) == ("1p3d", "1p3d", 1)


def answered(*sides: tuple[str, tuple[str, ...]]) -> list[GateStart]:
    return [
        GateStart(
            step=GateStep(block=0, place=place, side=side, topology="dp"),  # type: ignore[arg-type]
            folder=str(place),
            outcome=OK,
            answers=answers,
        )
        for place, (side, answers) in enumerate(sides)
    ]


SAME = ("one two", "three four", "five six")
ONE_OTHER = ("one two", "three four", "five seven")
ALL_OTHER = ("x two", "x four", "x six")


@pytest.mark.parametrize(
    ("b", "components", "faults", "notes"),
    [
        ((SAME, SAME), ("nixl",), 0, 0),
        ((ONE_OTHER, ONE_OTHER), ("nixl",), 1, 0),
        ((ONE_OTHER, SAME), ("nixl",), 0, 0),
        ((ONE_OTHER, ONE_OTHER), ("vllm",), 0, 1),
        ((ONE_OTHER, ONE_OTHER), ("image",), 0, 1),
        ((ALL_OTHER, ALL_OTHER), ("vllm",), 1, 0),
    ],
    ids=[
        *("same", "router or NIXL", "once", "another vLLM", "another image"),
        "another vLLM, from the first word",
    ],
)
def test_greedy_answers_that_differ_are_a_fault_where_arithmetic_is_the_same(
    b: tuple[tuple[str, ...], ...], components: tuple[str, ...], faults: int, notes: int
) -> None:
    starts = answered(("A", SAME), ("B", b[0]), ("B", b[1]), ("A", SAME))
    said = judge_answers(starts, components)
    assert (len(said.faults), len(said.notes)) == (faults, notes)


@pytest.mark.parametrize(
    ("b", "faults", "notes"),
    [(SAME, 0, 1), (("one x", "three four", "five six"), 0, 2), (ALL_OTHER, 1, 1)],
    ids=["same", "one that A repeats is another", "all have changed from the first word on"],
)
def test_answers_that_the_baseline_repeats_are_judged_where_others_differ(
    b: tuple[str, ...], faults: int, notes: int
) -> None:
    starts = answered(("A", SAME), ("B", b), ("B", b), ("A", ONE_OTHER))
    said = judge_answers(starts, ("nixl",))
    assert (len(said.faults), len(said.notes)) == (faults, notes)
    assert said.notes[0] == (
        "dp: A's own greedy answers to 1 of 3 prompts differ from start to start, so B's are not "
        "compared with them"
    )
    why = "; A does not always repeat its own answers, so this proves no fault"
    assert all(note.endswith(why) for note in said.notes[1:] if not faults)


def test_answers_that_are_all_one_text_prove_little() -> None:
    alike = ("one two", "one two")
    starts = answered(("A", alike), ("B", alike), ("B", alike), ("A", alike))
    said = judge_answers(starts, ("nixl",))
    assert said.faults == ()
    assert said.notes == (
        "dp: A answers all 2 prompts with one text, so wrong tokens of B might not show",
    )


def ran(**facts: dict[str, str]) -> list[MeasuredRun]:
    known = {"versions": {"vllm": "0.31.0", "torch": "2.12"}, "hardware": {"nodes": "n0"}}
    known["flags"] = {"prefill --max-num-seqs": "8"}
    merged = {group: {**known.get(group, {}), **facts.get(group, {})} for group in known}
    return [
        MeasuredRun(
            where="here",
            topology="dp",
            workload_id="w",
            evidence=("s",),
            client="c",
            metrics={},
            facts=merged,
        )
    ]


@pytest.mark.parametrize(
    ("components", "facts", "undeclared", "brought"),
    [
        (("vllm",), {"versions": {"vllm": "0.32.0"}}, 0, 0),
        (("nixl",), {"versions": {"vllm": "0.32.0"}}, 1, 0),
        (("vllm",), {"versions": {"vllm": "0.32.0", "torch": "2.13"}}, 0, 1),
        (("vllm-router",), {"versions": {"torch": "2.13"}}, 1, 0),
        (("serve_args",), {"flags": {"prefill --max-num-seqs": "9"}}, 0, 0),
        (("vllm",), {"flags": {"prefill --max-num-seqs": "9"}}, 1, 0),
        (("serve_args",), {"flags": {"router --policy": "random"}}, 1, 0),
        (("vllm",), {"hardware": {"nodes": "n1"}}, 1, 0),
        (("vllm",), {"hardware": {"fingerprint": "other"}}, 0, 0),
        (("image",), {"versions": {"vllm": "0.32.0", "ray": "2"}}, 0, 2),
        (("image",), {"hardware": {"nodes": "n1"}}, 1, 0),
    ],
)
def test_what_differs_beside_the_components_is_named(
    components: tuple[str, ...], facts: dict[str, dict[str, str]], undeclared: int, brought: int
) -> None:
    said = find_differences(ran(), ran(**facts), components)
    assert (len(said.undeclared), len(said.brought)) == (undeclared, brought)


def test_packages_that_both_environments_have_are_named_first() -> None:
    tools = [f"tool{number}: none with A, 1 with B" for number in range(9)]
    note = packages_note([*tools, "transformers: 5.17 with A, 5.19 with B"])
    first = "transformers: 5.17 with A, 5.19 with B; tool0"
    assert note.startswith(f"10 other packages of the environments differ: {first}")
    assert note.endswith(": none with A, 1 with B; and 2 more, see packages in gate-state.json")
    assert packages_note(tools[:1]).endswith(" differ: tool0: none with A, 1 with B")


def test_an_undeclared_difference_has_both_values() -> None:
    said = find_differences(ran(), ran(hardware={"nodes": "n1"}), ("vllm",))
    assert said.undeclared == ("hardware nodes: n0 with A, n1 with B",)


def worse_metric() -> MetricEvidence:
    return MetricEvidence(
        topology="dp",
        workload=LOAD.id,
        metric="mean_itl_ms",
        state=MetricState.WORSE,
        blocks=3,
        blocks_against=3,
        margin=0.03,
        limit=0.015,
        pairs=36,
        pairs_beyond=36,
    )


@pytest.mark.parametrize(
    ("slow", "component", "why"),
    [
        (
            ({"nixl"}, set()),
            "nixl",
            "nixl makes B worse: A with B's nixl is worse, and B with A's nixl is not",
        ),
        ((set(), set()), None, "none of vllm, nixl alone makes A as bad as B"),
        (({"vllm", "nixl"}, {"vllm", "nixl"}), None, "each of vllm, nixl makes A worse by itself"),
        (
            ({"vllm"}, {"vllm"}),
            "vllm",
            "vllm makes A worse by itself, but B with the baseline's vllm is still worse: another "
            "component makes it worse too",
        ),
    ],
    ids=["one", "none", "both", "one of two causes"],
)
def test_an_attribution_swaps_each_component_and_those_that_moved_back(
    gate: Gate, slow: tuple[set[str], set[str]], component: str | None, why: str
) -> None:
    slow_by_side = dict(zip(("baseline", "candidate"), slow, strict=True))

    def play(swap: SwapStep) -> None:
        is_slow = swap.step.side == "B" and swap.component in slow_by_side[swap.into]
        gate.make(swap.step, value=5.5 if is_slow else 5.0)

    found = attributed(gate, play)
    assert (found.component, found.why) == (component, why)
    assert found.blocks <= 2 * 2
    assert len(gate.starts) == 4 * found.blocks


def attributed(gate: Gate, play: Callable[[SwapStep], None], **options: Any) -> Attribution:
    """Return the result of swaps between stacks that differ in vLLM and NIXL."""
    given = {"undeclared": lambda _starts, _components: (), **options}
    target = AttributionTarget(worse=(worse_metric(),), cells=DP)
    while True:
        found = next_swap(
            gate.starts, gate.runs, components=("vllm", "nixl"), target=target, **given
        )
        if isinstance(found, Attribution):
            return found
        play(found)


def test_a_swap_whose_stack_fails_where_the_baseline_works_makes_it_worse(gate: Gate) -> None:
    def play(swap: SwapStep) -> None:
        has_bad_nixl = (swap.component == "nixl") is (swap.into == "baseline")
        fails = swap.step.side == "B" and has_bad_nixl
        gate.make(swap.step, FAULT if fails else OK)

    found = attributed(gate, play)
    assert (found.component, found.blocks) == ("nixl", 3)


def test_a_difference_that_no_swapped_component_explains_ends_the_search(gate: Gate) -> None:
    def undeclared(starts: Sequence[GateStart], components: Sequence[str]) -> Sequence[str]:
        return ("hardware nodes: n0 with A, n1 with B",) if len(starts) > 1 else ()

    found = attributed(gate, lambda swap: gate.make(swap.step), undeclared=undeclared)
    assert found.component is None
    assert found.why == (
        "the component was not determined: A and A+vllm differ in more than vllm: hardware nodes: "
        "n0 with A, n1 with B"
    )
    assert len(gate.starts) == 2


def test_a_swap_whose_runs_lack_the_worse_metric_does_not_clear_its_component(gate: Gate) -> None:
    def play(swap: SwapStep) -> None:
        gate.make(swap.step)
        if swap.step.side == "B":
            folder = gate.starts[-1].folder
            gate.runs[folder] = (gate.make_record({"mean_itl_ms": 0.0}, topology="dp"),)

    found = attributed(gate, play)
    assert found.component is None
    assert found.why == (
        "the component was not determined: runs of A+vllm lack a metric that is worse with B"
    )


def test_a_swap_is_compared_by_the_components_that_then_differ(gate: Gate) -> None:
    compared: dict[str, Sequence[str]] = {}

    def undeclared(starts: Sequence[GateStart], components: Sequence[str]) -> Sequence[str]:
        compared.update({start.step.swap: components for start in starts})
        return ()

    def play(swap: SwapStep) -> None:
        is_slow = swap.step.side == "B" and (swap.component, swap.into) == ("vllm", "baseline")
        gate.make(swap.step, value=5.5 if is_slow else 5.0)

    assert attributed(gate, play, undeclared=undeclared).component == "vllm"
    assert compared == {"A+vllm": ("vllm",), "A+nixl": ("nixl",), "B-vllm": ("nixl",)}


def test_a_spent_budget_ends_the_search_between_blocks_with_its_evidence(gate: Gate) -> None:
    target = AttributionTarget(worse=(worse_metric(),), cells=DP)

    def following(spent: str | None) -> SwapStep | Attribution:
        return next_swap(
            gate.starts,
            gate.runs,
            components=("vllm", "nixl"),
            target=target,
            undeclared=lambda _starts, _components: (),
            spent=spent,
        )

    begun = following(None)
    assert isinstance(begun, SwapStep)
    gate.make(begun.step)
    while isinstance(found := following("the budget is spent"), SwapStep):
        gate.make(found.step)
    assert (found.component, found.blocks, len(found.evidence)) == (None, 1, 1)
    assert found.why == "the component was not determined: the budget is spent"
    assert len(gate.starts) == 4


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        (None, GateBudget()),
        ("16blocks", GateBudget(blocks=16)),
        ("90min", GateBudget(wall_min=90)),
        ("3 blocks, 240GPU-min", GateBudget(blocks=3, gpu_min=240)),
    ],
)
def test_budgets(text: str | None, budget: GateBudget) -> None:
    assert parse_budget(text, max_blocks=8) == budget
    assert parse_budget(budget.text, max_blocks=8) == budget


@pytest.mark.parametrize(
    "text", ["", "8", "2blocks", "65blocks", "8blocks,9blocks", "0min", "-1min"]
)
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        parse_budget(text, max_blocks=8)


def test_the_seconds_left_are_those_of_the_tighter_limit() -> None:
    budget = GateBudget(wall_min=10, gpu_min=16)
    assert budget.left_s(60, gpus=4) == 4 * 60 - 60
    assert budget.left_s(60, gpus=0) == 10 * 60 - 60
    assert GateBudget().left_s(1e9, gpus=8) is None


def test_an_image_is_the_stack_of_a_system_in_containers(p5_efa: System) -> None:
    own, candidate = (parse_side("B", text, p5_efa) for text in ("current", "image:r/vllm:next"))
    assert components(own.stack, candidate.stack) == ("image",)
    assert system_with_stack(p5_efa, candidate.stack).container.image == "r/vllm:next"


@pytest.mark.parametrize("text", ["current", "image:r/vllm:next"])
def test_an_image_that_has_changed_between_starts_is_an_error(
    text: str, p5_efa: System, make_record: Callable[..., Record]
) -> None:
    side = parse_side("B", text, p5_efa)
    step = GateStep(block=0, place=0, side="B", topology="dp")
    starts = [GateStart(step=step, folder="f", outcome=Outcome.OK, why="")]
    record = make_record({"mean_itl_ms": 1.0})
    runs = {"f": [replace(record, cluster={"image_digest": "sha256:a"})]}

    def check(digest: str, earlier: Sequence[GateStart] = starts) -> None:
        image, other = (Image(name="i", digest=each) for each in (digest, "sha256:other"))
        provided = {"r/vllm:next": ProvidedImage(image=image, versions={})}
        own = image if text == "current" else other
        check_images([side], provided, own, starts=earlier, runs=runs)

    check("sha256:a")
    check("")
    check("sha256:b", [])
    with pytest.raises(AllocationError, match="is now sha256:b, and was sha256:a at earlier"):
        check("sha256:b")


def test_images_of_one_name_are_told_apart_by_their_ids() -> None:
    own, candidate = (Image(name="nixl:latest", digest=each, id=each) for each in ("a", "b"))
    other = Image(name="nixl:next", digest="c", id="c")
    assert [image.name for image in told_apart([own, other])] == ["nixl:latest", "nixl:next"]
    assert [image.name for image in told_apart([own, own])] == ["nixl:latest"] * 2
    assert [image.name for image in told_apart([own, candidate, other])] == ["a", "b", "nixl:next"]
    with pytest.raises(AllocationError, match="two images are called nixl:latest on the nodes"):
        told_apart([own, replace(candidate, id="")])


def test_nodes_are_rotated_as_often_as_there_are_blocks(p5_efa: System) -> None:
    assert p5_efa.cluster.nodes == 4
    assert rotations(p5_efa, 3) == (0, 1, 2)
    assert rotations(p5_efa, 8) == (0, 1, 2, 3)
    one_host = replace(p5_efa, cluster=replace(p5_efa.cluster, shared_host=True))
    assert rotations(one_host, 8) == (0,)


def stack(text: str, **fields: Any) -> Stack:
    given = {"pins": {}, "python": None, "image": None, "serve_args": (), **fields}
    return Stack(text=text, digest=text, **given)


@pytest.mark.parametrize(
    ("into", "other", "component", "text"),
    [
        ({"vllm": "1", "nixl": "1"}, {"vllm": "2", "nixl": "2"}, "nixl", "vllm==1 nixl==2"),
        ({"vllm": "1"}, {"vllm": "1", "torch": "2"}, "torch", "vllm==1 torch==2"),
        ({"vllm": "1", "torch": "2"}, {"vllm": "1"}, "torch", "vllm==1"),
    ],
    ids=["both pin it", "the other pins it", "the other does not"],
)
def test_a_component_is_swapped_whichever_stack_pins_it(
    into: dict[str, str], other: dict[str, str], component: str, text: str
) -> None:
    stacks = (stack("a", pins=into, builds=True), stack("b", pins=other, builds=True))
    assert swapped_text(*stacks, component) == text


@pytest.mark.parametrize(
    ("component", "texts"),
    [
        ("image", ("image:next", "current serve-args:--a=1")),
        ("serve_args", ("current serve-args:--a=1", "image:next")),
    ],
)
def test_an_image_is_swapped_as_a_whole(component: str, texts: tuple[str, str]) -> None:
    own, candidate = stack("a"), stack("b", image="next", serve_args=("--a=1",))
    assert swapped_text(own, candidate, component) == texts[0]
    assert swapped_text(candidate, own, component) == texts[1]
