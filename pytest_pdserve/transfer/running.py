"""Checks that a running deployment moves KV caches as fast as its system requires."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.judge.running_transfer import faster
from pytest_pdserve.judge.running_transfer import figure_text
from pytest_pdserve.judge.running_transfer import longest
from pytest_pdserve.judge.running_transfer import slow_pairs
from pytest_pdserve.judge.transfer import node_lines
from pytest_pdserve.plan.transfer import repeat_command
from pytest_pdserve.plan.transfer import running_cases
from pytest_pdserve.serving.deployment import Deployment
from pytest_pdserve.serving.measure import diagnosing_nodes
from pytest_pdserve.serving.model import load_vocabulary
from pytest_pdserve.serving.running_transfers import BareFigures
from pytest_pdserve.serving.running_transfers import RunningPairs
from pytest_pdserve.transfer.preflight import Floor
from pytest_pdserve.transfer.preflight import floor_of
from pytest_pdserve.values.errors import TransferError
from pytest_pdserve.values.model import SMALL_VOCABULARY
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import TransferBaseline

_NO_REFERENCE = "there is no reference or figure of NIXL alone in the shape of the transfers"


def prove_transfers(
    deployment: Deployment, bare: BareFigures, baseline: TransferBaseline | None
) -> tuple[RunningTransfer, ...]:
    """Measure all pairs of instances that move KV caches, one transfer at a time.

    A pair below the floor is measured once more before it counts as slow. The results are stored in
    the deployment's records.

    :param bare: figures of NIXL alone, as :func:`.bare.bare_figures` returns them.
    :param baseline: reference of transfers, used if the system file gives no floor.
    :raises TransferError: naming slow pairs, and commands that repeat them.
    :raises PathError: if a request fails.
    """
    with (
        diagnosing_nodes(deployment.allocation, deployment.progress),
        Heartbeat(deployment.progress, "measuring transfers between instances") as beat,
    ):
        measured = _measure(deployment, bare, baseline, beat)
    deployment.transfers = measured
    for transfer in longest(measured):
        deployment.progress(f"transfer measured: {figure_text(transfer)}")
    return measured


def _measure(
    deployment: Deployment, bare: BareFigures, baseline: TransferBaseline | None, progress: Progress
) -> tuple[RunningTransfer, ...]:
    """Measure all pairs, and slow ones once more; raise if a pair stays slow."""
    system = deployment.system
    lengths = [case.prompt_tokens or 0 for case in running_cases(system)]
    pairs = RunningPairs(
        servers=deployment.servers,
        system=system,
        completions=deployment.completions,
        client=deployment.client,
        vocabulary=load_vocabulary(system.model.path) or SMALL_VOCABULARY,
        progress=progress,
    )
    measured = pairs.measure(lengths, bare)
    floor = _floor(system, bare, baseline)
    why = [*pairs.unmeasured.values(), *([_NO_REFERENCE] if floor is None else [])]
    deployment.why_speed_unproven = "; ".join(why)
    if floor is None:
        progress(f"transfers are not judged: {_NO_REFERENCE}")
        return measured
    slow = slow_pairs(measured, floor.gb_s, source=floor.source)
    if slow:
        measured = faster(measured, pairs.measure(lengths, bare, only=tuple(slow)))
        slow = slow_pairs(measured, floor.gb_s, source=floor.source)
    if slow:
        raise TransferError(_slow_text(measured, slow, system))
    return measured


def _floor(system: System, bare: BareFigures, baseline: TransferBaseline | None) -> Floor | None:
    """Return the minimum rate of NIXL alone; None if neither file nor baseline gives one."""
    tokens = max((tokens for _, tokens in bare), default=0)
    alone = next((one for (_, length), one in bare.items() if length == tokens), None)
    return floor_of(system, baseline, alone)


def _slow_text(
    measured: Sequence[RunningTransfer], slow: Mapping[tuple[str, str], str], system: System
) -> str:
    """Return the message: the slow pairs, the likely node, and commands that repeat them."""
    transfers = longest(measured)
    lines = [f"slow in the running deployment: {len(slow)} of {len(transfers)} pairs"]
    nodes: dict[Pair, bool] = {}
    for transfer in transfers:
        nodes[transfer.pair] = nodes.get(transfer.pair, False) or transfer.instances in slow
    lines += node_lines(nodes)
    for transfer in transfers:
        if transfer.instances in slow:
            repeat = repeat_command(system, transfer.pair, transfer.backend)
            lines += [slow[transfer.instances], f"  repeat  {repeat}"]
    return "\n".join(lines)
