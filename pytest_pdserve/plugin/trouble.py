"""Infrastructure errors: one ERROR where it occurs, and skips of the tests that depend on it.

The place of an error determines what depends on it: of nodes the whole session, of servers their
topology, of a run only its cell, unless the same error occurs again in another cell.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.postponing import times_key
from pytest_pdserve.plugin.progress import progress_to
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.errors import ClientUnusableError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import InvalidRunError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.errors import StuckError
from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    from pytest_pdserve.backends.allocation import Allocation

broken_key = pytest.StashKey[set[str]]()
"""Topologies that ended in an ERROR."""
allocation_key: pytest.StashKey[Allocation] = pytest.StashKey()
"""The nodes, while the session holds them."""
SESSION, NODES, BENCH = "_pdserve_session", "pdserve_cluster", "_pdserve_bench"
"""Fixtures that the tests of a session share."""
_OF_SERVERS = (LaunchError, NotReadyError, StuckError)
"""Errors after which the servers of a topology are lost."""
_OF_A_CELL = (InvalidRunError, ConfigError)
"""Errors that never affect other cells."""
_VARYING = re.compile(r"\S*\d\S*")
"""Words that differ between cells: their ids, paths, lines and times."""


class Trouble(pytest.fail.Exception):  # type: ignore[name-defined,misc]
    """An infrastructure error in a fixture, shown as one message."""

    def __init__(self, error: PdserveError, lost: str) -> None:
        super().__init__(str(error), pytrace=False)
        self.error = error
        self.lost = lost
        """Fixture that is lost; empty if that depends on the error."""


@contextlib.contextmanager
def without_traceback(lost: str = "") -> Iterator[None]:
    """Show infrastructure errors as one message: in a fixture, pytest makes that an ERROR.

    :param lost: fixture that is then lost for all tests.
    :raises pytest.exit.Exception: if the benchmark client cannot run: the session ends.
    """
    try:
        yield
    except ClientUnusableError as error:
        pytest.exit(str(error), returncode=ExitCode.BAD_INPUT)
    except PdserveError as error:
        raise Trouble(error, lost) from None


def cause_of(config: pytest.Config, error: PdserveError) -> PdserveError:
    """Return the cause of an error in a test: that of the nodes, if they were lost."""
    allocation = config.stash.get(allocation_key, None)
    if allocation is None:
        return error
    from pytest_pdserve.backends.heartbeat import Heartbeat

    progress = progress_to(config, settings_of(config).system.name)
    try:
        with Heartbeat(progress, "checking the nodes"):
            allocation.diagnose()
    except PdserveError as lost:
        return lost
    return error


@dataclass(slots=True, kw_only=True)
class FirstError:
    """An ERROR that other tests depend on."""

    test: str
    """Node id of the test in which it occurred."""
    message: str
    servers_up: bool
    """True if servers were up when it occurred: then a fresh start may work."""
    skipped: list[str] = field(default_factory=list)
    """Node ids of the tests that were skipped."""

    @property
    def reason(self) -> str:
        """Reason why a test that depends on it is skipped, on one line."""
        return f"depends on the ERROR of {self.test}: {self.message.splitlines()[0]}"


@dataclass(slots=True, kw_only=True)
class Troubles:
    """The errors of a session that tests depend on."""

    fixtures: dict[str, FirstError] = field(default_factory=dict)
    """First error by the fixture that is lost."""
    topologies: dict[str, FirstError] = field(default_factory=dict)
    """First error by the topology whose servers are lost."""
    ended: dict[str, FirstError] = field(default_factory=dict)
    """First error of each topology, whatever was lost."""
    _others: dict[tuple[str, str], FirstError] = field(default_factory=dict)
    """Other errors, by topology and message."""

    def add(self, item: pytest.Item, error: PdserveError, lost: str, *, servers_up: bool) -> None:
        """Record the error of a test.

        :param lost: fixture that is lost; empty if that depends on the error.
        :param servers_up: whether the servers of the test's topology were up when it occurred.
        """
        message = str(error) or type(error).__name__
        first = FirstError(test=item.nodeid, message=message, servers_up=servers_up)
        topology = topology_of(item)
        if topology is not None:
            self.ended.setdefault(topology.id, first)
        if lost or isinstance(error, AllocationError):
            self.fixtures.setdefault(lost or NODES, first)
        elif topology is None or isinstance(error, _OF_A_CELL):
            return
        elif isinstance(error, _OF_SERVERS) or not servers_up:
            self.topologies.setdefault(topology.id, first)
        else:
            key = (topology.id, _VARYING.sub("…", first.message))
            if key in self._others:
                self.topologies.setdefault(topology.id, self._others[key])
            self._others.setdefault(key, first)

    def error_behind(self, item: pytest.Item) -> FirstError | None:
        """Return the error that a test depends on; None without one.

        A test that judges a topology as a whole uses results of its other tests, and a postponed
        test gets fresh servers.
        """
        names = getattr(item, "fixturenames", ())
        for fixture, first in self.fixtures.items():
            if fixture in names:
                return first
        topology = topology_of(item)
        looks_back = "pdserve_judge_topology" in names
        uses_servers = "_pdserve_restartable" in names and not looks_back
        first_error = self.topologies.get(topology.id) if topology and uses_servers else None
        was_postponed = item.stash.get(times_key, 0) > 0
        if first_error is not None and first_error.servers_up and was_postponed:
            return None
        return first_error

    def pointer(self, topologies: Iterable[str]) -> str:
        """Return the tests with the first errors of *topologies*, in parentheses; empty without."""
        tests = [self.ended[each].test for each in topologies if each in self.ended]
        return f" ({', '.join(dict.fromkeys(tests))})" if tests else ""

    @property
    def all(self) -> list[FirstError]:
        """Every error for which a test was skipped, once."""
        found = [*self.fixtures.values(), *self.topologies.values()]
        return [each for n, each in enumerate(found) if each.skipped and each not in found[:n]]


troubles_key = pytest.StashKey[Troubles]()


def troubles_of(config: pytest.Config) -> Troubles:
    """Return the errors of the session that tests depend on, so far."""
    return config.stash.setdefault(troubles_key, Troubles())


def skip_dependent(item: pytest.Item) -> None:
    """Skip a test that depends on an error of another test."""
    first = troubles_of(item.config).error_behind(item)
    if first is None:
        return
    first.skipped.append(item.nodeid)
    topology = topology_of(item)
    if topology is not None:
        item.config.stash.setdefault(broken_key, set()).add(topology.id)
    pytest.skip(first.reason)


def keep_for_last_failed(config: pytest.Config) -> None:
    """Let the next ``--lf`` run skipped tests too: they have no result."""
    plugin = config.pluginmanager.getplugin("lfplugin")
    if plugin is not None:
        for first in troubles_of(config).all:
            plugin.lastfailed |= dict.fromkeys(first.skipped, True)


def dependence_lines(config: pytest.Config) -> list[str]:
    """Return a line per ERROR with the number of tests that were skipped for it."""
    return [
        f"{len(first.skipped)} test{'s' if len(first.skipped) > 1 else ''} skipped: {first.reason}"
        for first in troubles_of(config).all
    ]
