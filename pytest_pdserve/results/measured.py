"""Runs for a comparison, from records, baselines, figures, and results of other tools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import PurePath

from pytest_pdserve.judge.sanity import check_sanity
from pytest_pdserve.results.imported import Readable
from pytest_pdserve.results.server_flags import server_flags
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.measurements import Facts
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import Workload

NO_CLIENT = "figures"
"""Kind of client of values that were read off plots: the real one is unknown."""
_SIMULATED = "simulated"
_MEASURED = "measured or simulated"
_LOAD_AND_CLIENT = ("sweep.", "bench.")
"""Tables of a system file that the load and the client already contain."""
_NO_KV_TRANSFERS = Topology.parse("dp")
"""Stands for an unknown topology: without KV transfers, sanity checks the client's numbers only."""


def runs_of_records(records: Iterable[Record], where: str) -> tuple[MeasuredRun, ...]:
    """Return the runs of *records*, oldest first.

    :param where: folder or file, for messages.
    """
    ordered = sorted(records, key=lambda each: (each.started_at, each.repeat))
    return tuple(_of_record(number, record, where) for number, record in enumerate(ordered))


def _of_record(number: int, record: Record, where: str) -> MeasuredRun:
    start_is_known = record.start is not None
    return MeasuredRun(
        where=f"{where} ({record.session.id}, {record.cell}, repeat {record.repeat})",
        topology=record.topology,
        workload=record.workload,
        workload_id=record.workload.id,
        evidence=(
            record.session.id,
            f"start {record.start}" if start_is_known else f"run {number}",
        ),
        at=record.started_at,
        system=record.system,
        client=record.client_kind,
        metrics=record.metrics,
        voids=_voids(record.findings),
        invalid=_invalid(record.findings),
        unproven=bool(record.unproven),
        facts=_facts_of_record(record),
    )


def _facts_of_record(record: Record) -> Facts:
    facts = _host_facts(record.host)
    conditions = {
        "prefix cache emptied": _yes_or_no(record.prefix_cache_reset),
        "compiled kernels": record.compiled,
    }
    hardware = {
        "fingerprint": record.fingerprint,
        "nodes": _listed(record.nodes),
        "GPUs": _listed(gpu.name for gpu in record.gpus),
        **facts["hardware"],
    }
    return {
        "origin": _origin(record.system, simulated=record.simulated),
        "versions": dict(record.versions),
        "flags": server_flags(record.processes),
        "settings": facts["settings"],
        "hardware": _nonempty(hardware),
        "client": {"kind": record.client_kind, **facts["client"]},
        "conditions": _nonempty(conditions),
    }


def _origin(system: str, *, simulated: bool) -> dict[str, str]:
    return {"system": system, _MEASURED: _SIMULATED if simulated else "measured"}


def is_simulated(run: MeasuredRun) -> bool:
    """Tell whether the run was simulated."""
    return run.facts.get("origin", {}).get(_MEASURED) == _SIMULATED


def _nonempty(facts: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted({*names}))


def _yes_or_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _voids(findings: Sequence[Finding]) -> dict[str, str]:
    """Return each metric that a finding voids, with the message of the first finding."""
    voids: dict[str, str] = {}
    for finding in findings:
        for metric in finding.voids:
            voids.setdefault(metric, finding.message)
    return voids


