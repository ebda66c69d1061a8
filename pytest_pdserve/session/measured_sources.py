"""Resolve an argument of ``pdserve compare`` to measurements."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.baselines import gpu_models
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import present_path
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.history import session_folders
from pytest_pdserve.results.history import session_of
from pytest_pdserve.results.history import stored_session
from pytest_pdserve.results.imported import read_results
from pytest_pdserve.results.measured import is_simulated
from pytest_pdserve.results.measured import runs_of_baseline
from pytest_pdserve.results.measured import runs_of_figures
from pytest_pdserve.results.measured import runs_of_records
from pytest_pdserve.results.measured import runs_of_results
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.store import load_record
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.session.project import Project
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.measurements import Measurements
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

SYSTEM_FILE = "system.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class SideOptions:
    """Options of one side of a comparison, in addition to its argument."""

    topology: Topology | None = None
    """Topology of results of other tools; None if unknown."""
    dataset: str | None = None
    """Data set of results that do not name theirs."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the software that served them."""
    system: str | None = None
    """System to choose if there are several."""
    client: str | None = None
    """Kind of client to choose if there are several."""
    only: Mapping[str, str] = field(default_factory=dict)
    """Version by component; only runs with these versions are chosen."""


def find_measurements(argument: str, project: Project, options: SideOptions) -> Measurements:
    """Return the measurements of an argument.

    The argument is a file, a folder, the name of a session in the project's runs folder, or the
    name of a system with figures or a baseline.

    :raises ConfigError: if it is none of these, cannot be read, or no run matches *options*.
    """
    if not argument:
        raise ConfigError("'' is not a side of a comparison: expected a file, a folder or a name")
    path = Path(argument)
    session = project.runs / argument
    if os.path.isdir(path):
        found = _of_folder(path.resolve(), project, options)  # a session's folder has its name
    elif is_there(path):
        found = _of_file(path, project, options)
    elif path.name == argument and argument != ".." and session_of(session) is not None:
        found = _of_sessions([session])
    else:
        found = _of_system(_system_called(argument, project), project)
    return _chosen(replace(found, name=argument), options)


def _of_file(path: Path, project: Project, options: SideOptions) -> Measurements:
    if path.suffix.lower() == ".toml":
        return _of_figures(path, _system_beside(path))
    data = _stored_data(path)
    if "suite" in data and isinstance(name := data.get("system"), str):
        folders = (path.resolve().parent.parent, *project.baseline_folders)
        return _of_baseline(path, load_system(name, folders))
    if "metrics" in data and "session" in data:
        runs = runs_of_records([load_record(path)], str(path))
        return Measurements(name="", what="record", evidence="start", runs=runs)
    return _of_results(path, options)


def _stored_data(path: Path) -> dict[str, Any]:
    """Return the content of a file written by pdserve; empty for other files."""
    try:
        data = load_json(path)
    except ConfigError:  # a result of another tool, whose reader reports what is wrong
        return {}
    return data if isinstance(data, dict) and "schema_version" in data else {}


def _of_results(path: Path, options: SideOptions) -> Measurements:
    results, left_out = read_results([path], options.dataset)
    runs = runs_of_results(results, options.topology, options.versions)
    tools = ", ".join(dict.fromkeys(run.client for run in runs))
    what = f"{_several(len(runs), 'result')} of {tools}"
    return Measurements(name="", what=what, evidence="start", runs=runs, left_out=left_out)


def _of_folder(path: Path, project: Project, options: SideOptions) -> Measurements:
    if is_there(path / SYSTEM_FILE):
        return _of_system(load_system(path.name, [path.parent]), project)
    if session_of(path) is not None:
        return _of_sessions([path])
    try:
        folders = [folder for folder, _ in session_folders(path)]
    except OSError as error:  # e.g. no permission, or removed meanwhile
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return _of_sessions(folders) if folders else _of_results(path, options)


