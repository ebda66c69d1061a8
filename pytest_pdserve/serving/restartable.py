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
        start: int,
        store: RunStore,
        provenance: Provenance,
    ) -> tuple[Record, Path]:
        """Run *workload* once and write its record.

        :param start: of the servers, counted from 0.
        :returns: the record, and its file.
        """

    def become(self, other: Any) -> None:
        """Stand for the servers of *other*, which replaced these."""


Start = Callable[[int], contextlib.AbstractContextManager[Servers]]
"""Stands the topology up; the argument counts starts from 0."""


class RestartableDeployment:
    """The topology as it is up now; :meth:`restart` replaces it."""

    def __init__(self, start: Start, *, restartable: bool) -> None:
        self._start = start
        self._stack = contextlib.ExitStack()
        self._servers: Servers | None = None
        self._trouble = "the topology was not started"
        self.starts = 0
        self.restartable = restartable
        """Whether it can be started anew: not what somebody else runs."""

    @property
    def deployment(self) -> Servers:
        """The servers that are up.

        :raises LaunchError: if the last start failed.
        """
        if self._servers is None:
            raise LaunchError(self._trouble)
        return self._servers

    def restart(self) -> None:
        """End all servers and start them anew, on the same nodes.

        :raises PdserveError: if they do not come up again; later tests are told the same.
        """
        before, self._servers = self._servers, None
        try:
            self._stack.close()
        except PdserveError as error:
            self._trouble = f"this topology did not end: {error}"
            raise
        self._open()
        if before is not None:
            before.become(self._servers)
            self._servers = before  # who holds it asks the servers that are up

    def _open(self) -> None:
        try:
            self._servers = self._stack.enter_context(self._start(self.starts))
        except PdserveError as error:
            self._trouble = f"start {self.starts + 1} of this topology failed: {error}"
            raise
        finally:
            self.starts += 1

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