def _invalid(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(f"{f.check}: {f.message}" for f in findings if f.severity == "invalid")


def _host_facts(host: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the facts of a host by group: keys of a system file have a dot, hardware has none."""
    facts: dict[str, dict[str, str]] = {"hardware": {}, "settings": {}, "client": {}}
    for name, value in host.items():
        if "." not in name:
            facts["hardware"][name] = value
        elif name.startswith("bench."):
            facts["client"][name] = value
        elif not name.startswith(_LOAD_AND_CLIENT):
            facts["settings"][name] = value
    return facts


def runs_of_baseline(
    baseline: Baseline, workloads: Mapping[str, Workload], *, simulated: bool
) -> tuple[MeasuredRun, ...]:
    """Return the nights of a baseline's cells, oldest first.

    :param workloads: loads of its system file by id; a baseline has only the ids.
    :param simulated: whether its system is simulated.
    """
    sources = {source.id: source for source in baseline.sessions}
    return tuple(
        MeasuredRun(
            where=f"{baseline.source} ({topology}, {workload}, {night.session})",
            topology=topology,
            workload=workloads.get(workload),
            workload_id=workload,
            evidence=(night.session,),
            at=sources[night.session].started_at,
            system=baseline.system,
            client=night.client,
            metrics={**night.values, **cell.counts},
            facts=_facts_of_night(night, sources[night.session], baseline, simulated=simulated),
        )
        for topology, cells in baseline.cells.items()
        for workload, cell in cells.items()
        for night in cell.nights
    )


def _facts_of_night(night: Night, source: Source, baseline: Baseline, *, simulated: bool) -> Facts:
    facts = _host_facts(baseline.host)
    hardware = {"fingerprint": baseline.fingerprint, "nodes": _listed(source.nodes)}
    return {
        "origin": _origin(baseline.system, simulated=simulated),
        "versions": dict(source.versions),
        "settings": facts["settings"],
        "hardware": _nonempty({**hardware, **facts["hardware"]}),
        "client": {"kind": night.client, **facts["client"]},
    }


def runs_of_figures(
    figures: Figures, system: str, host: Mapping[str, str]
) -> tuple[MeasuredRun, ...]:
    """Return the cells of plots as runs: one reading each.

    :param host: facts of the plotted system, from its system file.
    """
    facts = {
        **_host_facts(host),
        "origin": {"system": system, _MEASURED: "read off plots, one run per cell"},
        "versions": dict(figures.versions),
        "client": {},
    }
    return tuple(
        MeasuredRun(
            where=f"{figures.source} ({cell.topology}, {cell.workload.id})",
            topology=cell.topology,
            workload=cell.workload,
            workload_id=cell.workload.id,
            evidence=(figures.source,),
            system=system,
            client=NO_CLIENT,
            metrics={name: reading.value for name, reading in cell.metrics.items()},
            facts=facts,
        )
        for cell in figures.record
    )


def runs_of_results(
    results: Iterable[Readable], topology: Topology | None, versions: Mapping[str, str]
) -> tuple[MeasuredRun, ...]:
    """Return the runs in result files of other tools; nothing is written.

    :param topology: topology of the servers; None if unknown.
    :param versions: versions of the servers, beside those in the files.
    """
    runs = [_of_result(each, topology, versions) for each in _unique(results)]
    return tuple(sorted(runs, key=lambda run: run.at or ""))


def _unique(results: Iterable[Readable]) -> Iterator[Readable]:
    """Yield every result once, even if it is in several files."""
    yield from {each.digest: each for each in results}.values()


def _of_result(
    read: Readable, topology: Topology | None, versions: Mapping[str, str]
) -> MeasuredRun:
    run = read.run
    versions = {**run.versions, **versions}
    seen = Observation(
        topology=topology or _NO_KV_TRANSFERS,
        workload=read.workload,
        result=run.result,
        vllm_version=versions.get("vllm"),
    )
    findings = check_sanity(seen)
    served_by = json.dumps(dict(run.served_by), sort_keys=True)
    start = (served_by, f"start {run.start}") if run.start is not None else (read.digest,)
    settings = {("model.path" if k == "model" else k): v for k, v in run.served_by.items()}
    if "model.path" in settings:
        settings["model.path"] = PurePath(settings["model.path"]).name
    return MeasuredRun(
        where=run.where,
        topology=topology.id if topology else UNKNOWN,
        workload=read.workload,
        workload_id=read.workload.id,
        evidence=start,
        at=None if run.date is None else utc_text(run.date),
        client=run.client_kind,
        metrics=METRICS.measure(seen),
        voids=_voids(findings),
        invalid=_invalid(findings),
        unproven=any(finding.severity == "unproven" for finding in findings),
        facts={
            "origin": {_MEASURED: "measured"},
            "versions": versions,
            "settings": settings,
            "client": {"kind": run.client_kind},
        },
    )
