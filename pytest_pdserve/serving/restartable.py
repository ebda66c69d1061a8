"""A topology that can be started anew: runs of one start are no independent evidence."""

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
    """A topology that is up, whatever serves it."""

    @property
    def topology(self) -> Topology:
        """What is served."""

    @property
    def system(self) -> System:
        """What it runs on."""

    @property
    def versions(self) -> Mapping[str, str]:
        """What the servers say of their versions, beside what nodes tell."""

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

        :param start: of the servers, counted from 0; None of servers that somebody else started.
        :returns: the record, and its file.
        """

    def become(self, other: Any) -> None:
        """Stand for the servers of *other*, which replaced these."""


Start = Callable[[int], contextlib.AbstractContextManager[Servers]]
"""Stands the topology up; the argument counts starts from 0."""


class RestartableDeployment:
    """A topology that is started when its servers are first asked for; :meth:`restart` replaces it.

    Starts are counted over the session, as a topology may be ended and come back.
    """

    def __init__(self, start: Start, topology: Topology, *, restartable: bool) -> None:
        self._start = start
        self._stack = contextlib.ExitStack()
        self._servers: Servers | None = None
        self._trouble: PdserveError | None = None
        self.topology = topology
        """What is served."""
        self.starts = 0
        """Starts so far, failed ones included."""
        self.restartable = restartable
        """Whether it can be started anew: not what somebody else runs."""

    @property
    def stands(self) -> bool:
        """Whether nothing has kept its servers from coming up, or from ending."""
        return self._trouble is None

    @property
    def where_again(self) -> str:
        """Where a cell runs again, for messages."""
        return "a fresh start" if self.restartable else "the same servers"

    @property
    def deployment(self) -> Servers:
        """The servers that are up; they are started if they were not yet.

        :raises PdserveError: if they do not come up; later calls raise the same.
        """
        if self._trouble is not None:
            raise self._trouble
        if self._servers is None:
            self._open()
        assert self._servers is not None
        return self._servers

    def restart(self) -> None:
        """End the servers, if they are up, and start them anew on the same nodes.

        :raises PdserveError: if they do not come up again, or did not before.
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
            before.become(servers)
            self._servers = before  # who holds it asks the servers that are up

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
        """End the servers, if they are up; they are started again when they are asked for.

        :raises PdserveError: if they do not end.
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
