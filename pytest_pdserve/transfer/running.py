"""Whether a running deployment moves KV caches as fast as its system promises."""

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
from pytest_pdserve.serving.running_transfers import Bare
from pytest_pdserve.serving.running_transfers import RunningPairs
from pytest_pdserve.transfer.preflight import Floor
from pytest_pdserve.transfer.preflight import floor_of
from pytest_pdserve.values.errors import TransferError
from pytest_pdserve.values.model import SMALL_VOCABULARY
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import TransferBaseline


def prove_transfers(
    deployment: Deployment, bare: Bare, baseline: TransferBaseline | None
) -> tuple[RunningTransfer, ...]:
    """Measure every two instances that move KV caches, one transfer at a time.

    A pair that is slower than the system promises is measured once more first. What came out is
    also what records of the deployment have.

    :param bare: what NIXL alone showed, as :func:`.bare.bare_figures` returns it.
    :param baseline: what transfers are held against where the system file gives no floor.
    :raises TransferError: naming pairs that are slower, and what repeats them.
    :raises PathError: if a request fails.
    """
    with (
        diagnosing_nodes(deployment.allocation, deployment.progress),
        Heartbeat(deployment.progress, "measuring transfers between instances") as beat,
    ):
        found = _measured(deployment, bare, baseline, beat)
    deployment.transfers = found
    for each in longest(found):
        deployment.progress(f"transfer measured: {figure_text(each)}")
    return found


def _measured(
    deployment: Deployment, bare: Bare, baseline: TransferBaseline | None, progress: Progress
) -> tuple[RunningTransfer, ...]:
    """Measure all pairs, and those that are slow once more; refuse those that stay slow."""
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
    found = pairs.measure(lengths, bare)
    floor = _floor(system, bare, baseline)
    if floor is None:
        progress("transfers are not judged: nothing in their shape was measured")
        return found
    slow = slow_pairs(found, floor.gb_s, source=floor.source)
    if slow:
        found = faster(found, pairs.measure(lengths, bare, only=tuple(slow)))
        slow = slow_pairs(found, floor.gb_s, source=floor.source)
    if slow:
        raise TransferError(_slow_text(found, slow, system))
    return found


def _floor(system: System, bare: Bare, baseline: TransferBaseline | None) -> Floor | None:
    """Return what NIXL alone must reach; None where that takes a bare figure, and there is none."""
    tokens = max((tokens for _, tokens in bare), default=0)
    alone = next((one for (_, length), one in bare.items() if length == tokens), None)
    return floor_of(system, baseline, alone)


def _slow_text(
    found: Sequence[RunningTransfer], slow: Mapping[tuple[str, str], str], system: System
) -> str:
    """Return which pairs are slow, which node that points at, and what repeats it."""
    pairs = longest(found)
    lines = [f"slow in the running deployment: {len(slow)} of {len(pairs)} pairs"]
    nodes: dict[Pair, bool] = {}
    for each in pairs:
        nodes[each.pair] = nodes.get(each.pair, False) or each.instances in slow
    lines += node_lines(nodes)
    for each in pairs:
        if each.instances in slow:
            repeat = repeat_command(system, each.pair, each.backend)
            lines += [slow[each.instances], f"  repeat  {repeat}"]
    return "\n".join(lines)
