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
from typing import Any

import platformdirs

from pytest_pdserve.judge.stats import envelope_from_runs
from pytest_pdserve.judge.stats import envelope_of_nights
from pytest_pdserve.judge.stats import reference
from pytest_pdserve.results.files import check_schema
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.systems import check_own
from pytest_pdserve.values.baseline import SCHEMA_VERSION
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import COUNTS
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.metrics import TIMES
from pytest_pdserve.values.record import Record
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
    fingerprint: str | None = None,
    system: str | None = None,
    suite: str | None = None,
) -> Baseline | None:
    """Read a baseline; None if there is no such file.

    :param fingerprint: of this host, where the baseline holds for one host only.
    :param system: name of the system that it must be of; None admits any.
    :param suite: suite that it must be of; None admits any.
    :raises ConfigError: if it is malformed, names an unknown metric, or is of another host, system
        or suite.
    """
    if not path.exists():
        return None
    data = load_json(path)
    _check_version(data, path)
    check_schema(data, "baseline", path)
    for key, wanted in (("system", system), ("suite", suite)):
        if wanted is not None and data[key] != wanted:
            raise ConfigError(
                f"{path}: /{key}: is of {data[key]!r}, but {wanted!r} is judged by it; put it "
                "where it belongs, or record one here with --pdserve-record"
            )
    for topology, workloads in data["topologies"].items():
        for workload, metrics in workloads.items():
            for name, entry in metrics.items():
                where = f"{path}: /topologies/{topology}/{workload}/{name}"
                _check_envelope(name, entry, where)
                _check_values(name, entry, len(data["provenance"]["runs"]), where)
    baseline = Baseline.from_json(data, source=str(path))
    theirs = baseline.provenance["fingerprint"]
    if theirs is not None and fingerprint is not None and theirs != fingerprint:
        raise ConfigError(
            f"{path} was recorded on another host or system file (fingerprint {theirs}, here "
            f"{fingerprint}); move it away, and record or propose one of this"
        )
    return baseline


def _check_version(data: Any, path: Path) -> None:
    """Refuse what another version wrote: what its keys meant is never guessed."""
    if not isinstance(data, dict):
        return
    found = data.get("schema_version", ...)
    if type(found) is int and found == SCHEMA_VERSION:
        return
    said = (
        ": 'schema_version' is a required property"
        if found is ...
        else f"schema_version: {SCHEMA_VERSION} was expected, not {str(found)[:40]!r}"
    )
    raise ConfigError(
        f"{path}: /{said}; no other is read or converted: use the pytest-pdserve that wrote it, or "
        "move it away and record another with --pdserve-record"
    )


def _check_envelope(name: str, entry: Mapping[str, Any], where: str) -> None:
    metric = METRICS.get(name)
    if metric is None:
        raise ConfigError(f"{where}: unknown metric {name!r}; known are {', '.join(METRICS)}")
    if entry["better"] != metric.better:
        raise ConfigError(
            f"{where}/better: {entry['better']!r}, but of {name} {metric.better!r} is better"
        )
    if entry["unit"] != metric.unit:
        raise ConfigError(f"{where}/unit: {entry['unit']!r}, but {name} is in {metric.unit!r}")
    ref, rtol = entry["ref"], entry["rtol"]
    if metric.better == "equal":
        if rtol != 0:
            raise ConfigError(f"{where}/rtol: {rtol}, but a count has no room: 0")
    elif ref == 0:
        raise ConfigError(f"{where}/ref: {ref}, but a timing or rate is above 0")
    if metric.better == "higher" and rtol >= 1:
        raise ConfigError(f"{where}/rtol: {rtol} admits every value; must be below 1")


def _check_values(name: str, entry: Mapping[str, Any], runs: int, where: str) -> None:
    """Make sure that the values of runs, the reference and the number of runs say the same."""
    if "values" not in entry:
        return
    values, ref = entry["values"], entry["ref"]
    if METRICS[name].better == "equal":
        raise ConfigError(f"{where}/values: a count has one value; leave them out")
    if "known_issue" in entry:
        raise ConfigError(
            f"{where}/known_issue: is strict, which needs a fixed limit; leave out values"
        )
    if entry["rtol"] > METRICS[name].outer:
        raise ConfigError(
            f"{where}/rtol: {entry['rtol']:g}, but beside values the outer limit holds: "
            f"{METRICS[name].outer:g} at most"
        )
    if len(values) != runs:
        raise ConfigError(
            f"{where}/values: {len(values)} values for the {runs} runs of /provenance/runs; one "
            "each, null where the cell has none"
        )
    present = [value for value in values if value is not None]
    if len(present) != entry["runs"]:
        raise ConfigError(f"{where}/runs: {entry['runs']}, but values holds {len(present)}")
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
    voided = frozenset[str]().union(*(record.voided for record in records))
    envelopes = {}
    for name in names:
        values = [dict(record.metrics).get(name) for record in records]
        present = [value for value in values if value is not None]
        if name in voided or len(present) < len(values):
            continue
        fixed = dict(system.judgement.rtol).get(name)
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
    names: Sequence[str] = (*TIMES, *COUNTS),
    fingerprint: str | None = None,
) -> Path:
    """Write the envelopes of one cell into the baseline at *path*, beside the cells it has.

    :param records: the valid runs of one cell.
    :raises ConfigError: if a run was simulated and *system* is a real one, or *path* lies inside
        the installed package.
    :raises StoreError: if the file cannot be written.
    """
    check_own(path)
    first = records[0]
    if any(r.simulated for r in records) and system.cluster.kind != "simulated":
        raise ConfigError(
            f"{first.run_id} was simulated, so it cannot become a baseline of {system.name!r}, "
            f"which is of kind {system.cluster.kind!r}; measure it there"
        )
    old = load_baseline(path, system=system.name, suite=suite)
    runs = tuple(dict.fromkeys((*(old.runs if old else ()), first.run_id)))
    cells: dict[str, dict[str, Mapping[str, Envelope]]] = {}
    for topology, workloads in (old.cells if old else {}).items():
        cells[topology] = {w: _padded(metrics, len(runs)) for w, metrics in workloads.items()}
    made = cell_envelopes(records, system, names)
    place = runs.index(first.run_id)
    cells.setdefault(first.topology, {})[first.workload.id] = {
        name: replace(e, values=(*[None] * place, *e.values, *[None] * (len(runs) - place - 1)))
        if e.values
        else e
        for name, e in made.items()
    }
    baseline = Baseline(
        system=system.name,
        suite=suite,
        source=str(path),
        provenance={
            "date": datetime.now(UTC).date().isoformat(),
            "runs": list(runs),
            "fingerprint": fingerprint,
            "versions": dict(first.versions),
        },
        cells=cells,
    )
    data = baseline.to_json()
    check_schema(data, "baseline", path)
    write_json(path, data)
    return path


def _padded(metrics: Mapping[str, Envelope], runs: int) -> Mapping[str, Envelope]:
    """The same envelopes, in whose cell the latest of *runs* runs have no value."""
    return {
        name: replace(e, values=(*e.values, *[None] * (runs - len(e.values)))) if e.values else e
        for name, e in metrics.items()
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
