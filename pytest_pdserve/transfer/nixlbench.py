"""Runs NIXL's own benchmark, ``nixlbench``, between the same nodes, if it is installed."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.backends.nodes import spare_hosts
from pytest_pdserve.backends.passing import secret_env
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.nixlbench import PROGRAM
from pytest_pdserve.plan.nixlbench import nixlbench_command
from pytest_pdserve.plan.nixlbench import nixlbench_gb_s
from pytest_pdserve.results.redaction import redact_file
from pytest_pdserve.results.transfer import SUITE
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import BenchRates
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferShape

ETCD = "NIXL_ETCD_ENDPOINTS"
"""Variable with the URL of the etcd server through which the two processes find each other."""
_LIMIT_S = 60.0
"""Timeout of one pair and shape."""
_POLL_S = 0.05


def find_nixlbench(system: System) -> str | None:
    """Return the path of ``nixlbench``; None if it is missing, or servers run in containers."""
    return None if system.container.contained else program_path(PROGRAM)


@dataclass(frozen=True, slots=True, kw_only=True)
class NixlBench:
    """Runs ``nixlbench`` on nodes of a session."""

    allocation: Allocation
    system: System
    program: str
    """Path of ``nixlbench``."""
    folder: Path
    """Folder of the session; logs are in a subfolder."""
    progress: Progress

    def measure(self, measured: Sequence[PairFigures]) -> BenchRates:
        """Run it for all node pairs and shapes of *measured* that have one transfer at a time.

        The benchmark chooses which of two nodes reads, so each two nodes are run once. A run that
        fails is reported, and its rate is None.
        """
        found: dict[tuple[str, str], list[float | None]] = {}
        done: set[frozenset[str]] = set()
        with Heartbeat(self.progress, f"running {PROGRAM}") as beat:
            for one in measured:
                nodes = frozenset((one.backend, one.pair.reader, one.pair.source))
                if nodes in done:
                    continue
                done.add(nodes)
                for shape in (figure.shape for figure in one.figures):
                    if shape.in_flight == 1:
                        beat.now(f"{PROGRAM} between {one.pair}, {one.backend}, {shape.id}")
                        rates = found.setdefault((one.backend, shape.id), [])
                        rates.append(self._run(one, shape, beat))
        return found

    def _run(self, one: PairFigures, shape: TransferShape, progress: Progress) -> float | None:
        """Return the GB/s of one pair and shape; report a failure and return None."""
        held = (*self.allocation.hosts, *spare_hosts(self.allocation))
        hosts = {host.name: host for host in held}
        nodes, group = (one.pair.source, one.pair.reader), f"pdserve-{secrets.token_hex(4)}"
        commands = [
            nixlbench_command(
                self.system,
                hosts[node],
                program=self.program,
                backend=one.backend,
                memory=one.memory,
                shape=shape,
                group=group,
                etcd=os.environ.get(ETCD, ""),
            )
            for node in nodes
        ]
        own = self.folder / SUITE / PROGRAM / f"{one.backend}-{'-'.join(nodes)}-{shape.id}"
        logs = [own / f"{node}.log" for node in nodes]
        why = self._why_failed(commands, logs)
        texts = [log.read_text(errors="replace") for log in logs if log.exists()]
        rates = [rate for text in texts if (rate := nixlbench_gb_s(text, shape)) is not None]
        if rates and not why:
            return rates[0]
        progress(
            f"{PROGRAM} between {one.pair}, {one.backend}, {shape.id} failed: "
            f"{why or 'it printed no GB/s of this shape'}; logs {own}"
        )
        return None

    def _why_failed(self, commands: Sequence[Command], logs: Sequence[Path]) -> str:
        """Run both processes; return the error, empty if they succeeded."""
        try:
            processes = self.allocation.start(commands, logs=logs, secrets=secret_env(commands, ""))
        except LaunchError as error:
            return str(error)
        try:
            deadline = time.monotonic() + _LIMIT_S
            while any(process.poll() is None for process in processes):
                if time.monotonic() > deadline:
                    return f"it did not end within {_LIMIT_S:.0f} s"
                time.sleep(_POLL_S)
            codes = [process.poll() or 0 for process in processes]
            return next((f"it {exit_text(code)}" for code in codes if code), "")
        finally:
            self.allocation.stop(processes)
            for log in logs:
                redact_file(log)
