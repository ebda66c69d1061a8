"""Command-line options, their ini keys, and the settings that result from both."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_pdserve.plugin.dependencies import check_dependencies
from pytest_pdserve.session.project import DEFAULT_HISTORY
from pytest_pdserve.session.project import DEFAULT_RUNS
from pytest_pdserve.session.project import DEFAULT_SYSTEM
from pytest_pdserve.session.project import DEFAULT_TOPOLOGY
from pytest_pdserve.session.project import INI_LISTS
from pytest_pdserve.session.project import NIGHTLY
from pytest_pdserve.session.project import flag_value
from pytest_pdserve.session.project import ini_value
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.topology import parse_topologies
from pytest_pdserve.values.until import parse_until

if TYPE_CHECKING:
    from pytest_pdserve.session.project import Project
    from pytest_pdserve.session.settings import Settings
    from pytest_pdserve.values.system import System

_SWITCHES = ("no_record", "strict", "share_engines")
_FLAGS = (
    *("topology", "system", "base_url", "model", "instance_url", "job_id", "runs"),
    "history",
    *("repeats", "first_runs", "report", "stack", "until"),
    *_SWITCHES,
)

settings_key = pytest.StashKey["Settings"]()


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its ini key; options have no default of their own."""
    group = parser.getgroup("pdserve", "prefill/decode serving")
    _add_where(group.addoption)
    _add_history(group.addoption)
    _add_stack(group.addoption)
    _add_until(group.addoption)
    _add_endpoint(group.addoption)
    _add_how(group.addoption)
    _add_ini_keys(parser)


def _add_where(add: Callable[..., None]) -> None:
    """Declare options for topologies, system, nodes, and folders of records."""
    add(
        "--topology",
        dest="pdserve_topology",
        metavar="ID[,ID…]",
        help="Topologies to measure: dp, route2, 1p3d, 2x1p1d-tp4, …, or all for the article's "
        f"five (default: {DEFAULT_TOPOLOGY})",
    )
    add(
        "--system",
        dest="pdserve_system",
        metavar="NAME",
        help="System to measure on, a folder of baselines/ with a system.toml "
        f"(default: {DEFAULT_SYSTEM})",
    )
    add(
        "--pdserve-job-id",
        metavar="ID",
        help="Use the nodes of a running Slurm job, and leave it running (default: none)",
    )
    add(
        "--pdserve-runs",
        metavar="DIR",
        help=f"Folder for records and logs (default: {DEFAULT_RUNS})",
    )
    add(
        "--pdserve-report",
        metavar="FILE",
        help="Write the session's report to this file too; the suffix selects the format: .html, "
        ".md, .json or .prom (Prometheus) (default: none)",
    )


def _add_history(add: Callable[..., None]) -> None:
    """Declare the option for a history of earlier nights."""
    add(
        "--pdserve-history",
        metavar="DIR",
        help="History whose nights count as earlier nights too, without excluded nights "
        f"(default: {DEFAULT_HISTORY} in the root, if it exists)",
    )


def _add_stack(add: Callable[..., None]) -> None:
    """Declare the option for another stack."""
    add(
        "--pdserve-stack",
        metavar="STACK",
        help="Serve with another stack than the system's own, e.g. 'vllm==0.15.1 nixl==0.10.0'; "
        "its environment is built first if needed (default: none)",
    )


def _add_until(add: Callable[..., None]) -> None:
    """Declare the option for the deadline of the session."""
    add(
        "--pdserve-until",
        metavar="HH:MM",
        help="End the session by this local time, or by a time such as 2026-11-29T06:00+01:00: "
        "cells that were suspicious last night come first, then those measured longest ago, and "
        "what there is no time for is left out and listed (default: none)",
    )


def _add_endpoint(add: Callable[..., None]) -> None:
    """Declare options for servers that are already running."""
    add(
        "--pdserve-base-url",
        metavar="URL",
        help="Measure a running endpoint, and start no servers; "
        "its API key is read from PDSERVE_API_KEY (default: none)",
    )
    add(
        "--pdserve-model",
        metavar="NAME",
        help="Name of the endpoint's model, one of its /v1/models (default: the only one there)",
    )
    add(
        "--pdserve-instance-url",
        metavar="ROLE=URL",
        action="append",
        help="An instance behind the endpoint, whose counters then prove the path: "
        "prefill=URL, decode=URL or aggregated=URL, once for each instance (default: none)",
    )


def _add_how(add: Callable[..., None]) -> None:
    """Declare options for repetitions and verdicts."""
    add(
        "--pdserve-repeats",
        metavar="N",
        help="Runs of each cell on every start of its servers; the first is judged (default: "
        "from the system file, else 1)",
    )
    add(
        "--pdserve-first-runs",
        metavar="N",
        help="Fresh starts on which a cell without a reference is measured; 1 saves starts, and "
        f"limits are wide for the first nights (default: {RULE.first_starts})",
    )
    add(
        "--pdserve-share-engines",
        action="store_true",
        default=None,
        help="Start instances once for all topologies that differ only in the roles of their "
        "instances (default: from the system file, else off)",
    )
    add(
        "--pdserve-no-record",
        action="store_true",
        default=None,
        help="Write no reference: no night of this session joins the baseline (default: off)",
    )
    add(
        "--pdserve-strict",
        action="store_true",
        default=None,
        help="Fail on NEW, SUSPICIOUS, INCONCLUSIVE, NOT JUDGED, unproven runs, pdserve_requires "
        "skips, baseline cells missing in a whole sweep, and expected changes that are expired or "
        "unused (default: off)",
    )


