"""What the runs of a session are held against: baseline, past nights, expected changes."""

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
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.baselines import present_path
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.expected import expected_path
from pytest_pdserve.results.expected import load_expected
from pytest_pdserve.results.history import NOTHING_RECALLED
from pytest_pdserve.results.history import History
from pytest_pdserve.results.history import Recalled
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
"""What is compared with the baseline's newest session."""
_LABELS = dict(LABELS)


@dataclass(kw_only=True)
class Evidence:
    """Everything that a session is held against; files are read when first asked for.

    They are read once: a night that joins the baseline is for the next session.
    """

    system: System
    """What was measured."""
    provenance: Provenance
    """Versions, hardware and fingerprint of this session."""
    nodes_known: bool
    """Whether the fingerprint is that of the nodes: not before they are there, and never of an
    endpoint that somebody else runs."""
    session: SessionRef
    """This session."""
    runs: Path
    """Folder of all sessions."""
    state: Path
    """Folder of references of single hosts."""
    rootdir: Path
    """Folder of the project."""
    history_folder: Path | None = None
    """Folder of a history whose sessions are past nights too; None if there is none."""

    @cached_property
    def path(self) -> Path:
        """File that nights of this session join."""
        if self.system.judgement.host_references or not self.nodes_known:
            return host_baseline_path(self.system, self.provenance.fingerprint, self.state)
        return baseline_path(self.system, self.rootdir)

    @cached_property
    def shared(self) -> Baseline | None:
        """The system's own baseline; None where each host keeps its own.

        :raises ConfigError: if it is malformed, or of other hardware than this session's nodes.
        """
        if self.system.judgement.host_references:
            return None
        return load_baseline(
            present_path(self.system, self.rootdir),
            system=self.system,
            fingerprint=self.provenance.fingerprint if self.nodes_known else None,
            host=self.provenance.host,
        )

    def check_hardware(self) -> None:
        """Refuse a baseline of other hardware, before servers start.

        :raises ConfigError: naming the file.
        """
        _ = self.baseline

    @property
    def client_kind(self) -> str:
        """Kind of this session's benchmark client."""
        return self.provenance.client_kind

    @cached_property
    def baseline(self) -> Baseline | None:
        """What runs are held against: nights of the same kind of client, of :attr:`stored`.

        :raises ConfigError: as :attr:`stored`.
        """
        return self.stored.of_client(self.client_kind) if self.stored is not None else None

    def other_clients(self, key: Key) -> tuple[str, ...]:
        """Return the other kinds of client that nights of a cell were measured with."""
        cell = self.stored.cell(key) if self.stored is not None else None
        return tuple(kind for kind in (cell.clients if cell else ()) if kind != self.client_kind)

    @cached_property
    def stored(self) -> Baseline | None:
        """The system's baseline, else what this host showed, of every kind of client.

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
        """Whether the session of *runs* is among the baseline's nights of a cell."""
        cell = self.baseline.cell(key) if self.baseline and runs else None
        return cell is not None and runs[0].session.id in {night.session for night in cell.nights}

    @property
    def how_to_accept(self) -> str:
        """What a person does to accept another level."""
        if self.system.judgement.host_references:
            return f"delete {self.path}, and the next session records a new reference"
        return f"pdserve baseline propose --system {self.system.name}"

    @property
    def keeps_nights(self) -> bool:
        """Whether nights of this session may join :attr:`path`.

        Not those of servers that somebody else runs where the system has a baseline: they are held
        against its nights, and are none of them.
        """
        return self.nodes_known or self.shared is None

    @property
    def begun(self) -> Baseline:
        """The baseline that :attr:`path` begins with: what is shipped, else one without nights."""
        return self.shared or Baseline(
            system=self.system.name,
            suite=SUITE,
            source=str(self.path),
            fingerprint=self.provenance.fingerprint,
            host=self.provenance.host,
        )

    @cached_property
    def references(self) -> Mapping[Key, References]:
        """References of every cell of the baseline that has any."""
        floors, baseline = self.system.judgement.all_floors, self.baseline
        cells = {key: baseline.cell(key) for key in baseline.keys} if baseline else {}
        return {key: references_of(cell, floors) for key, cell in cells.items() if cell}

    def is_new(self, key: Key) -> bool:
        """Whether no latency or throughput of a cell has a reference."""
        return not self.references.get(key)

    def may_join(self, key: Key) -> bool:
        """Whether tonight can join the nights of a cell: there is room, and none of tonight."""
        cell = self.baseline.cell(key) if self.baseline else None
        if self.baseline is None or cell is None:
            return False
        sessions = {source.id: source.session for source in self.baseline.sessions}
        nights = {night_of(sessions[night.session], self.session) for night in cell.nights}
        tonight = night_of(self.session, self.session)
        return len(cell.nights) < RULE.max_nights and tonight not in nights

    @cached_property
    def expected(self) -> ExpectedChanges:
        """The system's expected changes.

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
        """Of a system that is nothing else."""
        return load_figures(figures_path(self.system))

    @cached_property
    def history(self) -> History:
        """The newest nights of every cell, as many as one verdict looks back at."""
        return self._nights(RULE.better_nights)

    @cached_property
    def alarm_history(self) -> History:
        """The nights in which false alarms are counted."""
        return self._nights(RULE.false_alarm_nights)

    @cached_property
    def recalled(self) -> Recalled:
        """Return what the history adds to the runs folder.

        :raises ConfigError: if its folder does not exist.
        """
        if self.history_folder is None:
            return NOTHING_RECALLED
        from pytest_pdserve.history.recall import recall
        from pytest_pdserve.history.store import Store

        return recall(Store.open(self.history_folder), self.system.name, runs=self.runs)

    def _nights(self, each: int) -> History:
        return past_nights(
            self.runs,
            fingerprint=self.provenance.fingerprint,
            client_kind=self.client_kind,
            system=self.system.name,
            tonight=self.session,
            cells=tuple(self.references),
            each=each,
            recalled=self.recalled,
        )

    @cached_property
    def changed_versions(self) -> tuple[Difference, ...]:
        """What of versions, image, driver and client is not as in the baseline's newest session."""
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
        known = newest.nodes if newest else ()
        hosts = self.provenance.cluster.get("nodes") or ()
        return tuple(name for name in hosts if known and name not in known)

    @cached_property
    def differences(self) -> str:
        """What of versions, image, driver, nodes and client is not as in the baseline."""
        said = [f"{each.what} {each.before} -> {each.now}" for each in self.changed_versions]
        new = [f"nodes {', '.join(self.new_nodes)} are new"] if self.new_nodes else []
        return ", ".join([*said, *new])

    @property
    def origin(self) -> str:
        """File of the baseline, its versions and who accepted it, for messages."""
        return self.baseline.origin if self.baseline else f"{self.path}, which does not exist"
