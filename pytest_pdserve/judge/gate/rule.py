"""The rule of upgrade gates: blocks of runs in, a verdict with its evidence out. Pure.

docs/gate-rule.md explains the rule; its constants are in :mod:`pytest_pdserve.values.rules`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_pdserve.judge.gate.block_arrays import Bools
from pytest_pdserve.judge.gate.block_arrays import Bounds
from pytest_pdserve.judge.gate.block_arrays import Floats
from pytest_pdserve.judge.gate.block_arrays import Gates
from pytest_pdserve.judge.gate.block_arrays import Ints
from pytest_pdserve.judge.gate.block_arrays import Subjects
from pytest_pdserve.judge.gate.block_arrays import forecast
from pytest_pdserve.judge.gate.blocks import Block
from pytest_pdserve.judge.gate.blocks import GateJudgement
from pytest_pdserve.judge.gate.levels import pairs_of
from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import MetricEvidence
from pytest_pdserve.values.gate import MetricState
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.numbers import growth


def judge_gate(blocks: Sequence[Block], policy: GatePolicy) -> GateJudgement:
    """Judge the candidate by all blocks so far, the oldest first.

    A gate ends with its verdict: later blocks are ignored.

    :raises ValueError: if there is no block, or a value is not positive and finite.
    """
    if not blocks:
        raise ValueError("no blocks, expected at least one block")
    cells = sorted({key for block in blocks for start in block.starts for key in start})
    by_topology: dict[str, list[int]] = {}
    for index, (topology, _) in enumerate(cells):
        by_topology.setdefault(topology, []).append(index)
    gate = Gates.unmeasured(
        gates=1, members=list(by_topology.values()), margins=list(policy.margins.values())
    )
    verdict, read = None, 0
    while verdict is None and read < len(blocks):
        gate = gate.after(_logs(blocks[read], cells, tuple(policy.margins))[None])
        read += 1
        verdict = _verdict(gate, spent=read >= policy.max_blocks)
    wanted, measured = gate.wanted[0], gate.cells.measured[0].any(axis=1)
    values, topologies = _values(blocks[:read]), [(name, None) for name in by_topology]
    evidence = [
        *_metric_evidence(_MetricArrays.of(gate.cells, gate.margins), cells, policy, values=values),
        *_metric_evidence(
            _MetricArrays.of(gate.topologies, gate.margins), topologies, policy, values={}
        ),
    ]
    return GateJudgement(
        verdict=verdict,
        blocks=read,
        evidence=tuple(sorted(evidence, key=_rank)),
        cells=() if verdict else tuple(itertools.compress(cells, wanted)),
        without_metrics=tuple(itertools.compress(cells, ~measured)),
    )


def _verdict(gate: Gates, *, spent: bool) -> GateVerdict | None:
    if gate.no_go[0]:
        return GateVerdict.NO_GO
    if gate.go[0]:
        return GateVerdict.GO
    return GateVerdict.NOT_ENOUGH if spent else None


def _logs(block: Block, cells: Sequence[Key], metrics: Sequence[str]) -> Floats:
    """Return a block as ``(stacks, starts, cells, metrics)``."""
    return np.array(
        [
            [
                [[_log(start.get(key, {}).get(name), name) for name in metrics] for key in cells]
                for start in stack
            ]
            for stack in (block.baseline, block.candidate)
        ]
    )


def _log(value: float | None, metric: str) -> float:
    return math.nan if value is None else signed_log(value, METRICS[metric].better)


Values = Mapping[tuple[Key, str], tuple[list[float], list[float]]]
"""Runs of A and of B by cell and metric, in the metric's unit."""


def _values(blocks: Sequence[Block]) -> Values:
    by_metric: dict[tuple[Key, str], tuple[list[float], list[float]]] = {}
    for block in blocks:
        for stack, starts in enumerate((block.baseline, block.candidate)):
            for start in starts:
                for key, metrics in start.items():
                    for name, value in metrics.items():
                        by_metric.setdefault((key, name), ([], []))[stack].append(value)
    return by_metric


@dataclass(frozen=True, slots=True, kw_only=True)
class _MetricArrays:
    """Judgement of all metrics of the cells, or of the topologies, as arrays."""

    subjects: Subjects
    bounds: Bounds
    allowed: Ints
    beyond: Ints
    against: Ints
    worse: Bools
    limits: Floats
    needed: Floats

    @classmethod
    def of(cls, subjects: Subjects, margins: Floats) -> _MetricArrays:
        bounds = subjects.bounds
        return cls(
            subjects=subjects,
            bounds=bounds,
            allowed=subjects.pairs_allowed,
            beyond=subjects.pairs_beyond(margins),
            against=subjects.blocks_against(margins),
            worse=subjects.worse(margins),
            limits=subjects.limit(margins),
            needed=forecast(subjects.blocks, bounds, margins),
        )

    def state(self, at: tuple[int, int, int]) -> MetricState:
        """Return the state of one metric."""
        if self.worse[at]:
            return MetricState.WORSE
        return MetricState.GOOD if self.subjects.good[at] else MetricState.UNDECIDED


def _metric_evidence(
    arrays: _MetricArrays,
    names: Sequence[tuple[str, str | None]],
    policy: GatePolicy,
    *,
    values: Values,
) -> Iterator[MetricEvidence]:
    """Yield the evidence on every metric that a subject has."""
    for place, (topology, workload) in enumerate(names):
        for column, (metric, margin) in enumerate(policy.margins.items()):
            at = 0, place, column
            if not arrays.subjects.measured[at]:
                continue
            state, blocks = arrays.state(at), int(arrays.subjects.blocks[at])
            a, b = values.get(((topology, workload or ""), metric), ((), ()))
            yield MetricEvidence(
                topology=topology,
                workload=workload,
                metric=metric,
                state=state,
                blocks=blocks,
                blocks_against=int(arrays.against[at]),
                baseline=statistics.median(a) if a else None,
                candidate=statistics.median(b) if b else None,
                margin=margin,
                limit=_change(arrays.limits[at]),
                estimate=_change(arrays.bounds.estimate[at]),
                low=_change(arrays.bounds.low[at]),
                high=_change(arrays.bounds.high[at]),
                pairs=pairs_of(blocks),
                pairs_beyond=int(arrays.beyond[at]),
                pairs_allowed=int(arrays.allowed[at]) if arrays.allowed[at] >= 0 else None,
                forecast_blocks=_blocks(arrays.needed[at])
                if state is MetricState.UNDECIDED
                else None,
            )


def _change(log: float) -> float | None:
    return None if math.isnan(log) else growth(float(log))


def _blocks(needed: float) -> int | None:
    return None if math.isnan(needed) else int(needed)


_STATES = (MetricState.WORSE, MetricState.UNDECIDED, MetricState.GOOD)


def _rank(metric: MetricEvidence) -> tuple[int, float]:
    estimate = -math.inf if metric.estimate is None else metric.estimate
    return _STATES.index(metric.state), -estimate
