"""Baselines: where they lie, how they are read, and how candidates are written."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import platformdirs

from pytest_pdserve.judge.stats import envelope_from_runs
from pytest_pdserve.judge.stats import envelope_of_nights
from pytest_pdserve.judge.stats import reference
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.folders import check_own
from pytest_pdserve.results.kinds import BASELINE
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.record import values_of
from pytest_pdserve.values.sources import Sources
from pytest_pdserve.values.sources import unlike
from pytest_pdserve.values.system import System

_SAME = 1e-6
"""Relative difference of a stored reference from its values that rounding explains."""


def state_folder() -> Path:
    """The user's own folder, where envelopes of single hosts are kept."""
    return Path(platformdirs.user_state_dir("pytest-pdserve", appauthor=False))


def baseline_path(system: System, suite: str) -> Path:
    """File of the baseline that is kept beside the system file."""
    return Path(system.source).parent / f"{suite}.json"


def host_baseline_path(system: System, suite: str, fingerprint: str, state: Path) -> Path:
    """File of the time envelopes of one host, by its fingerprint."""
    return state / "baselines" / system.name / fingerprint / f"{suite}.json"


def load_baseline(
    path: Path,
    *,
    system: System,
    suite: str,
    fingerprint: str | None = None,
    host: Mapping[str, str] = MappingProxyType({}),
) -> Baseline | None:
    """Read a baseline; None if there is no such file.

    :param system: system that it must be of.
    :param suite: suite that it must be of.
    :param fingerprint: of this host, where the baseline holds for one host only.
    :param host: what the fingerprint was made of, to say what differs.
    :raises ConfigError: if it is malformed, names an unknown metric, or is of another host, system
        or suite.
    """
    if not path.exists():
        return None
    data = load_json(path)
    _check_place(data, path, system, suite)
    baseline = BASELINE.parse(data, path, given=system, source=str(path))
    _check_sources(baseline, path)
    for topology, workloads in baseline.cells.items():
        for workload, metrics in workloads.items():
            for name, envelope in metrics.items():
                where = f"{path}: /cells/{topology}/{workload}/{name}"
                _check_envelope(name, envelope, where)
                _check_values(name, envelope, len(baseline.runs), where)
    sources = baseline.provenance
    if fingerprint and sources and sources.fingerprint not in (None, fingerprint):
        raise ConfigError(
            f"{path} was recorded on another host or system file "
            f"({unlike(sources, fingerprint, host)}); move it away, and record or propose one of "
            "this"
        )
    return baseline


def _check_place(data: Any, path: Path, system: System, suite: str) -> None:
    for key, wanted in (("system", system.name), ("suite", suite)):
        found = data.get(key) if isinstance(data, dict) else None
        if isinstance(found, str) and found and found != wanted:
            raise ConfigError(
                f"{path}: /{key}: is of {found!r}, but {wanted!r} is judged by it; put it "
                "where it belongs, or record one here with --pdserve-record"
            )


