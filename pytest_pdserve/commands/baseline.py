"""``pdserve baseline show|propose|diff|accept``: baselines from stored nights."""

from __future__ import annotations

import argparse
from datetime import UTC
from datetime import date
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.commands.arguments import add_stored
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.arguments import next_lines
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.sources import changes

if TYPE_CHECKING:
    from pytest_pdserve.results.history import HistorySessions
    from pytest_pdserve.results.selection import Selection
    from pytest_pdserve.session.project import Project
    from pytest_pdserve.values.baseline import Baseline
    from pytest_pdserve.values.system import System

NAME = "baseline"
TEXT = "Show a baseline, or make one from stored nights: propose, diff, accept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _add_propose(steps)
    text = "Show the reference of each cell: median, spread, limit, age, smallest detectable change"
    show = steps.add_parser("show", help=text, description=text)
    add_system(show)
    text = "Show how the proposal differs from the baseline"
    diff = steps.add_parser("diff", help=text, description=text)
    add_system(diff)
    diff.add_argument("--all", action="store_true", help="Small changes too")
    text = "Replace the baseline by the proposal, and store who approved it"
    accept = steps.add_parser("accept", help=text, description=text)
    add_system(accept)
    accept.add_argument("--approver", required=True, metavar="NAME", help="Who approves it")
    accept.add_argument("--note", metavar="TEXT", help="Reason, stored in the file")
    for step in (show, diff, accept):
        step.add_argument(
            "--gpu",
            metavar="MODEL",
            help="GPU model whose baseline it is, e.g. nvidia-h200, where a system has several",
        )


def _add_propose(steps: Any) -> None:
    text = "Write a candidate baseline from stored nights, and print what it contains"
    propose = steps.add_parser("propose", help=text, description=text)
    add_stored(propose)
    propose.add_argument(
        "--last",
        type=int,
        default=RULE.max_nights,
        metavar="N",
        help="Newest nights of each cell (%(default)s)",
    )
    propose.add_argument(
        "--every-session",
        action="store_true",
        help="Use all sessions of a night, not only the first with a cell",
    )
    propose.add_argument(
        "--any-version",
        action="store_true",
        help="Use nights of all versions of vLLM, NIXL and the router, not only the newest",
    )
    propose.add_argument(
        "--history",
        type=Path,
        metavar="DIR",
        help="Use nights of this history too, without excluded nights and nights that FAILed "
        "(default: none)",
    )
    propose.add_argument(
        "--with-failed",
        action="store_true",
        help="With --history, use nights that FAILed too: to accept their level",
    )
    propose.add_argument(
        "--before", metavar="DATE", help="Only nights before this one, e.g. 2026-11-28"
    )


def run(options: argparse.Namespace) -> int:
    """Run one step, and print its result."""
    project = find_project(options)
    steps = {"show": _show, "propose": _propose, "diff": _diff, "accept": _accept}
    print(steps[options.step](options, project, system_in(project)))
    return 0


def _gpu(gpu: str | None, project: Project, system: System) -> str | None:
    """Return the GPU model whose baseline is meant; None where baselines are not by GPU model.

    :param gpu: value of ``--gpu``; None if it was not given.
    :raises ConfigError: if it is missing, or given in vain.
    """
    from pytest_pdserve.results.baselines import gpu_models

    if system.judgement.gpu_references:
        models = gpu_models(system, project.rootdir)
        if gpu is None and len(models) != 1:
            found = ", ".join(models) or "none yet"
            raise ConfigError(
                f"{system.name!r} has a baseline for each GPU model ({found}); name one by --gpu"
            )
        return gpu or models[0]
    if gpu is not None:
        raise ConfigError(
            f"--gpu {gpu!r:.80}: {system.name!r} has no baselines by GPU model ([judgement] "
            "gpu_references); leave it out"
        )
    return None


def _check_kept(system: System) -> None:
    """Raise if each host has its own references, in the state folder."""
    judgement = system.judgement
    if judgement.host_references and not judgement.gpu_references:
        raise ConfigError(
            f"{system.name!r} has references of each host ([judgement] host_references), "
            "which nights join automatically; to start again, move away the file that the "
            "session prints"
        )


def _show(options: argparse.Namespace, project: Project, system: System) -> str:
    from pytest_pdserve.report.references import reference_lines
    from pytest_pdserve.results.baselines import load_baseline
    from pytest_pdserve.results.baselines import present_path

    gpu = _gpu(options.gpu, project, system)
    path = present_path(system, project.rootdir, gpu=gpu)
    baseline = load_baseline(path, system=system)
    if baseline is None:
        raise ConfigError(
            f"{path} does not exist; make it with pdserve baseline propose --system {system.name}"
        )
    today = datetime.now(UTC).date()
    return "\n".join(reference_lines(baseline, system.judgement.all_floors, today))


