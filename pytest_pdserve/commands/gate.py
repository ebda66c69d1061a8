"""``pdserve gate``: decide whether a version of vLLM, NIXL or the router may be rolled out."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import add_topology
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate_budget import parse_budget
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies

if TYPE_CHECKING:
    from pytest_pdserve.gating.request import GateRequest
    from pytest_pdserve.gating.running import GateRun
    from pytest_pdserve.session.project import Project
    from pytest_pdserve.values.gate import GateResult
    from pytest_pdserve.values.gate_state import GateState

NAME = "gate"
TEXT = "Compare two stacks on the same nodes: GO, NO-GO or NOT ENOUGH EVIDENCE"
DESCRIPTION = (
    f"{TEXT}. Both are started in turns, in blocks A B B A, and measured with the same loads "
    "(docs/gate.md). Exit codes: 0 GO, 1 NO-GO, 2 interrupted, 4 bad input, 6 NOT ENOUGH EVIDENCE, "
    "7 ERROR"
)
CODES = {
    GateVerdict.GO: ExitCode.OK,
    GateVerdict.NO_GO: ExitCode.FAIL,
    GateVerdict.NOT_ENOUGH: ExitCode.NOT_JUDGED,
    GateVerdict.ERROR: ExitCode.ERROR,
}
"""Exit code by verdict."""
_STORED = ("baseline", "candidate", "topology", "cells", "policy", "attribute")
"""Options that are stored in the folder of an interrupted gate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--baseline", metavar="STACK", help="Stack A, which is in use now, e.g. 'current'")
    add(
        "--candidate",
        metavar="STACK",
        help="Stack B, e.g. 'vllm==0.32.0 nixl==1.5.1', 'python:PATH', 'image:NAME' or "
        "'serve-args:--flag=value' (docs/stacks.md)",
    )
    add_system(parser)
    add_topology(parser)
    add_runs(parser)
    _add_limits(parser)
    add(
        "--plan",
        action="store_true",
        help="Print what would run and how long it takes; start nothing",
    )
    add(
        "--attribute",
        action="store_true",
        help="After a NO-GO, swap components one at a time to find the cause",
    )
    add(
        "--resume",
        type=Path,
        metavar="DIR",
        help="Continue an interrupted gate from its folder; only --budget, --system and the "
        "project may be given with it",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for cells, budget and margins."""
    add = parser.add_argument
    add(
        "--cells",
        metavar="PATTERN[,PATTERN…]",
        help="Cells to measure: loads, or topology/load, with * and ? (default: the whole sweep)",
    )
    add(
        "--budget",
        metavar="BUDGET",
        help="Maximum cost, e.g. 8blocks, 90min or 240GPU-min, or several with commas "
        "(default: 8blocks)",
    )
    add(
        "--policy",
        type=Path,
        metavar="FILE",
        help="TOML file with margins (default: 3 %%, and 10 %% of mean TTFT)",
    )


def run(options: argparse.Namespace) -> int:
    """Run or continue a gate; write and print its result."""
    from filelock import FileLock
    from filelock import Timeout

    from pytest_pdserve.results.gate import load_state
    from pytest_pdserve.results.store import check_runs_folder

    resumed = _resumed(options)
    project = find_project(options)
    request = _request(options, project, resumed)
    if options.plan:
        print("\n".join(_plan_lines(request, project)))
        return ExitCode.OK
    check_runs_folder(project.runs)
    for number in (signal.SIGTERM, signal.SIGINT):  # a background job inherits SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    folder = _folder(options, project, request)
    try:
        with FileLock(folder / ".lock", timeout=0):
            # Read again: another process may have continued it until now.
            state = None if resumed is None else load_state(folder)
            return _decide(_gate_run(folder, project, request, state))
    except Timeout as error:
        raise ConfigError(f"{folder} is in use by another pdserve gate; wait for it") from error


def _decide(gate_run: GateRun) -> int:
    """Run a gate until there is a verdict; write and print it."""
    print(f"pdserve gate: folder {gate_run.folder}", file=sys.stderr, flush=True)
    try:
        result = _measured(gate_run)
    except KeyboardInterrupt:
        print(
            f"pdserve gate: interrupted; continue with: pdserve gate --resume {gate_run.folder}",
            file=sys.stderr,
        )
        return ExitCode.INTERRUPTED
    return _tell(result, gate_run.folder)


def _resumed(options: argparse.Namespace) -> GateState | None:
    """Return the state of the gate to continue; set the options that it contains.

    :raises ConfigError: if there is none, or options are missing or contradict it.
    """
    if options.resume is None:
        for name in ("baseline", "candidate"):
            if getattr(options, name) is None:
                raise ConfigError(
                    f"--{name} is missing: name a stack, e.g. 'current' or 'vllm==0.32.0'"
                )
        return None
    from pytest_pdserve.results.gate import load_state

    for name in _STORED:
        if getattr(options, name):
            raise ConfigError(
                f"--{name} cannot be given with --resume: it is stored in the folder; leave it "
                "out, or begin a new gate"
            )
    state = load_state(options.resume)
    definition = state.definition
    options.baseline, options.candidate = definition.baseline, definition.candidate
    options.attribute = definition.attribute
    options.topology = ",".join(each.topology for each in definition.cells)
    if options.system is None:
        options.system = definition.system
    if options.budget is None:
        options.budget = definition.budget.text
    return state


def _request(
    options: argparse.Namespace, project: Project, resumed: GateState | None
) -> GateRequest:
    """Return the request for a gate.

    :raises ConfigError: if it is invalid, or differs from the interrupted gate.
    """
    from pytest_pdserve.gating.request import changed_since
    from pytest_pdserve.gating.request import changed_system
    from pytest_pdserve.gating.request import make_request

    policy = resumed.definition.policy if resumed else _policy(options)
    system = system_in(project)
    if resumed:
        _refuse(options.resume, changed_system(resumed.definition, system))
    request = make_request(
        system,
        stacks=(options.baseline, options.candidate),
        topologies=_topologies(project),
        patterns=_patterns(options, resumed),
        policy=policy,
        budget=parse_budget(options.budget, max_blocks=policy.max_blocks),
        attribute=options.attribute,
    )
    if resumed:
        _refuse(options.resume, changed_since(resumed.definition, request.definition))
    return request


def _refuse(folder: Path, why: str | None) -> None:
    """Raise ConfigError if an interrupted gate differs from this one."""
    if why is not None:
        raise ConfigError(
            f"{folder} cannot be continued: {why}; undo the change, or begin a new gate"
        )


def _topologies(project: Project) -> tuple[Topology, ...]:
    return parse_topologies(project.topology)


def _policy(options: argparse.Namespace) -> GatePolicy:
    from pytest_pdserve.results.gate import load_policy

    return GatePolicy() if options.policy is None else load_policy(options.policy)


def _patterns(options: argparse.Namespace, resumed: GateState | None) -> list[str]:
    """Return the patterns of cells."""
    if resumed is not None:
        cells = resumed.definition.cells
        return [f"{each.topology}/{load}" for each in cells for load in each.workloads]
    if options.cells is None:
        return []
    words = [word.strip() for word in options.cells.split(",")]
    if not all(words):
        raise ConfigError(f"--cells {options.cells!r:.80} has an empty pattern; remove a comma")
    return words


def _progress(text: str) -> None:
    print(f"pdserve gate: {text}", file=sys.stderr, flush=True)


def _folder(options: argparse.Namespace, project: Project, request: GateRequest) -> Path:
    """Return the folder of the interrupted gate, or a new one."""
    from pytest_pdserve.results.gate import create_gate

    if options.resume is not None:
        return Path(options.resume).absolute()
    return create_gate(project.runs, request.system.name)


def _gate_run(
    folder: Path, project: Project, request: GateRequest, resumed: GateState | None
) -> GateRun:
    """Return the gate to run; write its state.

    :param resumed: state of the interrupted gate in *folder*.
    """
    from pytest_pdserve.gating.running import GateRun
    from pytest_pdserve.results.baselines import state_folder
    from pytest_pdserve.results.gate import write_state
    from pytest_pdserve.values.gate_state import GateState
    from pytest_pdserve.values.sessions import utc_text

    if resumed is None:
        state = GateState(definition=request.definition, began_at=utc_text(datetime.now(UTC)))
    else:
        state = replace(resumed, definition=request.definition, sittings=resumed.sittings + 1)
    write_state(folder, state)
    return GateRun(
        request=request,
        folder=folder,
        state=state,
        rootdir=project.rootdir,
        user_state=state_folder(),
        progress=_progress,
    )


def _measured(gate_run: GateRun) -> GateResult:
    """Run a gate until there is a result; turn infrastructure errors into one."""
    from pytest_pdserve.gating.starts import error_sentence
    from pytest_pdserve.gating.verdict import failed_result
    from pytest_pdserve.gating.verdict import result_of

    try:
        return result_of(gate_run, *gate_run.run())
    except PlacementError as error:
        if not gate_run.state.starts:
            raise  # it does not fit at all, and so is bad input
        return failed_result(gate_run, error_sentence(error))
    except ConfigError:
        raise
    except PdserveError as error:
        return failed_result(gate_run, error_sentence(error))


def _tell(result: GateResult, folder: Path) -> int:
    """Write and print a result.

    :returns: its exit code.
    """
    from pytest_pdserve.report.gate import gate_lines
    from pytest_pdserve.report.gate import gate_markdown
    from pytest_pdserve.results.gate import RESULT_FILE
    from pytest_pdserve.results.gate import TEXT_FILE
    from pytest_pdserve.results.gate import write_result

    write_result(folder, result, gate_markdown(result))
    print("\n".join(gate_lines(result)))
    print(f"written   {folder / RESULT_FILE}, {folder / TEXT_FILE}")
    return CODES[result.verdict]


def _plan_lines(request: GateRequest, project: Project) -> Iterator[str]:
    from pytest_pdserve.gating.planning import plan_gate
    from pytest_pdserve.report.gate_plan import plan_lines

    yield from plan_lines(plan_gate(request, project.runs))