def _check_sources(baseline: Baseline, path: Path) -> None:
    if baseline.provenance is None:
        raise ConfigError(f"{path}: /provenance: None is not of type 'object'")
    ids = baseline.provenance.run_ids
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        where = f"{path}: /provenance/runs/{ids.index(twice)}"
        raise ConfigError(f"{where}: {twice!r} stands {ids.count(twice)} times")


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write *baseline* to *path*, its cells and metrics in order.

    :raises StoreError: if it cannot be written.
    """
    cells = {
        topology: {
            workload: dict(sorted(metrics.items())) for workload, metrics in sorted(cells.items())
        }
        for topology, cells in sorted(baseline.cells.items())
    }
    write_json(path, BASELINE.dump(replace(baseline, cells=cells), path))


def _check_envelope(name: str, entry: Envelope, where: str) -> None:
    metric = METRICS.get(name)
    if metric is None:
        raise ConfigError(f"{where}: unknown metric {name!r}; known are {', '.join(METRICS)}")
    if entry.better != metric.better:
        raise ConfigError(
            f"{where}/better: {entry.better!r}, but of {name} {metric.better!r} is better"
        )
    if entry.unit != metric.unit:
        raise ConfigError(f"{where}/unit: {entry.unit!r}, but {name} is in {metric.unit!r}")
    ref, rtol = entry.ref, entry.rtol
    if metric.better == "equal":
        if rtol != 0:
            raise ConfigError(f"{where}/rtol: {rtol}, but a count has no room: 0")
    elif ref == 0:
        raise ConfigError(f"{where}/ref: {ref}, but a timing or rate is above 0")
    if metric.better == "higher" and rtol >= 1:
        raise ConfigError(f"{where}/rtol: {rtol} admits every value; must be below 1")


def _check_values(name: str, entry: Envelope, runs: int, where: str) -> None:
    """Make sure that the values of runs, the reference and the number of runs say the same."""
    if entry.values is None:
        return
    values, ref = entry.values, entry.ref
    if METRICS[name].better == "equal":
        raise ConfigError(f"{where}/values: a count has one value; leave them out")
    if entry.known_issue is not None:
        raise ConfigError(
            f"{where}/known_issue: is strict, which needs a fixed limit; leave out values"
        )
    if entry.rtol > METRICS[name].outer:
        raise ConfigError(
            f"{where}/rtol: {entry.rtol:g}, but beside values the outer limit holds: "
            f"{METRICS[name].outer:g} at most"
        )
    if len(values) != runs:
        raise ConfigError(
            f"{where}/values: {len(values)} values for the {runs} runs of /provenance/runs; one "
            "each, null where the cell has none"
        )
    present = [value for value in values if value is not None]
    if len(present) != entry.runs:
        raise ConfigError(f"{where}/runs: {entry.runs}, but values holds {len(present)}")
    expected = reference(name, present)
    if not math.isclose(ref, expected, rel_tol=_SAME):
        raise ConfigError(
            f"{where}/ref: {ref:g}, but its values say {expected:g}; values decide, so make a new "
            "proposal instead of editing: pdserve baseline propose"
        )


def cell_envelopes(
    records: Sequence[Record], system: System, names: Sequence[str]
) -> dict[str, Envelope]:
    """Envelopes of one cell from its valid runs.

    Where the system names no limit of its own, the first run's value is kept for the judgement of
    nights: later ones of a session are made only if that one looks odd.

    Left out is a metric that a run lacks or voids, a timing of 0, and a count that differs between
    the runs, as prompt tokens of a sampled dataset do.
    """
    envelopes = {}
    for name in names:
        present = values_of(records, name)
        if present is None:
            continue
        fixed = system.judgement.rtol.get(name)
        nightly = fixed is None and METRICS[name].better != "equal"
        with contextlib.suppress(ValueError):
            if nightly:
                envelopes[name] = envelope_of_nights(name, present[:1])
            else:
                envelopes[name] = envelope_from_runs(name, present, fixed or 0.0)
    return envelopes


def record_envelopes(
    records: Sequence[Record],
    system: System,
    *,
    path: Path,
    suite: str,
    names: Sequence[str],
    fingerprint: str | None = None,
) -> Path:
    """Write the envelopes of one cell into the baseline at *path*, beside the cells it has.

    :param records: the valid runs of one cell.
    :raises ConfigError: if a run was simulated and *system* is a real one, or *path* lies inside
        the installed package.
    :raises StoreError: if the file cannot be written.
    """
    check_own(path)
    _check_simulated(records, system)
    first = records[0]
    old = load_baseline(path, system=system, suite=suite)
    runs = tuple(dict.fromkeys((*(old.runs if old else ()), first.session)))
    cells = _cells_of(old, len(runs))
    made = cell_envelopes(records, system, names)
    before = runs.index(first.session)
    cells.setdefault(first.topology, {})[first.workload.id] = _padded(made, len(runs), before)
    baseline = Baseline(
        system=system.name,
        suite=suite,
        source=str(path),
        provenance=Sources(
            date=datetime.now(UTC).date().isoformat(),
            runs=runs,
            fingerprint=fingerprint,
            versions=first.versions,
            host=first.host if fingerprint is not None else {},
        ),
        cells=cells,
    )
    write_baseline(path, baseline)
    return path


def _check_simulated(records: Sequence[Record], system: System) -> None:
    if any(r.simulated for r in records) and not system.simulated:
        raise ConfigError(
            f"{records[0].session.id} was simulated, so it cannot become a baseline of "
            f"{system.name!r}, which is not; measure it there"
        )


def _cells_of(baseline: Baseline | None, runs: int) -> dict[str, dict[str, Mapping[str, Envelope]]]:
    """Return all cells of *baseline*, with a place for each of *runs* runs."""
    return {
        topology: {w: _padded(metrics, runs) for w, metrics in workloads.items()}
        for topology, workloads in (baseline.cells if baseline else {}).items()
    }


def _padded(metrics: Mapping[str, Envelope], runs: int, before: int = 0) -> Mapping[str, Envelope]:
    """Return the same envelopes, in whose cell the other ones of *runs* runs have no value.

    :param before: runs before the first one that has a value.
    """

    def padded(values: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return (*[None] * before, *values, *[None] * (runs - before - len(values)))

    return {
        name: replace(e, values=padded(e.values)) if e.values else e for name, e in metrics.items()
    }


def merge(*baselines: Baseline | None) -> Baseline | None:
    """One baseline that knows the envelopes of all; later ones win."""
    given = [baseline for baseline in baselines if baseline is not None]
    if not given:
        return None
    cells: dict[str, dict[str, dict[str, Envelope]]] = {}
    for baseline in given:
        for topology, workloads in baseline.cells.items():
            for workload, metrics in workloads.items():
                cells.setdefault(topology, {}).setdefault(workload, {}).update(metrics)
    return replace(given[-1], cells=cells, source=" + ".join(b.source for b in given))
