"""Past nights, read from the runs folder: what windows of several nights look back at."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record

SERVING = ("vllm", "nixl", "vllm-router")
"""Components of which a night must have tonight's versions, or it is no night of the same thing."""

Runs = Mapping[tuple[str, str], Sequence[Record]]
"""Sane runs of one night by topology and workload id, in the order they were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Nights before tonight."""

    nights: tuple[Runs, ...] = ()
    """Oldest first."""
    unreadable: tuple[str, ...] = ()
    """Records that could not be read, and why: they are left out, and that is said."""


def past_nights(
    runs: Path,
    *,
    like: Mapping[str, str],
    system: str,
    fingerprint: str,
    without: Collection[str],
    most: int,
) -> History:
    """Nights in *runs* of the same system, host and serving versions.

    :param like: tonight's versions.
    :param without: run ids that are no past night: tonight's own, and those of the baseline.
    :param most: nights that are read at most, the newest.
    """
    wanted = {name: like[name] for name in SERVING if name in like}
    nights: list[Runs] = []
    unreadable: list[str] = []
    for folder in sorted(_folders(runs), key=lambda path: path.name, reverse=True):
        if len(nights) >= most:
            break
        if folder.name in without:
            continue
        night: dict[tuple[str, str], list[Record]] = {}
        for record in records_of(folder, unreadable):
            versions = dict(record.versions)
            same = (
                record.system == system
                and record.fingerprint == fingerprint
                and {name: versions[name] for name in SERVING if name in versions} == wanted
            )
            if same and not record.insane:
                night.setdefault((record.topology, record.workload.id), []).append(record)
        if night:
            nights.append(night)
    return History(nights=tuple(reversed(nights)), unreadable=tuple(unreadable))


def records_of(folder: Path, unreadable: list[str]) -> Iterator[Record]:
    """Records of one run folder by topology and workload, first repeats first.

    :param unreadable: gets a sentence for each file that is no record.
    """
    for path in sorted(folder.glob("*/*.[0-9]*.json"), key=_place):
        try:
            yield load_record(path)
        except ConfigError as error:
            unreadable.append(str(error))


def _place(path: Path) -> tuple[str, str, int]:
    stem, _, repeat = path.name.removesuffix(".json").rpartition(".")
    return path.parent.name, stem, int(repeat) if repeat.isdecimal() else 0


def _folders(runs: Path) -> list[Path]:
    try:
        return [path for path in runs.iterdir() if path.is_dir()]
    except OSError:
        return []
