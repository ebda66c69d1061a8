"""How the servers of a topology are started, for the first time and anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_pdserve.backends.allocation import Allocation
    from pytest_pdserve.serving.client import BenchClient
    from pytest_pdserve.serving.restartable import Servers
    from pytest_pdserve.session.session import Session
    from pytest_pdserve.values.topology import Topology
    from pytest_pdserve.values.workload import Workload


def starter(
    topology: Topology,
    session: Session,
    allocation: Allocation,
    bench: BenchClient | None,
    asked: Sequence[Workload],
) -> Callable[[int], contextlib.AbstractContextManager[Servers]]:
    """Return what starts the servers of a topology, while prompts of *asked* are made."""
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.serving.clients import prepare
    from pytest_pdserve.serving.stand_up import stand_up

    backend, system, progress = backend_of(session.system), session.system, session.progress
    deploy = backend.deployer or stand_up

    @contextlib.contextmanager
    def start(number: int) -> Iterator[Servers]:
        deploying = deploy(
            allocation,
            topology,
            system,
            logs=session.store.logs(topology.id, number),
            progress=progress,
            rotation=session.rotation(number),
            **({"bench": bench} if bench is not None else {}),
        )
        if bench is not None:
            prepare(bench, asked, topology, system, store=session.store)
        with session.phases.serving(topology.id, deploying) as deployment:
            session.set_versions(deployment.versions)
            yield deployment
            if backend.starts_servers and not system.simulated:
                progress("stopping")

    return start