def _of_sessions(folders: Sequence[Path]) -> Measurements:
    unreadable: list[str] = []
    records: list[Record] = []
    sessions = 0
    for folder in folders:
        ref = session_of(folder)
        found = ref and stored_session(folder, system=ref.system, unreadable=unreadable)
        if found:
            records += found.records
            sessions += 1
    if not records:
        more = f": {unreadable[0]}" if unreadable else ""
        raise ConfigError(f"{folders[0]} has no readable record{more}")
    where = str(folders[0] if len(folders) == 1 else folders[0].parent)
    return Measurements(
        name="",
        what=_several(sessions, "session"),
        evidence="start",
        runs=runs_of_records(records, where),
        left_out=tuple(unreadable),
    )


def _system_called(name: str, project: Project) -> System:
    try:
        return load_system(name, project.baseline_folders)
    except ConfigError as error:
        raise ConfigError(
            f"{name!r:.200} is not a file, a folder, a session in {project.runs}, or a system that "
            f"can be used: {error}"
        ) from error


def _system_beside(path: Path) -> System | None:
    """Return the system of a file of figures; None if its folder has no system file."""
    folder = path.resolve().parent
    return load_system(folder.name, [folder.parent]) if is_there(folder / SYSTEM_FILE) else None


def _of_system(system: System, project: Project) -> Measurements:
    """Return the figures of a system, or its stored baseline.

    :raises ConfigError: if it has neither.
    """
    if system.figures is not None:
        return _of_figures(figures_path(system), system)
    models = gpu_models(system, project.rootdir) if system.judgement.gpu_references else ()
    path = present_path(system, project.rootdir, gpu=models[0] if len(models) == 1 else None)
    if not is_there(path):
        raise ConfigError(
            f"system {system.name!r} has no baseline ({path} does not exist); name a file, such as "
            "the one of this host that a session prints, or a session"
        )
    return _of_baseline(path, system)


def _of_figures(path: Path, system: System | None) -> Measurements:
    figures = load_figures(path)
    name = system.name if system else path.stem
    host = measured_on({}, system) if system else {}
    runs = runs_of_figures(figures, name, host)
    return Measurements(name="", what=f"figures: {figures.title}", evidence="reading", runs=runs)


def _of_baseline(path: Path, system: System) -> Measurements:
    baseline = load_baseline(path, system=system)
    if baseline is None or not baseline.keys:
        raise ConfigError(f"{path} is a baseline without any cell: expected one with nights")
    workloads = {workload.id: workload for workload in system.sweep.workloads()}
    return Measurements(
        name="",
        what=f"baseline of {system.name}, {_several(len(baseline.sessions), 'night')}",
        evidence="night",
        runs=runs_of_baseline(baseline, workloads, simulated=system.simulated),
    )


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _chosen(found: Measurements, options: SideOptions) -> Measurements:
    """Return the runs that match *options*, all of one system and one kind of client.

    :raises ConfigError: if there are none, or several systems or kinds and no option chooses one.
    """
    runs = found.runs
    for component, version in options.only.items():
        runs = _with_version(found.name, runs, component, version)
    for what, wanted in (("system", options.system), ("client", options.client)):
        kinds = sorted({kind for run in runs if (kind := getattr(run, what)) is not None})
        if wanted is not None and kinds and wanted not in kinds:
            raise ConfigError(
                f"{found.name} has no run with --{what} {wanted!r:.80}: expected one of "
                + ", ".join(kinds)
            )
        if len(kinds) < 2:
            continue
        if wanted is None:
            raise ConfigError(
                f"{found.name} holds runs of several {what}s ({', '.join(kinds)}): choose one with "
                f"--{what}"
            )
        runs = tuple(run for run in runs if getattr(run, what) == wanted)
    simulated = ", SIMULATED, no server ran" if any(map(is_simulated, runs)) else ""
    return replace(found, runs=runs, what=f"{found.what}{simulated}")


def _with_version(
    name: str, runs: tuple[MeasuredRun, ...], component: str, version: str
) -> tuple[MeasuredRun, ...]:
    versions = [run.facts.get("versions", {}).get(component) for run in runs]
    kept = tuple(run for run, own in zip(runs, versions, strict=True) if own == version)
    if not kept:
        known = ", ".join(sorted({own for own in versions if own is not None}))
        expected = f"expected one of {known}" if known else "none of its runs records one"
        raise ConfigError(f"{name} has no run with {component} = {version!r:.80}: {expected}")
    return kept
