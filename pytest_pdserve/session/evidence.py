"""Evidence that a session's runs are compared with: baseline, nights, expected changes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from functools import cached_property
from pathlib import Path

from pytest_pdserve.judge.cells import References
from pytest_pdserve.judge.cells import references_of
from pytest_pdserve.judge.expected import ExpectedChanges
from pytest_pdserve.results.baselines import SUITE
from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import gpu_of_references
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import present_path
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.expected import expected_path
from pytest_pdserve.results.expected import load_expected
from pytest_pdserve.results.history import NO_HISTORY
from pytest_pdserve.results.history import History
from pytest_pdserve.results.history import HistorySessions
from pytest_pdserve.results.history import past_nights
from pytest_pdserve.values.baseline import LABELS
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import Difference
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sessions import night_of
from pytest_pdserve.values.system import System

_COMPONENTS = (
    *("vllm", "nixl", "vllm-router", "torch", "cuda", "driver", "libfabric", "image"),
    "client",
)
"""Components whose versions are compared with the baseline's newest session."""
_LABELS = dict(LABELS)


@dataclass(kw_only=True)
class Evidence:
    """Everything that a session's runs are compared with; files are read at first use.

    They are read only once: a night that joins the baseline counts from the next session on.
    """

    system: System
    """System that was measured."""
    provenance: Provenance
    """Versions, hardware and fingerprint of this session."""
    nodes_known: bool
    """True if the fingerprint is that of the nodes: not before they are acquired, and never for an
    attached endpoint."""
    session: SessionRef
    """This session."""
    runs: Path
    """Folder of all sessions."""
    state: Path
    """Folder of the references of single hosts."""
    rootdir: Path
    """Folder of the project."""
    history_folder: Path | None = None
    """Folder of a history, whose sessions count as past nights too; None without a history."""

    @cached_property
    def path(self) -> Path:
        """Baseline file that nights of this session join."""
        if self._by_host or not self.nodes_known:
            return host_baseline_path(self.system, self.provenance.fingerprint, self.state)
        return baseline_path(self.system, self.rootdir, gpu=self._gpu)

    @property
    def _gpu(self) -> str | None:
        return gpu_of_references(self.system, self.provenance.host)

    @property
    def _by_host(self) -> bool:
        return self.system.judgement.host_references and self._gpu is None

    @cached_property
    def shared(self) -> Baseline | None:
        """The system's own baseline; None if each host has its own.

        :raises ConfigError: if it is malformed, or from other hardware than this session's nodes.
        """
        if self._by_host:
            return None
        return load_baseline(
            present_path(self.system, self.rootdir, gpu=self._gpu),
            system=self.system,
            fingerprint=self.provenance.fingerprint if self.nodes_known else None,
            host=self.provenance.host,
        )

    def check_hardware(self) -> None:
        """Raise if the baseline is from other hardware, before servers start.

        :raises ConfigError: naming the file.
        """
        _ = self.baseline

    @property
    def client_kind(self) -> str:
        """Kind of this session's benchmark client."""
        return self.provenance.client_kind

    @cached_property
    def baseline(self) -> Baseline | None:
        """Baseline that runs are compared with: nights of :attr:`stored` with the same client kind.

        :raises ConfigError: as :attr:`stored`.
        """
        return self.stored.of_client(self.client_kind) if self.stored is not None else None

    def other_clients(self, key: Key) -> tuple[str, ...]:
        """Return other kinds of client with which nights of a cell were measured."""
        cell = self.stored.cell(key) if self.stored is not None else None
        return tuple(kind for kind in (cell.clients if cell else ()) if kind != self.client_kind)

    @cached_property
    def stored(self) -> Baseline | None:
        """Baseline of the system, else of this host, with every kind of client.

        :raises ConfigError: if it is malformed or of other hardware.
        """
        if self.shared is not None:
            return self.shared
        return load_baseline(
            self.path,
            system=self.system,
            fingerprint=self.provenance.fingerprint,
            host=self.provenance.host,
        )

    def joined(self, key: Key, runs: Sequence[Record]) -> bool:
        """Return whether the session of *runs* is one of the baseline's nights of a cell."""
        cell = self.baseline.cell(key) if self.baseline and runs else None
        return cell is not None and runs[0].session.id in {night.session for night in cell.nights}

    @property
    def how_to_accept(self) -> str:
        """How to accept another level as the reference, for messages."""
        if self._by_host:
            return f"delete {self.path}, and the next session records a new reference"
        return f"pdserve baseline propose --system {self.system.name}"

    @property
    def keeps_nights(self) -> bool:
        """True if nights of this session may join :attr:`path`.

        Nights of an attached endpoint may not if the system has a baseline: they are only compared
        with it.
        """
        return self.nodes_known or self.shared is None

    @property
    def initial_baseline(self) -> Baseline:
        """Initial content of :attr:`path`: the shared baseline, else one without nights."""
        return self.shared or Baseline(
            system=self.system.name,
            suite=SUITE,
            source=str(self.path),
            fingerprint=self.provenance.fingerprint,
            host=self.provenance.host,
        )

    @cached_property
    def references(self) -> Mapping[Key, References]:
        """References by metric of every cell of the baseline that has any."""
        floors, baseline = self.system.judgement.all_floors, self.baseline
        cells = {key: baseline.cell(key) for key in baseline.keys} if baseline else {}
        return {key: references_of(cell, floors) for key, cell in cells.items() if cell}

    def is_new(self, key: Key) -> bool:
        """Return whether no latency or throughput of a cell has a reference."""
        return not self.references.get(key)

    def may_join(self, key: Key) -> bool:
        """Return whether tonight may join a cell's baseline: it is not full, and lacks tonight."""
        cell = self.baseline.cell(key) if self.baseline else None
        if self.baseline is None or cell is None:
            return False
        sessions = {source.id: source.session for source in self.baseline.sessions}
        nights = {night_of(sessions[night.session], self.session) for night in cell.nights}
        tonight = night_of(self.session, self.session)
        return len(cell.nights) < RULE.max_nights and tonight not in nights

    @cached_property
    def expected(self) -> ExpectedChanges:
        """Expected changes of the system.

        :raises ConfigError: if the file is malformed.
        """
        path = expected_path(self.system, self.rootdir)
        return ExpectedChanges(
            entries=load_expected(path),
            source=str(path),
            today=datetime.now(UTC).date().isoformat(),
        )

    @cached_property
    def figures(self) -> Figures:
        """Published figures of a system that consists of nothing else."""
        return load_figures(figures_path(self.system))

    @cached_property
    def history(self) -> History:
        """Newest nights of every cell, as many as one verdict uses."""
        return self._nights(RULE.better_nights)

    @cached_property
    def alarm_history(self) -> History:
        """Nights in which false alarms are counted."""
        return self._nights(RULE.false_alarm_nights)

    @cached_property
    def from_history(self) -> HistorySessions:
        """Sessions of the history, in addition to those of the runs folder.

        :raises ConfigError: if its folder does not exist.
        """
        if self.history_folder is None:
            return NO_HISTORY
        from pytest_pdserve.history.store import Store
        from pytest_pdserve.history.stored_sessions import sessions_of_history

        store = Store.open(self.history_folder)
        return sessions_of_history(store, self.system.name, runs=self.runs)

    def _nights(self, per_cell: int) -> History:
        return past_nights(
            self.runs,
            fingerprint=self.provenance.fingerprint,
            client_kind=self.client_kind,
            system=self.system.name,
            tonight=self.session,
            cells=tuple(self.references),
            per_cell=per_cell,
            from_history=self.from_history,
        )

    @cached_property
    def changed_versions(self) -> tuple[Difference, ...]:
        """Versions, image, driver and client that differ from the baseline's newest session."""
        newest = self.baseline.newest if self.baseline else None
        if newest is None:
            return ()
        old, now = newest.versions, self.provenance.versions
        return tuple(
            Difference(
                what=_LABELS.get(name, name),
                before=old.get(name, "unknown"),
                now=now.get(name, "unknown"),
            )
            for name in _COMPONENTS
            if old.get(name) != now.get(name)
        )

    @property
    def new_nodes(self) -> tuple[str, ...]:
        """Nodes of this session that the baseline's newest session did not have."""
        newest = self.baseline.newest if self.baseline else None
        before = newest.nodes if newest else ()
        hosts = self.provenance.cluster.get("nodes") or ()
        return tuple(name for name in hosts if before and name not in before)

    @cached_property
    def differences(self) -> str:
        """Text of :attr:`changed_versions` and :attr:`new_nodes`; empty without any."""
        texts = [f"{each.what} {each.before} -> {each.now}" for each in self.changed_versions]
        new = [f"nodes {', '.join(self.new_nodes)} are new"] if self.new_nodes else []
        return ", ".join([*texts, *new])

    @property
    def origin(self) -> str:
        """File of the baseline, its versions and approver, for messages."""
        return self.baseline.origin if self.baseline else f"{self.path}, which does not exist"
