"""Fixtures of ``suites/transfer``: agents on the session's nodes, and verdicts on transfers."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.plugin.progress import progress_to
from pytest_pdserve.plugin.trouble import without_traceback

if TYPE_CHECKING:
    from pytest_pdserve.backends.allocation import Allocation
    from pytest_pdserve.session.session import Session
    from pytest_pdserve.transfer.agents import TransferAgents
    from pytest_pdserve.transfer.measuring import TransferPlan
    from pytest_pdserve.values.transfer import Pair
    from pytest_pdserve.values.transfer import PairFigures
    from pytest_pdserve.values.transfer import TransferBaseline
    from pytest_pdserve.values.transfer import TransferCase
    from pytest_pdserve.values.transfer import TransferShape

TRANSFERS = "_pdserve_transfers"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferMeasurement:
    """Running agents of the session, and the baseline of their figures."""

    session: Session
    plan: TransferPlan
    agents: tuple[TransferAgents, ...]
    baseline: TransferBaseline | None

    def verdict(self, case: TransferCase) -> Verdict:
        """Measure one case between all pairs, write records, and judge.

        :raises TransferError: if a transfer fails, or delivers wrong bytes.
        """
        from pytest_pdserve.judge.transfer import node_lines
        from pytest_pdserve.plan.transfer import repeat_command
        from pytest_pdserve.results.transfer import SUITE
        from pytest_pdserve.transfer.measuring import judge_and_confirm

        system, plan = self.session.system, self.plan
        shapes = tuple(shape for shape in plan.shapes if shape.id == case.id)
        if not shapes:
            why = f"the KV cache of model {system.model.path!r} is unknown on this machine"
            return Verdict(status=Status.NOT_JUDGED, subject=case.id, misses=(why,))
        verdicts = judge_and_confirm(
            self._measure(plan.pairs, shapes, case.id),
            self.baseline,
            measure_again=lambda pairs: self._measure(pairs, shapes, f"{case.id}-again"),
        )
        found = {each.status for each in verdicts}
        slow = [each for each in verdicts if each.status is Status.FAIL]
        repeats = [repeat_command(system, e.measured.pair, e.measured.backend) for e in slow]
        pairs = {each.measured.pair for each in slow}
        nodes = node_lines({pair: pair in pairs for pair in plan.pairs})
        return Verdict(
            status=next(each for each in (Status.FAIL, Status.NEW, Status.PASS) if each in found),
            subject=f"transfers of {case.id}",
            misses=(*nodes, *(each.text for each in slow)),
            evidence=(
                *(("repeat", command) for command in dict.fromkeys(repeats)),
                ("records", str(self.session.store.folder / SUITE)),
            ),
        )

    def _measure(
        self, pairs: Sequence[Pair], shapes: Sequence[TransferShape], label: str
    ) -> tuple[PairFigures, ...]:
        """Measure with the agents of every backend, and write records."""
        from pytest_pdserve.results.transfer import write_transfers

        found = tuple(
            one
            for agents in self.agents
            for one in agents.measure(pairs, shapes, repeats=self.plan.repeats)
        )
        write_transfers(
            found,
            self.session.store,
            system=self.session.system,
            fingerprint=self.session.provenance.fingerprint,
            label=label,
        )
        return found


@pytest.fixture(scope="module")
def _pdserve_transfers(request: pytest.FixtureRequest) -> Iterator[TransferMeasurement]:
    """Start NIXL agents on all nodes of the session, for every case of the system.

    They end with the module's tests, so that they do not run beside the loads of other suites.
    """
    from pytest_pdserve.backends.nodes import spare_hosts
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.plan.transfer import all_pairs
    from pytest_pdserve.plan.transfer import transfer_backends
    from pytest_pdserve.plan.transfer import transfer_cases
    from pytest_pdserve.results.transfer import load_transfer_baseline
    from pytest_pdserve.transfer.measuring import TransferPlan
    from pytest_pdserve.transfer.measuring import check_transfers
    from pytest_pdserve.transfer.measuring import new_label
    from pytest_pdserve.transfer.measuring import running_agents
    from pytest_pdserve.transfer.measuring import shapes_of

    with without_traceback(lost=TRANSFERS):
        check_transfers(settings_of(request.config).system)
        session: Session = request.getfixturevalue("_pdserve_session")
        allocation: Allocation = request.getfixturevalue("pdserve_cluster")
        system, project = session.system, session.settings.project
        progress = progress_to(request.config, system.name)
        plan = TransferPlan(
            pairs=all_pairs([host.name for host in (*allocation.hosts, *spare_hosts(allocation))]),
            backends=transfer_backends(system),
            shapes=shapes_of(system, transfer_cases(system), progress=progress),
            repeats=system.transfer.repeats,
        )
        baseline = load_transfer_baseline(
            system, project.rootdir, session.provenance.fingerprint, session.state
        )
        backend_of(system).check(system)
        folder = session.store.folder
        label = new_label("agents", folder)
        starting = running_agents(
            allocation, system, plan, folder=folder, progress=progress, label=label
        )
        with session.phases.entered("start", starting) as agents:
            yield TransferMeasurement(session=session, plan=plan, agents=agents, baseline=baseline)


@pytest.fixture
def pdserve_transfer(
    request: pytest.FixtureRequest, _pdserve_transfers: TransferMeasurement
) -> Verdict:
    """Return the verdict on transfers between all pairs of nodes, measured without a model.

    A test that requests it runs once for each shape: prompt lengths, sizes and numbers in flight of
    ``[transfer]`` in the system file. ``pdserve_apply_verdict`` ends the test by it.
    """
    with without_traceback(), _pdserve_transfers.session.phases.of("other tests"):
        return _pdserve_transfers.verdict(request.param)
