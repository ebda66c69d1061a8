"""``pdserve transfer``: measure KV transfers between nodes without a model."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from typing import get_args

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.transfer import TransferBackend

if TYPE_CHECKING:
    from pytest_pdserve.backends.allocation import Allocation
    from pytest_pdserve.judge.transfer import TransferVerdict
    from pytest_pdserve.results.store import RunStore
    from pytest_pdserve.session.project import Project
    from pytest_pdserve.transfer.measuring import TransferPlan
    from pytest_pdserve.values.system import System
    from pytest_pdserve.values.transfer import BenchRates
    from pytest_pdserve.values.transfer import Pair
    from pytest_pdserve.values.transfer import PairFigures
    from pytest_pdserve.values.transfer import TransferBaseline
    from pytest_pdserve.values.transfer import TransferShape

NAME = "transfer"
TEXT = "Measure KV transfers between nodes without a model, and judge them by a baseline"
DESCRIPTION = (
    f"{TEXT}. Exit codes: 0 no pair is slower, 1 FAIL, 4 bad input, 7 a transfer failed or "
    "delivered wrong bytes (docs/transfer.md)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_system(parser)
    add_runs(parser)
    parser.add_argument(
        "--pair",
        action="append",
        default=[],
        metavar="A,B",
        help="Two nodes, by name or by position from 0, in both directions; may be given several "
        "times (default: all pairs)",
    )
    parser.add_argument(
        "--backends",
        metavar="NAME[,NAME]",
        help="NIXL backends, UCX and LIBFABRIC (default: [transfer] backends of the system file, "
        "else [kv_transfer] backend)",
    )
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="ID",
        help="Transfer to measure, e.g. 256tok or 16MiB-x4; repeatable (default: the system's)",
    )
    parser.add_argument(
        "--repeats",
        type=_repeats,
        metavar="N",
        help="Times that each is measured, at least 3 (default: [transfer] repeats, else 9)",
    )
    parser.add_argument(
        "--accept", action="store_true", help="Add the measurements to the system's baseline"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="Also write figures and verdicts to FILE"
    )
    parser.add_argument(
        "--job-id", metavar="ID", help="Use the nodes of a running Slurm job, and leave it running"
    )


def _repeats(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 3 <= int(text[:6]) <= 1000):
        raise argparse.ArgumentTypeError(f"{text!r:.80}: expected a number from 3 to 1000")
    return int(text)


def _backends(text: str) -> tuple[TransferBackend, ...]:
    """Parse ``--backends``.

    :raises ConfigError: if one is unknown.
    """
    by_name: dict[str, TransferBackend] = {name: name for name in get_args(TransferBackend)}
    words = list(dict.fromkeys(text.split(",")))
    for word in words:
        if word not in by_name:
            raise ConfigError(f"--backends {word!r:.80}: expected {' or '.join(sorted(by_name))}")
    return tuple(by_name[word] for word in words)


def run(options: argparse.Namespace) -> int:
    """Measure, write records, print tables, judge."""
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.plan.transfer import check_positions
    from pytest_pdserve.plan.transfer import transfer_backends
    from pytest_pdserve.results.store import check_runs_folder
    from pytest_pdserve.transfer.measuring import check_transfers
    from pytest_pdserve.transfer.measuring import chosen_cases
    from pytest_pdserve.transfer.measuring import shapes_of

    project = find_project(options)
    system = system_in(project)
    check_transfers(system)
    backend = backend_of(system)
    if options.job_id is not None and not backend.takes_jobs:
        raise ConfigError(
            f"--job-id {options.job_id}: system {system.name!r} is of kind {backend.name!r}, which "
            "has no jobs; leave it out"
        )
    check_positions(options.pair, system)
    cases = chosen_cases(system, options.case)
    chosen = transfer_backends(system) if options.backends is None else _backends(options.backends)
    backend.check(system)
    check_runs_folder(project.runs)
    shapes = shapes_of(system, cases, progress=_progress)
    for number in (signal.SIGTERM, signal.SIGINT):  # a background job inherits SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    return _measure(options, project, system, backends=chosen, shapes=shapes)


def _progress(text: str) -> None:
    print(f"pdserve transfer: {text}", file=sys.stderr, flush=True)


def _measure(
    options: argparse.Namespace,
    project: Project,
    system: System,
    *,
    backends: tuple[TransferBackend, ...],
    shapes: tuple[TransferShape, ...],
) -> int:
    """Acquire nodes, measure and judge, and release the nodes."""
    from pytest_pdserve.backends.backend import Request
    from pytest_pdserve.backends.nodes import spare_hosts
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.plan.transfer import all_pairs
    from pytest_pdserve.plan.transfer import named_pairs
    from pytest_pdserve.results.redaction import redacting_files
    from pytest_pdserve.results.store import create_run
    from pytest_pdserve.serving.provenance import fingerprint
    from pytest_pdserve.transfer.measuring import TransferPlan

    backend, store = backend_of(system), create_run(project.runs, system.name)
    request = Request(folder=store.folder / backend.name, progress=_progress, job_id=options.job_id)
    with redacting_files(store.folder), backend.acquire(system, request) as allocation:
        nodes = tuple(host.name for host in (*allocation.hosts, *spare_hosts(allocation)))
        plan = TransferPlan(
            pairs=named_pairs(options.pair, nodes) if options.pair else all_pairs(nodes),
            backends=backends,
            shapes=shapes,
            repeats=options.repeats or system.transfer.repeats,
        )
        digest = fingerprint(allocation.describe_nodes(), system)
        measuring = _Measuring(
            allocation=allocation, system=system, plan=plan, store=store, digest=digest
        )
        return _judge(options, project, measuring)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measuring:
    """Measures pairs on acquired nodes, and writes records."""

    allocation: Allocation
    system: System
    plan: TransferPlan
    store: RunStore
    digest: str

    def measure(self, pairs: tuple[Pair, ...], label: str = "") -> tuple[PairFigures, ...]:
        """Measure every shape between *pairs*.

        :param label: prefix of file names.
        """
        from pytest_pdserve.results.transfer import write_transfers
        from pytest_pdserve.transfer.measuring import measure_transfers

        found = measure_transfers(
            self.allocation,
            self.system,
            replace(self.plan, pairs=pairs),
            folder=self.store.folder,
            progress=_progress,
            label=label or "agents",
        )
        write_transfers(found, self.store, system=self.system, fingerprint=self.digest, label=label)
        return found

    def nixlbench(self, measured: Sequence[PairFigures]) -> BenchRates:
        """Run NIXL's own benchmark between the same nodes; empty if it is not installed."""
        from pytest_pdserve.transfer.nixlbench import NixlBench
        from pytest_pdserve.transfer.nixlbench import find_nixlbench

        program = find_nixlbench(self.system)
        if program is None:
            return {}
        bench = NixlBench(
            allocation=self.allocation,
            system=self.system,
            program=program,
            folder=self.store.folder,
            progress=_progress,
        )
        return bench.measure(measured)


