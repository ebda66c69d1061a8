"""Files of transfers: records and the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.results.baselines import baseline_path
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import present_path
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import TRANSFER
from pytest_pdserve.results.kinds import TRANSFER_BASELINE
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.store import RUNS
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import MAX_RUNS
from pytest_pdserve.values.transfer import Memory
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferBackend
from pytest_pdserve.values.transfer import TransferBaseline
from pytest_pdserve.values.transfer import TransferFigure
from pytest_pdserve.values.transfer import TransferRecord
from pytest_pdserve.values.transfer import TransferReference
from pytest_pdserve.values.transfer import TransferShape

SUITE = "transfer"
"""Name of the baseline's file and of the folder of records in a run folder."""


def write_transfers(
    measured: Iterable[PairFigures],
    store: RunStore,
    *,
    system: System,
    fingerprint: str,
    label: str = "",
) -> tuple[Path, ...]:
    """Write a record for each pair and backend; return the files.

    :param label: prefix of file names, for sessions that measure pairs more than once.
    :raises StoreError: if the disk does not take them.
    """
    paths = []
    for each in measured:
        pair = each.pair
        name = f"{each.backend}-{pair.reader}-from-{pair.source}.json"
        path = store.folder / SUITE / (f"{label}-{name}" if label else name)
        record = TransferRecord(
            session=store.session.id,
            system=system.name,
            fingerprint=fingerprint,
            measured_at=utc_text(datetime.now(UTC)),
            measured=each,
        )
        write_json(path, TRANSFER.dump(record, path), otherwise=f"choose another {RUNS}")
        paths.append(path)
    return tuple(paths)


def load_transfer(path: Path) -> TransferRecord:
    """Read the record of one pair.

    :raises ConfigError: if it is malformed.
    """
    return TRANSFER.parse(load_json(path), path)


def transfer_baseline_path(system: System, rootdir: Path, fingerprint: str, state: Path) -> Path:
    """Return the file that accepted runs are written to: the system's, or this host's."""
    if system.judgement.host_references:
        return host_baseline_path(system, fingerprint, state, SUITE)
    return baseline_path(system, rootdir, SUITE)


def load_transfer_baseline(
    system: System, rootdir: Path, fingerprint: str | None, state: Path
) -> TransferBaseline | None:
    """Read the baseline of a system's transfers; None if nothing was accepted yet.

    :param fingerprint: of the hardware and the system file; None if the hardware is unknown.
    :raises ConfigError: if the file is malformed, or of another system or hardware.
    """
    if system.judgement.host_references:
        if fingerprint is None:
            return None
        path = host_baseline_path(system, fingerprint, state, SUITE)
    else:
        path = present_path(system, rootdir, SUITE)
    if not is_there(path):
        return None
    found = TRANSFER_BASELINE.parse(load_json(path), path)
    if found.system != system.name:
        raise ConfigError(
            f"{path}: /system: {found.system!r}, expected {system.name!r}; move the file to where "
            "it belongs"
        )
    if fingerprint not in (None, found.fingerprint):
        raise ConfigError(
            f"{path} was measured on other hardware or with another system file "
            f"({found.fingerprint}, here {fingerprint}); move it away, and accept a new one with "
            f"pdserve transfer --system {system.name} --accept"
        )
    return found


def write_transfer_baseline(path: Path, baseline: TransferBaseline) -> None:
    """Write a baseline atomically.

    :raises StoreError: if it cannot be written.
    """
    write_json(path, TRANSFER_BASELINE.dump(baseline, path))


def with_accepted(
    baseline: TransferBaseline | None,
    measured: Sequence[PairFigures],
    *,
    system: System,
    fingerprint: str,
) -> TransferBaseline:
    """Return *baseline* with one more run; references without a value in the run are unchanged.

    The spread of a reference is the mean over its runs.
    """
    own: dict[tuple[TransferBackend, Memory, TransferShape], list[TransferFigure]] = {}
    for each in measured:
        for figure in each.figures:
            own.setdefault((each.backend, each.memory, figure.shape), []).append(figure)
    references = {
        (each.backend, each.memory, each.shape): each
        for each in (baseline.references if baseline else ())
    }
    for (backend, memory, shape), figures in own.items():
        before = references.get((backend, memory, shape))
        runs, spread = (before.runs, before.spread) if before else ((), 0.0)
        tonight = statistics.median(figure.spread for figure in figures)
        references[backend, memory, shape] = TransferReference(
            backend=backend,
            memory=memory,
            shape=shape,
            runs=(*runs, tuple(figure.median_ms for figure in figures))[-MAX_RUNS:],
            spread=(spread * len(runs) + tonight) / (len(runs) + 1),
        )
    return TransferBaseline(
        system=system.name, fingerprint=fingerprint, references=tuple(references.values())
    )
