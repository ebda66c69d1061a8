"""The GPUs of a job's nodes: a step that watches them, and what it saw during a load."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pytest_pdserve.backends.hosts.gpu_logs import LoggedGpus
from pytest_pdserve.backends.hosts.gpu_logs import sizes_of
from pytest_pdserve.backends.hosts.gpu_logs import watching_logs
from pytest_pdserve.backends.slurm.options import NodeFacts
from pytest_pdserve.plan.command import Command
from pytest_pdserve.values.errors import LaunchError

_MODULE = "pytest_pdserve.backends.hosts.gpu_log"
_FIRST_S = 10.0
"""Longest wait for the nodes' first samples; without them a record lacks GPUs."""
_POLL_S = 0.1


class NodeGpus:
    """The GPUs of nodes, sampled by one step from the first load on until the job ends."""

    def __init__(self, folder: Path, facts: Sequence[NodeFacts]) -> None:
        self._folder = folder / "gpus"
        self._files = {
            seen.node: self._folder / f"{seen.node}.jsonl" for seen in facts if seen.gpus
        }
        self._started = False

    def watching(
        self, nodes: Iterable[str], start: Callable[[Sequence[Command], Sequence[Path]], object]
    ) -> AbstractContextManager[LoggedGpus]:
        """Watch the GPUs of *nodes* until the block is left; nothing if none has any.

        :param nodes: those in use; all nodes are sampled, as a spare one may take a place.
        :param start: starts commands on their nodes, with a log each.
        """
        if self._files and not self._started:
            self._started = True
            self._start(start)
        return watching_logs({node: self._files[node] for node in nodes if node in self._files})

    def _start(self, start: Callable[[Sequence[Command], Sequence[Path]], object]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        commands = [
            Command(name=f"gpus-{node}", node=node, argv=(sys.executable, "-m", _MODULE, str(path)))
            for node, path in self._files.items()
        ]
        try:
            start(commands, [path.with_suffix(".log") for path in self._files.values()])
        except LaunchError:
            return  # a node that cannot start a step is detected elsewhere
        deadline = time.monotonic() + _FIRST_S
        while not all(sizes_of(self._files).values()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