def _judge(options: argparse.Namespace, project: Project, measuring: _Measuring) -> int:
    """Measure, print tables and verdicts; accept the run if requested."""
    from pytest_pdserve.judge.transfer import judge_transfers
    from pytest_pdserve.judge.verdict import Status
    from pytest_pdserve.report.transfer import transfer_lines
    from pytest_pdserve.results.baselines import state_folder
    from pytest_pdserve.results.files import write_json
    from pytest_pdserve.results.transfer import SUITE
    from pytest_pdserve.results.transfer import load_transfer_baseline
    from pytest_pdserve.transfer.measuring import judge_and_confirm

    system = measuring.system
    baseline = load_transfer_baseline(system, project.rootdir, measuring.digest, state_folder())
    measured = measuring.measure(measuring.plan.pairs)
    if options.accept:
        verdicts = judge_transfers(measured, baseline)
    else:
        verdicts = judge_and_confirm(
            measured, baseline, measure_again=lambda p: measuring.measure(p, "again")
        )
    nixlbench = measuring.nixlbench(measured)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print("\n".join(transfer_lines(verdicts, system, colour=colour, bench=nixlbench)))
    print(f"records   {measuring.store.folder / SUITE}")
    if options.json is not None:
        write_json(options.json, {"system": system.name, "transfers": _rows(verdicts, nixlbench)})
    if options.accept:
        path = _accept(project, measuring, baseline, measured)
        print(f"accepted  {path}")
        return ExitCode.OK
    if any(each.status is Status.NEW for each in verdicts):
        print(f"next      pdserve transfer --system {system.name} --accept")
    failed = any(each.status is Status.FAIL for each in verdicts)
    return ExitCode.FAIL if failed else ExitCode.OK


def _accept(
    project: Project,
    measuring: _Measuring,
    baseline: TransferBaseline | None,
    measured: Sequence[PairFigures],
) -> Path:
    """Add a run to the baseline; return its file."""
    from pytest_pdserve.results.baselines import state_folder
    from pytest_pdserve.results.transfer import transfer_baseline_path
    from pytest_pdserve.results.transfer import with_accepted
    from pytest_pdserve.results.transfer import write_transfer_baseline

    system, digest = measuring.system, measuring.digest
    path = transfer_baseline_path(system, project.rootdir, digest, state_folder())
    added = with_accepted(baseline, measured, system=system, fingerprint=digest)
    write_transfer_baseline(path, added)
    return path


def _rows(verdicts: Sequence[TransferVerdict], nixlbench: BenchRates) -> list[dict[str, object]]:
    """Return figures and verdicts as ``--json`` writes them; names end with units.

    ``nixlbench_gb_s`` is measured by nixlbench, one value for every pair of nodes.
    """
    from pytest_pdserve.values.transfer import relative_spread

    return [
        {
            "reader": each.measured.pair.reader,
            "source": each.measured.pair.source,
            "backend": each.measured.backend,
            "provider": each.measured.provider,
            "memory": each.measured.memory,
            "shape": each.figure.shape.id,
            "descriptors": each.figure.shape.descriptors,
            "descriptor_bytes": each.figure.shape.descriptor_bytes,
            "in_flight": each.figure.shape.in_flight,
            "ms": each.figure.median_ms,
            "spread": each.figure.spread,
            "gb_s": each.figure.gb_s,
            "posting_ms": each.figure.median_posting_ms,
            "posting_spread": relative_spread(each.figure.posting_ms),
            "first_ms": each.figure.first_ms,
            "verdict": str(each.status),
            "reference_ms": each.reference.ms if each.reference else None,
            "limit": each.reference.limit if each.reference else None,
            "nixlbench_gb_s": nixlbench.get((each.measured.backend, each.figure.shape.id)),
        }
        for each in verdicts
    ]
