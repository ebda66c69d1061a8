"""Run a gate step by step until it is decided; the state is written after each start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.nodes import spare_hosts
from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.stacks.building import other_packages
from pytest_pdserve.backends.stacks.images import held_nodes
from pytest_pdserve.backends.stacks.images import provide_images
from pytest_pdserve.backends.stacks.installed import python_of_system
from pytest_pdserve.gating.images import check_images
from pytest_pdserve.gating.lock import locked_system
from pytest_pdserve.gating.preflight import check_pairs
from pytest_pdserve.gating.request import GateRequest
from pytest_pdserve.gating.sides import OWN_PACKAGE
from pytest_pdserve.gating.sides import GateSide
from pytest_pdserve.gating.sides import build_side
from pytest_pdserve.gating.sides import parse_side
from pytest_pdserve.gating.sides import swapped_text
from pytest_pdserve.gating.starts import StartContext
from pytest_pdserve.gating.starts import error_sentence
from pytest_pdserve.gating.starts import run_start
from pytest_pdserve.judge.gate.differences import Differences
from pytest_pdserve.judge.gate.differences import find_differences
from pytest_pdserve.judge.gate.differences import merge_differences
from pytest_pdserve.judge.gate.steps import GateEnd
from pytest_pdserve.judge.gate.steps import GateProgress
from pytest_pdserve.judge.gate.steps import next_step
from pytest_pdserve.judge.gate.swaps import SwapStep
from pytest_pdserve.judge.gate.swaps import attribution_target
from pytest_pdserve.judge.gate.swaps import next_swap
from pytest_pdserve.results.gate import load_runs
from pytest_pdserve.results.gate import write_state
from pytest_pdserve.results.measured import runs_of_records
from pytest_pdserve.results.redaction import redacting_files
from pytest_pdserve.serving.clients import bench_client
from pytest_pdserve.session.phases import held_by
from pytest_pdserve.session.provenance import provenance_before
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.gate import Attribution
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.gate_state import GateState
from pytest_pdserve.values.gate_state import GateStep
from pytest_pdserve.values.gate_state import Side
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.topology import Topology


@dataclass(slots=True, kw_only=True)
class GateRun:
    """A gate: its request, and what it has measured so far."""

    request: GateRequest
    folder: Path
    """Folder of the gate."""
    state: GateState
    """State as it is stored in the folder."""
    rootdir: Path
    """Root of the project."""
    user_state: Path
    """The user's state folder."""
    progress: Progress
    """Reports what the gate is waiting for."""
    clock: Callable[[], float] = time.monotonic
    _runs: dict[str, tuple[Record, ...]] = field(default_factory=dict)
    _measured: dict[str, tuple[MeasuredRun, ...]] = field(default_factory=dict)
    _held_before_s: float = 0.0
    _held_since: float | None = None

    @property
    def runs(self) -> Mapping[str, Sequence[Record]]:
        """Records by the folder of their start."""
        for start in self.state.starts:
            if start.folder not in self._runs:
                self._runs[start.folder] = load_runs(self.folder, start)
        return self._runs

    @property
    def own_starts(self) -> tuple[GateStart, ...]:
        """Starts without swapped components."""
        return tuple(start for start in self.state.starts if not start.step.swap)

    @property
    def differences(self) -> Differences:
        """Differences between the runs of A and of B so far.

        Runs are compared within a block and a topology: other blocks have other placements.
        """
        return self._differences_in(self.own_starts, self.request.components)

    def _differences_in(
        self, starts: Sequence[GateStart], components: Sequence[str]
    ) -> Differences:
        groups: dict[tuple[int, str], dict[Side, list[MeasuredRun]]] = {}
        for start in starts:
            step = start.step
            sides = groups.setdefault((step.block, step.topology), {"A": [], "B": []})
            sides[step.side] += self._measured_runs(start)
        return merge_differences(
            find_differences(sides["A"], sides["B"], components)
            for sides in groups.values()
            if sides["A"] and sides["B"]
        )

    def _measured_runs(self, start: GateStart) -> tuple[MeasuredRun, ...]:
        if start.folder not in self._measured:
            self._measured[start.folder] = runs_of_records(self.runs[start.folder], start.folder)
        return self._measured[start.folder]

    def evaluate(self) -> GateProgress:
        """Return the progress of the gate, from everything measured so far."""
        found = next_step(
            self.own_starts,
            self.runs,
            cells=self.request.cells,
            policy=self.request.rule,
            components=self.request.components,
        )
        if undeclared := self.differences.undeclared:
            error = (
                "A and B differ in more than the stacks: "
                + "; ".join(undeclared[:3])
                + (f"; and {len(undeclared) - 3} more" if len(undeclared) > 3 else "")
            )
            return replace(found, step=None, end=GateEnd(verdict=GateVerdict.ERROR, error=error))
        step = found.step
        if step is None or any(start.step.block == step.block for start in self.own_starts):
            return found
        if spent := self._spent(self.block_s(step.block - 1)):
            end = GateEnd(verdict=GateVerdict.NOT_ENOUGH, error=spent)
            return replace(found, step=None, end=end)
        return found

    def _spent(self, needed_s: float) -> str | None:
        """Return why the next block does not fit into the budget; None if it does.

        :param needed_s: seconds of the last block.
        """
        left_s = self.request.budget.left_s(self.held_s, self.state.gpus)
        if left_s is None or left_s > needed_s:
            return None
        return (
            f"the budget of {self.request.budget.text} does not cover another block: "
            f"{max(0.0, left_s):.0f} s are left, and the last block took {needed_s:.0f} s"
        )

    def block_s(self, block: int) -> float:
        """Return the seconds that a block took, with failed starts; 0 without one."""
        return sum(start.seconds for start in self.own_starts if start.step.block == block)

    @property
    def held_s(self) -> float:
        """Seconds that nodes were held so far, over all sessions of the gate."""
        now_s = 0.0 if self._held_since is None else self.clock() - self._held_since
        return self._held_before_s + now_s

    def run(self) -> tuple[GateProgress, Attribution | None]:
        """Measure until the gate is decided, or its budget is spent.

        :returns: its progress, and the component that made B worse, if requested.
        :raises PdserveError: if it cannot continue; it may be resumed.
        """
        self._held_before_s = self.state.held_s
        found = self.evaluate()
        if found.step is None and not isinstance(swap := self.next_swap(found), SwapStep):
            return found, swap
        with locked_system(self.request.system, self.user_state):
            sides = self._build_sides()
            with self._holding(sides) as held:
                self._drop_incomplete_block(held)
                found = self._until_decided(self.evaluate(), sides, held)
                return found, self._attribution(found, sides, held)

    def _drop_incomplete_block(self, held: StartContext) -> None:
        """Drop an incomplete block that was started on other nodes."""
        found = self.evaluate()
        swap = None if found.step else self.next_swap(found)
        step = swap.step if isinstance(swap, SwapStep) else found.step
        if step is None:
            return
        begun = [s for s in self.state.starts if _block_of(s.step) == _block_of(step)]
        nodes = {n for start in begun for record in self.runs[start.folder] for n in record.nodes}
        if gone := nodes - {host.name for host in held.allocation.hosts}:
            self.progress(
                f"{step.swap or f'block {step.block + 1}'} was begun on {', '.join(sorted(gone))}, "
                "which this session does not have: it is measured again"
            )
            kept = tuple(start for start in self.state.starts if start not in begun)
            self.state = replace(self.state, starts=kept)

    def next_swap(self, found: GateProgress) -> SwapStep | Attribution | None:
        """Return the next start of an attribution, or its result; None without one."""
        no_go = found.end is not None and found.end.verdict is GateVerdict.NO_GO
        if not (no_go and self.request.attribute):
            return None
        evidence = found.judgement.evidence if found.judgement else ()
        spent = self._spent(self._last_block_s())
        return next_swap(
            self.state.starts,
            self.runs,
            components=self.request.components,
            target=attribution_target(evidence, self.own_starts, self.request.cells),
            undeclared=lambda starts, names: self._differences_in(starts, names).undeclared,
            spent=f"{spent}; continue with --resume and a larger --budget" if spent else None,
        )

    def _last_block_s(self) -> float:
        """Return the seconds that the last block took, of the gate itself or with a swap."""
        starts = self.state.starts
        last = _block_of(starts[-1].step) if starts else None
        return sum(start.seconds for start in starts if _block_of(start.step) == last)

    def _attribution(
        self, found: GateProgress, sides: Mapping[str, GateSide], held: StartContext
    ) -> Attribution | None:
        """Return the component that made B worse; errors on the way do not change the NO-GO."""
        try:
            return self._attributed(found, sides, held)
        except PdserveError as error:
            why = f"the component was not found: {error_sentence(error)}"
            return Attribution(component=None, why=why)

    def _attributed(
        self, found: GateProgress, sides: Mapping[str, GateSide], held: StartContext
    ) -> Attribution | None:
        """Swap components until the one that made B worse is found."""
        swapped: dict[str, GateSide] = {}
        while isinstance(swap := self.next_swap(found), SwapStep):
            step, name = swap.step, swap.step.swap
            self.progress(
                f"{name}, start {step.place + 1} of 4: {step.side} on {step.topology}, "
                f"{len(swap.workloads)} loads"
            )
            if step.side == "B" and name not in swapped:
                swapped[name] = self._swapped(swap)
            side = swapped[name] if step.side == "B" else sides["A"]
            self.measure(step, swap.workloads, side, held)
        return swap

    def _swapped(self, swap: SwapStep) -> GateSide:
        """Build a stack with one component of the other."""
        a, b = self.request.baseline.stack, self.request.candidate.stack
        into, other = (a, b) if swap.into == "baseline" else (b, a)
        side = parse_side("B", swapped_text(into, other, swap.component), self.request.system)
        return build_side(side, self.request.system, self.progress)

    def _build_sides(self) -> dict[str, GateSide]:
        """Build both stacks, and check that they can be started.

        :raises InstallError: if one cannot be installed.
        """
        request = self.request
        built_sides: dict[str, GateSide] = {}
        for side in (request.baseline, request.candidate):
            built_sides[side.side] = built = build_side(side, request.system, self.progress)
            backend = backend_of(built.system)
            backend.check(built.system)
            if backend.deployer is None:
                for each in request.cells:
                    planned = plan_topology(
                        built.system, Topology.parse(each.topology), starting=True
                    )
                    backend.check_launch(built.system, planned.launch)
        packages = _packages_that_differ(built_sides["A"], built_sides["B"])
        self.state = replace(self.state, packages=packages)
        return built_sides

    @contextlib.contextmanager
    def _holding(self, sides: Mapping[str, GateSide]) -> Iterator[StartContext]:
        """Acquire nodes and start the client; measure how long the nodes are held."""
        system, session = self.request.system, self.state.sittings
        backend = backend_of(system)
        request = Request(folder=self.folder / f"{backend.name}-{session}", progress=self.progress)
        with redacting_files(self.folder), backend.acquire(system, request) as allocation:
            self._held_since = self.clock()
            try:
                self.state = replace(self.state, gpus=_gpus(allocation, self.request))
                yield from self._with_client(allocation, session, sides)
            finally:
                self._held_before_s = self.held_s
                self._held_since = None
                self._write()

    def _with_client(
        self, allocation: Allocation, session: int, sides: Mapping[str, GateSide]
    ) -> Iterator[StartContext]:
        system = self.request.system
        common = provenance_before(system, self.rootdir)
        held = StartContext(
            folder=self.folder,
            session=SessionRef(id=self.folder.name, started_at=self.state.began_at),
            allocation=allocation,
            bench=None,
            common=replace(
                common, versions={**allocation.find_versions(), **dict(common.versions)}
            ),
            progress=self.progress,
            clock=self.clock,
        )
        if backend_of(system).deployer is not None:
            yield held
            return
        check_pairs(self.request, held, rootdir=self.rootdir, user_state=self.user_state)
        stacks = [side.stack for side in sides.values()]
        images = provide_images(stacks, system, allocation, self.progress)
        if system.container.contained:
            own = held_nodes(allocation).image
            check_images(sides.values(), images, own, starts=self.own_starts, runs=self.runs)
        with bench_client(system, allocation, self.folder / f"client-{session}") as bench:
            yield replace(held, bench=bench, images=images)

    def _until_decided(
        self, found: GateProgress, sides: Mapping[str, GateSide], held: StartContext
    ) -> GateProgress:
        while found.step is not None:
            self.report_step(found)
            self.measure(found.step, found.workloads, sides[found.step.side], held)
            found = self.evaluate()
        return found

    def measure(
        self, step: GateStep, workloads: Sequence[str], side: GateSide, held: StartContext
    ) -> tuple[Record, ...]:
        """Run one start, and add it to the state."""
        loads = [self.request.loads[name] for name in workloads]
        start, records = run_start(step, len(self.state.starts), side, loads, held)
        self._runs[start.folder] = records
        self.state = replace(self.state, starts=(*self.state.starts, start))
        self._write()
        if start.why:
            self.progress(f"{start.folder}: {start.why}")
        return records

    def report_step(self, found: GateProgress) -> None:
        """Report the next start."""
        step = found.step
        assert step is not None
        again = f", try {step.attempt}" if step.attempt > 1 else ""
        control = ", to check that A still works" if step.control else ""
        self.progress(
            f"block {step.block + 1}, start {step.place + 1} of 4: {step.side} on {step.topology}, "
            f"{len(found.workloads)} loads{again}{control}"
        )

    def _write(self) -> None:
        self.state = replace(self.state, held_s=round(self.held_s, 3))
        write_state(self.folder, self.state)


def _block_of(step: GateStep) -> tuple[str, int]:
    """Return what identifies the block of a step, of the gate itself or with a swap."""
    return step.swap, step.block


def _packages_that_differ(a: GateSide, b: GateSide) -> tuple[str, ...]:
    """Return other packages that differ, e.g. ``numpy: 2.1 with A, 2.2 with B``."""
    if a.stack.python is None and b.stack.python is None:
        return ()
    ours, theirs = (
        side.stack
        if side.stack.python
        else replace(side.stack, python=python_of_system(side.system))
        for side in (a, b)
    )
    return tuple(
        f"{name}: {one or 'none'} with A, {other or 'none'} with B"
        for name, (one, other) in other_packages(ours, theirs).items()
        if name != OWN_PACKAGE
    )


def _gpus(allocation: Allocation, request: GateRequest) -> int:
    has_gpus = "gpu" in allocation.describe_nodes()
    system = request.system
    nodes = len(allocation.hosts) + len(spare_hosts(allocation))
    return held_by(system, nodes=nodes, has_gpus=has_gpus or None).gpus
