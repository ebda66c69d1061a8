"""Everything that can be found wrong before a process is started."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from pytest_pdserve.cluster.local import check_memory
from pytest_pdserve.judge.sanity import checks as sanity_checks
from pytest_pdserve.options import Settings
from pytest_pdserve.plan.host import planned_hosts
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.plan.ports import Claim
from pytest_pdserve.plan.ports import unclaimed
from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.results.calibration import load_calibration
from pytest_pdserve.results.store import check_runs_folder
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.session import SUITE
from pytest_pdserve.session import check_acquirable
from pytest_pdserve.session import host_of
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology


def check_before_start(
    settings: Settings, topologies: Sequence[Topology], *, touching: bool
) -> None:
    """Place every topology and read every file that the session will need.

    :param touching: whether servers will really start; if not, memory and ports are not looked at.
    :raises pytest.UsageError: with one sentence; pytest exits with 4.
    """
    try:
        sanity_checks()  # those of other packages must load
        if settings.base_url is None:
            for topology in topologies:
                check_topology(settings.system, topology, touching=touching)
            if touching:
                check_acquirable(settings.system)
        _load_shared_baseline(settings)
        load_calibration(settings.system)
        if settings.system.judgement.host_envelopes and settings.system.cluster.kind == "local":
            _load_host_baseline(settings)
        check_runs_folder(settings.runs)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error


def check_topology(system: System, topology: Topology, *, touching: bool) -> None:
    """Plan *topology*; where it will run here, see that memory and ports suffice.

    :raises PlacementError: if it does not fit.
    """
    local = touching and system.cluster.kind == "local"
    claim = probing() if local else planning(system)
    launch = plan_launch(topology, system, hosts=planned_hosts(system), claim=claim)
    if local:
        check_memory(system, len(launch.instances))


def _load_shared_baseline(settings: Settings) -> None:
    path = baseline_path(settings.system, SUITE)
    baseline = load_baseline(path, system=settings.system, suite=SUITE)
    sources = baseline.provenance if baseline else None
    approver = sources.approver if sources else None
    if settings.record and approver:
        raise ConfigError(
            f"{path} was accepted by {approver}, and --pdserve-record would put one run in place "
            f"of its nights; 'pdserve baseline propose --system {settings.system.name}' makes a "
            "candidate of stored nights"
        )


def _load_host_baseline(settings: Settings) -> None:
    system = with_model_path(settings.system)
    mark = fingerprint(host_of(settings), system)
    path = host_baseline_path(system, SUITE, mark, state_folder())
    load_baseline(path, fingerprint=mark, system=system, suite=SUITE)


def planning(system: System) -> Claim:
    """A claim for commands that are only shown."""
    return unclaimed(one_machine=system.cluster.shared_host)


def probing() -> Claim:
    """A claim that asks the kernel whether a port of this machine is free, and keeps none."""
    fresh = unclaimed(one_machine=True)

    def claim(node: str, port: int) -> bool:
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104 - taken on any address is taken
            except OSError:
                return False
        return fresh(node, port)

    return claim