def _add_ini_keys(parser: pytest.Parser) -> None:
    """Declare the ini key of every option; without a default of its own, so that options win."""
    for name in _FLAGS:
        flag = f"--{name}" if name in ("topology", "system") else f"--pdserve-{name}"
        typed: Any = "bool" if name in _SWITCHES else "linelist" if name in INI_LISTS else None
        text = f"Default of {flag.replace('_', '-')}"
        parser.addini(f"pdserve_{name}", text, type=typed, default=None)
    for name in NIGHTLY:
        what = name.removeprefix("nightly_")
        text = f"Default of {what} of pdserve nightly, one argument per line"
        parser.addini(f"pdserve_{name}", text, type="linelist", default=None)


def has_pdserve_options(config: pytest.Config) -> bool:
    """Tell whether the command line has options of pdserve."""
    return any(config.getoption(f"pdserve_{name}") is not None for name in _FLAGS)


def wants_report(config: pytest.Config) -> bool:
    """Tell whether an option or an ini key names a file for the session's report.

    :raises pytest.UsageError: if the ini key cannot be read.
    """
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist
        return False
    try:
        return _value(config, "report", default=None) is not None
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error


def settings_of(config: pytest.Config) -> Settings:
    """Return the session's settings, which are read once.

    :raises pytest.UsageError: if an option or the system file cannot be used.
    """
    if settings_key not in config.stash:
        try:
            config.stash[settings_key] = _read(config)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[settings_key]


def _read(config: pytest.Config) -> Settings:
    check_dependencies()
    from pytest_pdserve.backends.attached import with_endpoint
    from pytest_pdserve.backends.systems import load_system
    from pytest_pdserve.backends.systems import sharing_engines
    from pytest_pdserve.session.project import project_of
    from pytest_pdserve.session.settings import Settings

    project = project_of(config, config.option)
    _check_history(project)
    topologies = parse_topologies(project.topology)
    system = load_system(project.system, project.baseline_folders)
    base_url = _value(config, "base_url", default=None)
    attached = with_endpoint(
        system,
        base_url,
        model=_value(config, "model", default=None),
        instance_urls=_value(config, "instance_url", default=()),
    )
    if base_url and system.figures is not None:
        raise ConfigError(
            f"--pdserve-base-url {base_url} cannot be measured as system {system.name!r}, which "
            "consists of figures; choose another --system"
        )
    if _value(config, "share_engines", default=False):
        attached = sharing_engines(attached)
    if (stack := _value(config, "stack", default=None)) is not None:
        attached = _with_stack(attached, str(stack))
    return Settings(
        job_id=_job_id(_value(config, "job_id", default=None), system),
        topologies=topologies,
        system=attached,
        project=project,
        repeats=project.repeats(system),
        first_runs=project.first_runs,
        record=not _value(config, "no_record", default=False),
        strict=bool(_value(config, "strict", default=False)),
        until=_until(_value(config, "until", default=None)),
        report=_report_path(config, project),
    )


def _value(config: pytest.Config, name: str, default: Any) -> Any:
    flag = flag_value(config.option, name)
    if flag is not None:
        return flag
    ini = ini_value(config, name)
    return default if ini is None else ini


def _report_path(config: pytest.Config, project: Project) -> Path | None:
    """Return the file for the report; a path in an ini key is relative to pytest's root.

    :raises ConfigError: if its suffix is not a format.
    """
    from pytest_pdserve.report.writing import format_of

    flag, ini = flag_value(config.option, "report"), ini_value(config, "report")
    if flag is None and ini is None:
        return None
    folder = project.rootdir if flag is None else config.invocation_params.dir
    path = folder / str(ini if flag is None else flag)
    format_of(path)
    return path


def _with_stack(system: System, text: str) -> System:
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.backends.stacks import build_stack
    from pytest_pdserve.backends.stacks import parse_stack
    from pytest_pdserve.backends.stacks import stacks_folder
    from pytest_pdserve.backends.stacks import system_with_stack

    if backend_of(system).deployer is not None or not backend_of(system).starts_servers:
        raise ConfigError(
            f"--pdserve-stack {text!r:.80} needs a system whose servers pdserve starts; "
            f"{system.name!r} has none"
        )
    return system_with_stack(
        system, build_stack(parse_stack(text, system), system, stacks_folder())
    )


def _until(text: str | None) -> datetime | None:
    return None if text is None else parse_until(text, datetime.now(UTC))


def _check_history(project: Project) -> None:
    """Raise if the history does not exist, before anything starts.

    :raises ConfigError: with the folder.
    """
    folder = project.history
    if folder is not None and not os.path.isdir(folder):
        raise ConfigError(
            f"--pdserve-history {str(folder)!r:.200}: expected a folder; make it with pdserve "
            "history import"
        )


def _job_id(text: str | None, system: System) -> str | None:
    if text is None:
        return None
    from pytest_pdserve.backends.registry import backend_of

    if not (str(text).isascii() and str(text).isdecimal()):
        raise ConfigError(f"--pdserve-job-id {text!r:.80} is not a Slurm job ID")
    if not (backend := backend_of(system)).takes_jobs:
        raise ConfigError(
            f"--pdserve-job-id {text} needs a system of kind slurm; {system.name!r} is of kind "
            f"{backend.name!r}"
        )
    return str(text)