def _propose(options: argparse.Namespace, project: Project, system: System) -> str:
    from pytest_pdserve.results.baselines import baseline_path
    from pytest_pdserve.results.baselines import gpu_of_references
    from pytest_pdserve.results.baselines import load_baseline
    from pytest_pdserve.results.baselines import present_path
    from pytest_pdserve.results.proposals import propose
    from pytest_pdserve.results.proposals import write_proposal

    if options.last < 1:
        raise ConfigError(f"--last {options.last}: at least one night is needed")
    if options.with_failed and options.history is None:
        raise ConfigError(
            "--with-failed without --history has no effect: such nights are used anyway; leave it "
            "out"
        )
    _check_kept(system)
    selection = _selected(options, project, system)
    gpu = gpu_of_references(system, selection.sessions[-1].records[0].host)
    path = baseline_path(system, project.rootdir, gpu=gpu)
    current = load_baseline(present_path(system, project.rootdir, gpu=gpu), system=system)
    proposal = propose(selection, system, path=path, last=options.last, current=current)
    written = write_proposal(proposal)
    return "\n".join(
        [
            f"proposal for {path}",
            *(f"  {reason}" for reason in proposal.reasons),
            *(f"  WARNING: {warning}" for warning in proposal.warnings),
            *(_moves(current, proposal.baseline, system) if current else ()),
            *next_lines(f"pdserve baseline diff --system {system.name}", written),
        ]
    )


def _selected(options: argparse.Namespace, project: Project, system: System) -> Selection:
    """Return the sessions for the proposal."""
    from pytest_pdserve.results.selection import select
    from pytest_pdserve.results.selection import without_failed

    selection = select(
        project.runs,
        system,
        options.run_ids,
        any_version=options.any_version,
        from_history=_from_history(options, system),
    )
    if options.history is not None and not (options.with_failed or options.run_ids):
        selection = without_failed(selection, project.runs)
    if options.before is not None:
        selection = selection.before(_date(options.before))
    if not options.every_session:
        selection = selection.one_per_night()
    return selection


def _from_history(options: argparse.Namespace, system: System) -> HistorySessions:
    from pytest_pdserve.history.store import Store
    from pytest_pdserve.history.stored_sessions import sessions_of_history
    from pytest_pdserve.results.history import MAX_NIGHTS
    from pytest_pdserve.results.history import NO_HISTORY

    if options.history is None:
        return NO_HISTORY
    newest = MAX_NIGHTS + options.last
    return sessions_of_history(Store.open(options.history), system.name, newest)


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ConfigError(f"--before {text!r:.80}: expected a date such as 2026-11-28") from error


def _moves(old: Baseline, new: Baseline, system: System) -> list[str]:
    """Return the metrics that change against the current baseline, and what else changed."""
    from pytest_pdserve.report.differences import difference_lines

    before, after = (each.newest.versions if each.newest else {} for each in (old, new))
    why = [*changes(old.host, new.host), *changes(before, after)]
    return [
        f"  against {old.origin}",
        *(f"  changed: {each}" for each in why or ["nothing that sessions record"]),
        *difference_lines(old, new, system.judgement.all_floors, everything=False),
    ]


def _diff(options: argparse.Namespace, project: Project, system: System) -> str:
    from pytest_pdserve.report.differences import difference_lines
    from pytest_pdserve.results.baselines import baseline_path
    from pytest_pdserve.results.baselines import load_baseline
    from pytest_pdserve.results.baselines import present_path
    from pytest_pdserve.results.proposals import load_proposal

    _check_kept(system)
    gpu = _gpu(options.gpu, project, system)
    path = baseline_path(system, project.rootdir, gpu=gpu)
    new = load_proposal(path, system)
    old = load_baseline(present_path(system, project.rootdir, gpu=gpu), system=system)
    floors = system.judgement.all_floors
    return "\n".join(
        [
            f"old  {old.origin if old else f'{path} does not exist'}",
            f"new  {new.origin}",
            *(f"  {change}" for change in changes(old.host if old else {}, new.host)),
            *difference_lines(old, new, floors, everything=options.all),
            *next_lines(f"pdserve baseline accept --system {system.name} --approver NAME"),
        ]
    )


def _accept(options: argparse.Namespace, project: Project, system: System) -> str:
    from pytest_pdserve.results.baselines import baseline_path
    from pytest_pdserve.results.proposals import accept

    _check_kept(system)
    gpu = _gpu(options.gpu, project, system)
    there = baseline_path(system, project.rootdir, gpu=gpu)
    path = accept(there, system, approver=options.approver, note=options.note)
    return "\n".join([f"accepted  {path}", *next_lines(f"git add {path}")])
