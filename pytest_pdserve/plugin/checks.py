"""Checks before a process is started."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from pathlib import PurePath

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.registry import client_kind
from pytest_pdserve.clients.flags import parse as parse_flags
from pytest_pdserve.judge.sanity import checks as sanity_checks
from pytest_pdserve.plan.bench import bench_flags
from pytest_pdserve.plan.capture import check_captured
from pytest_pdserve.plan.fits import check_sweep_fits
from pytest_pdserve.results.baselines import gpu_of_references
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import present_path
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.client_offsets import load_offsets
from pytest_pdserve.results.expected import expected_path
from pytest_pdserve.results.expected import load_expected
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.store import RUNS
from pytest_pdserve.results.store import check_runs_folder
from pytest_pdserve.serving.model import check_model
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.session.settings import Settings
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


def check_before_start(
    settings: Settings, topologies: Sequence[Topology], *, starting: bool, measuring: bool = True
) -> None:
    """Plan every topology, and read every file that the session will need.

    :param starting: whether servers will start; if not, only files and plans are checked.
    :param measuring: whether the benchmark client will run.
    :raises pytest.UsageError: with one sentence; pytest exits with 4.
    """
    system = settings.system
    try:
        sanity_checks()  # checks of other packages must load
        for topology in topologies:
            check_topology(system, topology, starting=starting)
        if starting:
            _check_prerequisites(system, measuring=measuring)
        _load_baselines(settings)
        load_offsets(system, settings.project.rootdir, client_kind(system))
        load_expected(expected_path(system, settings.project.rootdir))
        check_runs_folder(settings.project.runs)
        if starting and system.figures is None:
            _try_to_write(settings.project.runs)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error


def _check_prerequisites(system: System, *, measuring: bool) -> None:
    """Raise if this machine lacks something that the system needs for any topology.

    :raises ConfigError: with what is missing, and what to do.
    """
    backend = backend_of(system)
    backend.check(system)
    if measuring:
        backend.check_client(system)
        if backend.client_kind(system) == "precise":
            _check_precise(system)
    if not system.simulated:
        check_model(system, here=backend.serves_from_here and not system.container.contained)


def _check_precise(system: System) -> None:
    """Raise if the client ``precise`` cannot send the workloads of the sweep.

    :raises ConfigError: with the workload, or the missing package.
    """
    if importlib.util.find_spec("tokenizers") is None:
        raise ConfigError(
            f"the client precise needs the package tokenizers, which is not installed for "
            f"{sys.executable}; install pytest-pdserve[precise]"
        )
    for workload in system.sweep.workloads():
        flags = bench_flags(
            workload,
            system,
            base_url="http://127.0.0.1",
            seed=0,
            result=PurePath(tempfile.gettempdir(), "result.json"),
        )
        try:
            parse_flags(flags)
        except ValueError as error:
            raise ConfigError(f"{system.source}: workload {workload.id}: {error}") from error


def _try_to_write(folder: Path) -> None:
    """Create and remove a folder near *folder*, as permissions alone are not sufficient.

    A file system that is read-only, remote or full may reject it.

    :raises ConfigError: if it cannot be created.
    """
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    try:
        with tempfile.TemporaryDirectory(prefix=".pdserve-", dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(
            f"runs folder {folder} cannot be used: no folder can be created in {nearest} "
            f"({error.strerror}); choose another with {RUNS}"
        ) from error


def check_one_project(paths: Iterable[Path], rootdir: Path) -> None:
    """Raise if tests belong to another project than *rootdir*, with its own baselines.

    :raises pytest.UsageError: with one sentence.
    """
    for path in paths:
        for folder in path.resolve().parents:
            if folder == rootdir or folder in rootdir.parents:
                break
            own = folder / "baselines"
            if own not in SHIPPED and any(own.glob("*/system.toml")):
                raise pytest.UsageError(
                    f"{path} belongs to the project in {folder}, which has baselines/ of its own, "
                    f"but pytest's root is {rootdir}; run pytest in {folder}"
                )


def check_topology(system: System, topology: Topology, *, starting: bool) -> None:
    """Plan *topology*; if servers will start, check what they need.

    :raises PlacementError: if it does not fit.
    """
    backend = backend_of(system)
    if not backend.starts_servers:
        backend.serves(topology, system)
        return
    check_sweep_fits(system, topology)
    for workload in system.sweep.workloads():
        check_captured(workload, system, topology)
    planned = plan_topology(system, topology, starting=starting)
    if starting:
        backend.check_launch(system, planned.launch)


def _load_baselines(settings: Settings) -> None:
    system = with_model_path(settings.system)
    rootdir, backend = settings.project.rootdir, backend_of(system)
    hardware = backend.describe_hardware(system) if backend.knows_hardware else {}
    gpu = gpu_of_references(system, hardware)
    if gpu is not None or not system.judgement.host_references:
        load_baseline(present_path(system, rootdir, gpu=gpu), system=system)
    elif backend.knows_hardware:
        mark = fingerprint(hardware, system)
        path = host_baseline_path(system, mark, state_folder())
        load_baseline(path, fingerprint=mark, system=system)
