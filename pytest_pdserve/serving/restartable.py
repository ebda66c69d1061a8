"""Restart a topology's servers: only runs on different starts are independent evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from typing import Protocol
from typing import Self

from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload


class Servers(Protocol):
    """Servers of a topology that are up, real or simulated."""

    @property
    def topology(self) -> Topology:
        """Topology."""

    @property
    def system(self) -> System:
        """System that they run on."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions that the servers report, in addition to those that nodes report."""

    def measure(
        self,
        workload: Workload,
        *,
        repeat: int,
        start: int | None,
        store: RunStore,
        provenance: Provenance,
    ) -> tuple[Record, Path]:
        """Run *workload* once and write its record.

        :param start: number of the servers' start, from 0; None for servers that were already up.
        :returns: the record and its file.
        """

    def replace_servers(self, other: Any) -> None:
        """Refer to the servers of *other* from now on, which replaced these."""


Start = Callable[[int], contextlib.AbstractContextManager[Servers]]
"""Starts the servers of a topology; the argument is the number of the start, from 0."""


class RestartableDeployment:
    """A topology whose servers are started at first use, and can be restarted.

    Starts are counted over the whole session: a topology may be stopped and started again.
    """

    def __init__(self, start: Start, topology: Topology, *, restartable: bool) -> None:
        self._start = start
        self._stack = contextlib.ExitStack()
        self._servers: Servers | None = None
        self._trouble: PdserveError | None = None
        self.topology = topology
        self.starts = 0
        """Number of starts so far, failed ones included."""
        self.restartable = restartable
        """True if it can be restarted; False for servers that were already up."""

    @property
    def usable(self) -> bool:
        """True if neither a start nor a stop of its servers has failed."""
        return self._trouble is None

    @property
    def rerun_target(self) -> str:
        """What a cell is run again on, for messages."""
        return "a fresh start" if self.restartable else "the same servers"

    @property
    def deployment(self) -> Servers:
        """Servers that are up; they are started if necessary.

        :raises PdserveError: if they cannot be started; later calls raise the same.
        """
        if self._trouble is not None:
            raise self._trouble
        if self._servers is None:
            self._open()
        assert self._servers is not None
        return self._servers

    def restart(self) -> None:
        """Stop the servers, if they are up, and start them again on the same nodes.

        :raises PdserveError: if they cannot be started again, or could not be before.
        """
        if self._trouble is not None:
            raise self._trouble
        before, self._servers = self._servers, None
        try:
            self._stack.close()
        except PdserveError as error:
            self._trouble = LaunchError(f"this topology did not end: {error}")
            raise
        servers = self._open()
        if before is not None:
            before.replace_servers(servers)
            self._servers = before  # callers that hold this object now use the new servers

    def _open(self) -> Servers:
        try:
            self._servers = self._stack.enter_context(self._start(self.starts))
        except PdserveError as error:
            self._trouble = error
            raise
        finally:
            self.starts += 1
        return self._servers

    def stop(self) -> None:
        """Stop the servers, if they are up; they are started again at the next use.

        :raises PdserveError: if they cannot be stopped.
        """
        self._servers = None
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._servers = None
        self._stack.__exit__(kind, error, trace)
