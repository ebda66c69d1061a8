"""``pdserve plan``: print everything that would run, or explore topologies by simulation."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import add_topology
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.topology import parse_topologies

if TYPE_CHECKING:
    from pytest_pdserve.session.project import Project
    from pytest_pdserve.values.system import System
    from pytest_pdserve.values.topology import Topology

NAME = "plan"
TEXT = "Print every command that would run, with its environment; start nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_topology(parser)
    add_system(parser)
    add_runs(parser)
    _add_explore(parser)


def _add_explore(plan: argparse.ArgumentParser) -> None:
    group = plan.add_argument_group("explore", "simulate which topologies meet a target")
    add = group.add_argument
    add("--explore", action="store_true", help="Simulate all topologies on --nodes nodes")
    add("--input-len", default="512", metavar="N[,N…]", help="Prompt lengths (%(default)s)")
    add("--output-len", default="256", metavar="N[,N…]", help="Output lengths (%(default)s)")
    add("--rate", default="inf", metavar="R", help="Arrivals, req/s; inf for all at once")
    add("--slo-ttft-ms", default="inf", metavar="MS", help="Largest acceptable mean TTFT")
    add("--slo-itl-ms", default="inf", metavar="MS", help="Largest acceptable mean ITL")
    add("--num-prompts", default="1024", metavar="N", help="Requests simulated (%(default)s)")
    add("--nodes", metavar="N", help="Nodes (default: from the system file)")
    add("--fresh", action="store_true", help="Empty prefix caches, also for the sweep's own cells")
    add("--seed", default="0", metavar="N", help="Seed of lengths, arrivals, routing (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Print the plan of each topology, or explore."""
    project = find_project(options)
    topologies = parse_topologies(project.topology)
    system = system_in(project)
    if options.explore:
        return _explore(options, system)
    texts = [plan_text(system, topology) for topology in topologies]
    print("\n".join([*_forecast_lines(project, system, topologies), *texts]))
    return 0


def _forecast_lines(
    project: Project, system: System, topologies: Sequence[Topology]
) -> Iterator[str]:
    """Yield a forecast of a session of smoke and sweep on *topologies*."""
    from pytest_pdserve.report.phases import forecast_line
    from pytest_pdserve.session.forecasting import PlannedSession
    from pytest_pdserve.session.forecasting import cells_with_reference
    from pytest_pdserve.session.forecasting import forecast_session

    if system.simulated or system.figures is not None:
        return
    names = [topology.id for topology in topologies]
    planned = PlannedSession(
        cells=dict.fromkeys(names, system.sweep.workloads()),
        other_tests=names,
        repeats=project.repeats(system),
        first_runs=project.first_runs,
    )
    cells = cells_with_reference(system, project)
    forecast = forecast_session(system, planned, runs=project.runs, with_reference=cells)
    if forecast is not None:
        yield f"# a session takes {forecast_line(forecast)}"


def plan_text(system: System, topology: Topology) -> str:
    """Return everything that would run for *topology*, as shell commands."""
    from pytest_pdserve.backends.planned import plan_topology
    from pytest_pdserve.backends.registry import backend_of

    planned = plan_topology(system, topology)
    used = len(planned.launch.placement.nodes)
    idle = system.cluster.nodes - used
    lines = [
        f"# {topology.id} on {system.name} ({system.description}): {used} nodes"
        + (f", {idle} idle" if idle else "")
        + "; {braces} are filled in by the allocation"
    ]
    if notes := backend_of(system).plan_lines(system):
        lines += ["", *(f"# {line}" for line in notes)]
    for command in planned.commands:
        lines += ["", f"# {command.name} on {command.node}", command.render()]
    return "\n".join(lines) + "\n"


def _explore(options: argparse.Namespace, system: System) -> int:
    from pytest_pdserve.study.explore import explore
    from pytest_pdserve.study.explore import question_of
    from pytest_pdserve.study.explore import render
    from pytest_pdserve.study.explore import replays

    question = question_of(vars(options), system)
    answers = explore(question, system)
    print(render(question, answers, replayed=replays(question, system)))
    return 0
