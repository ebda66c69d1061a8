"""Build the result of a gate, as written to ``gate.json``."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace

from pytest_pdserve.gating.running import GateRun
from pytest_pdserve.gating.sides import GateSide
from pytest_pdserve.gating.starts import sentence
from pytest_pdserve.judge.gate.correctness import judge_answers
from pytest_pdserve.judge.gate.steps import GateEnd
from pytest_pdserve.judge.gate.steps import GateProgress
from pytest_pdserve.judge.gate.steps import values_of
from pytest_pdserve.results.gate import STATE_FILE
from pytest_pdserve.values.gate import MAX_BLOCKS
from pytest_pdserve.values.gate import Attribution
from pytest_pdserve.values.gate import GatedStack
from pytest_pdserve.values.gate import GateResult
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import ShownMetric
from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.gate_state import Outcome
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.phases import duration_text
from pytest_pdserve.values.record import Record

_SHOWN_PACKAGES = 8
"""Maximum packages that a note names."""


def result_of(
    run: GateRun, found: GateProgress, attribution: Attribution | None = None
) -> GateResult:
    """Return the result of a gate that has ended.

    :param found: its progress.
    """
    assert found.end is not None
    request, judgement, end = run.request, found.judgement, found.end
    starts = run.state.starts
    differences = run.differences
    decided = end.verdict in (GateVerdict.GO, GateVerdict.NO_GO)
    return GateResult(
        verdict=end.verdict,
        system=request.system.name,
        simulated=request.system.simulated,
        baseline=_stack(run, request.baseline),
        candidate=_stack(run, request.candidate),
        components=request.components,
        same_facts=differences.same,
        policy=request.rule,
        faults=tuple(map(sentence, end.faults)),
        error=sentence(end.error) if end.error and end.verdict is GateVerdict.ERROR else None,
        notes=tuple(map(sentence, _notes(run, found))),
        evidence=judgement.evidence if judgement else (),
        shown=tuple(_shown(run)),
        blocks=len(found.blocks),
        starts=len(starts),
        runs=sum(len(run.runs[start.folder]) for start in starts),
        wall_s=run.state.held_s,
        gpu_min=round(run.state.gpus * run.state.held_s / 60, 2) if run.state.gpus else None,
        forecast_blocks=judgement.forecast_blocks if judgement and not decided else None,
        next_steps=tuple(map(sentence, _next_steps(run, found))),
        attribution=attribution,
    )


def failed_result(run: GateRun, error: str) -> GateResult:
    """Return the result of a gate that could not continue, with its measurements so far.

    :param error: reason, in one sentence.
    """
    end = GateEnd(verdict=GateVerdict.ERROR, error=error)
    return result_of(run, replace(run.evaluate(), step=None, end=end))


def _stack(run: GateRun, side: GateSide) -> GatedStack:
    """Return a stack with the versions of its last start."""
    shown = [s.versions for s in run.own_starts if s.step.side == side.side and s.versions]
    return side.described(shown[-1] if shown else {})


def _notes(run: GateRun, found: GateProgress) -> Iterator[str]:
    end = found.end
    if end is not None and end.verdict is GateVerdict.NOT_ENOUGH and end.error:
        yield end.error
    if not run.request.components:
        yield "both stacks are the same: this gate shows the effect of noise on its verdict"
    for each in run.differences.brought:
        yield f"came with the stacks: {each}"
    if packages := run.state.packages:
        yield packages_note(packages)
    yield from judge_answers(run.own_starts, run.request.components).notes
    yield from _failed_once(run.own_starts)
    yield from _unproven([r for s in run.own_starts for r in run.runs[s.folder]])
    if found.judgement is not None:
        for topology, workload in found.judgement.without_metrics:
            yield f"{topology} {workload}: no run has a gated metric, so it was not compared"


def packages_note(packages: Sequence[str]) -> str:
    """Return a note on packages that differ between the environments.

    :param packages: e.g. ``numpy: 1.26 with A, 2.0 with B``; those that both have are shown first.
    """
    ordered = sorted(packages, key=lambda line: " none with " in line)
    more = len(ordered) - _SHOWN_PACKAGES
    rest = f"; and {more} more, see packages in {STATE_FILE}" if more > 0 else ""
    shown = "; ".join(ordered[:_SHOWN_PACKAGES])
    return f"{len(ordered)} other packages of the environments differ: {shown}{rest}"


def _failed_once(starts: Sequence[GateStart]) -> Iterator[str]:
    """Yield each start that failed once and then worked."""
    for start in starts:
        step = start.step
        if start.outcome is Outcome.OK or step.control:
            continue
        same_place = (s for s in starts if replace(s.step, attempt=step.attempt) == step)
        if any(s.outcome is Outcome.OK for s in same_place):
            yield f"{start.folder} of {step.side} failed once, and then worked: {start.why}"


def _unproven(records: Sequence[Record]) -> Iterator[str]:
    """Yield the checks that could not be made, and in how many runs."""
    found = Counter(each.check for record in records for each in record.unproven)
    for check, count in found.items():
        first = next(f for r in records for f in r.unproven if f.check == check)
        yield f"unproven in {count} of {len(records)} runs: {check}: {first.message}"


def _shown(run: GateRun) -> Iterator[ShownMetric]:
    """Yield medians of metrics that are judged at night but not by gates."""
    names = [name for name in METRICS.times if name not in run.request.policy.margins]
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for start in run.own_starts:
        if start.outcome is Outcome.OK and not start.step.control:
            for (topology, load), metrics in values_of(run.runs[start.folder]).items():
                for name in names:
                    if name in metrics:
                        sides = values.setdefault((topology, load, name), {"A": [], "B": []})
                        sides[start.step.side].append(metrics[name])
    for (topology, load, name), sides in values.items():
        if sides["A"] and sides["B"]:
            yield ShownMetric(
                topology=topology,
                workload=load,
                metric=name,
                baseline=statistics.median(sides["A"]),
                candidate=statistics.median(sides["B"]),
            )


def _next_steps(run: GateRun, found: GateProgress) -> Iterator[str]:
    """Yield advice on how to reach a verdict."""
    if found.end is None or found.end.verdict is not GateVerdict.NOT_ENOUGH:
        return
    judgement, folder = found.judgement, run.folder
    if judgement is None:
        yield f"continue with a larger budget: pdserve gate --resume {folder} --budget BUDGET"
        return
    noisiest, blocks = judgement.noisiest, judgement.forecast_blocks
    if blocks is not None and blocks > MAX_BLOCKS:
        yield (
            f"about {blocks} blocks in all would decide if B is not worse, but a gate has at "
            f"most {MAX_BLOCKS}"
        )
    elif blocks is not None:
        blocks = max(blocks, len(found.blocks) + 1)
        more = blocks - len(found.blocks)
        cost = cost_words(run, more)
        yield (
            f"about {blocks} blocks in all would decide if B is not worse, {more} more ({cost}): "
            f"pdserve gate --resume {folder} --budget {blocks}blocks"
        )
    if noisiest is not None:
        where = f"{noisiest.topology} {noisiest.workload or 'as a whole'}"
        yield (
            f"the noisiest is {noisiest.metric} of {where}, which needs about "
            f"{noisiest.forecast_blocks} blocks; without it: --cells with the others"
        )
    yield (
        "longer loads are less noisy: raise num_prompts in [sweep] of "
        f"{run.request.system.source}; or widen a margin with --policy"
    )


def cost_words(run: GateRun, blocks: int) -> str:
    """Return the cost of *blocks* blocks of the size of the last one."""
    done = max((start.step.block for start in run.own_starts), default=0)
    seconds = blocks * run.block_s(done)
    gpus = run.state.gpus
    held = f", {gpus * seconds / 60:,.0f} GPU-minutes" if gpus else ""
    return f"{duration_text(seconds)} at most{held}"
