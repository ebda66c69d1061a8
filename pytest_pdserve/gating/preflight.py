"""Check the node pairs of a gate before its first start."""

from __future__ import annotations

from pathlib import Path

from pytest_pdserve.gating.request import GateRequest
from pytest_pdserve.gating.starts import StartContext
from pytest_pdserve.gating.starts import rotations
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.transfer import load_transfer_baseline
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.transfer.preflight import Preflight
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.transfer import CheckedPairs


def check_pairs(
    request: GateRequest, held: StartContext, *, rootdir: Path, user_state: Path
) -> None:
    """Measure the pairs of nodes that a gate uses, if ``[transfer] preflight`` is on.

    Both stacks meet the same slow pair, so their comparison does not show it; but it hides what
    differs between them.

    :param rootdir: root of the project, for the baseline of transfers.
    :param user_state: the user's state folder, likewise.
    :raises ConfigError: if there is neither a floor nor a baseline of transfers.
    :raises TransferError: if a pair is too slow, and no spare node can take its place.
    """
    system = request.system
    topologies = tuple(Topology.parse(each.topology) for each in request.cells)
    moving = any(topology.disaggregated for topology in topologies)
    if not (system.transfer.preflight and moving):
        return
    digest = fingerprint(held.allocation.describe_nodes(), system)
    baseline = load_transfer_baseline(system, rootdir, digest, user_state)
    store, checked = RunStore(folder=held.folder, session=held.session), CheckedPairs()
    for rotation in rotations(system, request.budget.blocks):
        preflight = Preflight(
            allocation=held.allocation,
            system=system,
            topologies=topologies,
            rotation=rotation,
            baseline=baseline,
            checked=checked,
            store=store,
            fingerprint=digest,
            progress=held.progress,
        )
        preflight.check()
        for topology in topologies:
            preflight.require(topology)
