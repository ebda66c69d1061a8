"""Judge a stored session again, by the current baseline."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.judge.verdict import exit_code_of
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.claims import load_claims
from pytest_pdserve.results.selection import find_night
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.exit_codes import combined_code
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System

if TYPE_CHECKING:
    from pytest_pdserve.judge.claims import ClaimVerdict
    from pytest_pdserve.results.history import Key
    from pytest_pdserve.results.history import StoredSession
    from pytest_pdserve.values.claim import Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgedSession:
    """Verdicts on a stored session."""

    session_judge: SessionJudge
    """Judge, with the evidence."""
    session: StoredSession
    """Session that was judged."""
    cells: dict[Key, Verdict]
    """Verdict of each cell that was measured; ERROR if a run of it was invalid."""
    topologies: dict[str, Verdict]
    """Verdict of each topology as a whole, if at least two of its cells have a reference."""
    claims: tuple[tuple[Claim, ClaimVerdict], ...]
    """Verdict of each claim of which every topology was measured."""
    again: tuple[Key, ...]
    """Suspicious cells with too few runs to confirm it: a session would run them again."""
    partial: bool
    """True if cells of the baseline may have no run."""
    strict: bool
    """True if inconclusive verdicts and unproven checks count as not judged."""

    @property
    def invalid(self) -> tuple[Key, ...]:
        """Measured cells with an invalid run."""
        return tuple(key for key, verdict in self.cells.items() if verdict.status is Status.ERROR)

    @property
    def not_measured(self) -> tuple[Key, ...]:
        """Cells of the baseline without a readable run in the session."""
        baseline = self.session_judge.baseline
        return tuple(key for key in (baseline.keys if baseline else ()) if key not in self.cells)

    @property
    def unproven(self) -> tuple[str, ...]:
        """Checks of runs that could not be made, each sentence once."""
        records = self.session.records
        return tuple(dict.fromkeys(f"{f.check}: {f.message}" for r in records for f in r.unproven))

    @property
    def unconfirmed(self) -> tuple[str, ...]:
        """Cells, topologies and claims that are worse, but have too few runs to confirm it."""
        cells = [" ".join(key) for key in self.again if self.cells[key].severity > 1]
        topologies = [
            f"{name} as a whole"
            for name, verdict in self.topologies.items()
            if any(each.tonight.wants_run and each.severity > 1 for each in verdict.metrics)
        ]
        return (*cells, *topologies, *(c.id for c, verdict in self.claims if verdict.wants_pair))

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command; NOT_JUDGED if evidence is missing."""
        claims = [verdict for _, verdict in self.claims]
        verdicts = (*self.cells.values(), *self.topologies.values(), *claims)
        codes = [exit_code_of(verdict.status, strict=self.strict) for verdict in verdicts]
        missing = self.not_measured and not self.partial
        unproven = self.strict and (self.unproven or self.session_judge.expected.problems)
        if self.session.unreadable or missing or unproven or self.unconfirmed:
            codes.append(ExitCode.NOT_JUDGED)
        return combined_code(codes)


def rejudge(
    system: System,
    runs: Path,
    run_ids: Sequence[str],
    *,
    state: Path,
    rootdir: Path,
    history: Path | None = None,
    claims: Sequence[Path] = (),
    partial: bool = False,
    strict: bool = False,
) -> RejudgedSession:
    """Judge a stored session of *system* in the folder *runs*, by default the newest.

    :param run_ids: names of its folder, or of several sessions of one night, which are judged as
        one; empty for the newest.
    :param state: folder of the references of single hosts.
    :param rootdir: folder of the project.
    :param history: folder of a history, whose sessions count as past nights too; None for none.
    :param partial: whether cells of the baseline may have no run.
    :param strict: whether inconclusive verdicts and unproven checks count as not judged.
    :raises ConfigError: if there is no such session, it cannot be read, or the baseline cannot be
        used.
    """
    session = find_night(runs, system, run_ids)
    judge = _judge_of(session, system, runs=runs, state=state, rootdir=rootdir, history=history)
    counted = session.runs()
    keys = dict.fromkeys((record.topology, record.workload.id) for record in session.records)
    verdicts = {name: judge.judge_topology(name, counted) for name, _ in keys}
    return RejudgedSession(
        session_judge=judge,
        session=session,
        cells=dict(_judge_cells(session, judge)),
        topologies={name: found for name, found in verdicts.items() if found is not None},
        claims=tuple(_judge_claims(claims, session, judge)),
        again=tuple(key for key in counted if judge.suspicion(key, counted[key]) > 0),
        partial=partial,
        strict=strict,
    )


def _judge_claims(
    files: Sequence[Path], session: StoredSession, judge: SessionJudge
) -> Iterator[tuple[Claim, ClaimVerdict]]:
    """Yield the verdict of each claim in *files* whose topologies were all measured."""
    valid = session.valid()
    topologies = {topology for topology, _ in valid}
    measured = {(record.topology, record.workload.id) for record in session.records}
    for claim in (claim for file in files for claim in load_claims(file)):
        if claim.undecidable is not None or not topologies.issuperset(claim.topologies):
            continue
        invalid = measured.difference(valid)
        lookup = judge.lookup_for(claim, valid, broken=(), invalid=invalid)
        yield claim, judge.judge_claim(claim, lookup)


def invalid_verdict(runs: Sequence[Record]) -> Verdict:
    """Return the ERROR of a cell with an invalid run among *runs*."""
    misses = [f"invalid: {finding.check}: {finding.message}" for r in runs for finding in r.invalid]
    return Verdict(status=Status.ERROR, subject=runs[0].cell, misses=tuple(dict.fromkeys(misses)))


def _judge_cells(session: StoredSession, judge: SessionJudge) -> Iterator[tuple[Key, Verdict]]:
    """Yield the verdict of every measured cell."""
    valid = session.valid()
    measured: dict[Key, list[Record]] = {}
    for record in session.records:
        measured.setdefault((record.topology, record.workload.id), []).append(record)
    for key, runs in measured.items():
        yield key, judge.judge(key, valid[key]) if key in valid else invalid_verdict(runs)


def _judge_of(
    session: StoredSession,
    system: System,
    *,
    runs: Path,
    state: Path,
    rootdir: Path,
    history: Path | None,
) -> SessionJudge:
    """Return a judge for *session* with the current baseline."""
    first = session.records[0]
    return SessionJudge(
        system=system,
        provenance=Provenance(
            client_kind=session.client_kind,
            versions=first.versions,
            host=first.host,
            fingerprint=first.fingerprint,
            cluster=first.cluster,
        ),
        nodes_known="endpoint" not in first.host,
        session=session.session,
        runs=runs,
        state=state,
        rootdir=rootdir,
        history_folder=history,
    )
