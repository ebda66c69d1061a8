"""Trouble with machines: one ERROR where it is met, and skips of the tests that depend on it.

What is lost with an error is told by where it is met: with nodes the whole session, with servers
their topology, with a run its cell alone, unless the same error is met again in another cell.
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
from pytest_pdserve.plugin.progress import progress_to
from pytest_pdserve.plugin.putting_off import times_key
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
"""Errors after which the servers of a topology are of no use."""
_OF_A_CELL = (InvalidRunError, ConfigError)
"""Errors that say nothing of other cells, however often they are met."""
_VARYING = re.compile(r"\S*\d\S*")
"""Words that differ between cells: their ids, paths, lines and times."""


class Trouble(pytest.fail.Exception):  # type: ignore[name-defined,misc]
    """Trouble with machines in a fixture, shown as one message; it knows the error behind it."""

    def __init__(self, error: PdserveError, lost: str) -> None:
        super().__init__(str(error), pytrace=False)
        self.error = error
        self.lost = lost
        """Fixture that cannot be had; empty if that depends on the error."""


@contextlib.contextmanager
def without_traceback(lost: str = "") -> Iterator[None]:
    """Show trouble with machines as its one message: in a fixture, pytest makes that an ERROR.

    :param lost: fixture that cannot be had then, for no test.
    :raises pytest.exit.Exception: if the benchmark client can measure nothing: the session ends.
    """
    try:
        yield
    except ClientUnusableError as error:
        pytest.exit(str(error), returncode=ExitCode.BAD_INPUT)
    except PdserveError as error:
        raise Trouble(error, lost) from None


def cause_of(config: pytest.Config, error: PdserveError) -> PdserveError:
    """Return what trouble in a test comes from: that of the nodes, if they are what was lost."""
    allocation = config.stash.get(allocation_key, None)
    if allocation is None:
        return error
    from pytest_pdserve.backends.heartbeat import Heartbeat

    progress = progress_to(config, settings_of(config).system.name)
    try:
        with Heartbeat(progress, "asking the nodes what they have lost"):
            allocation.diagnose()
    except PdserveError as lost:
        return lost
    return error


@dataclass(slots=True, kw_only=True)
class FirstError:
    """An ERROR that other tests depend on."""

    test: str
    """Node id of the test that met it."""
    said: str
    """Its message."""
    stood: bool
    """Whether servers stood when it was met: then a fresh start may serve."""
    skipped: list[str] = field(default_factory=list)
    """Node ids of the tests that were skipped."""

    @property
    def reason(self) -> str:
        """Why a test that depends on it is skipped, on one line."""
        return f"depends on the ERROR of {self.test}: {self.said.splitlines()[0]}"


@dataclass(slots=True, kw_only=True)
class Troubles:
    """The errors of a session that tests depend on."""

    fixtures: dict[str, FirstError] = field(default_factory=dict)
    """By fixture that is lost with them."""
    topologies: dict[str, FirstError] = field(default_factory=dict)
    """By topology whose servers are lost with them."""
    ended: dict[str, FirstError] = field(default_factory=dict)
    """First of each topology, whatever was lost with it."""
    _met: dict[tuple[str, str], FirstError] = field(default_factory=dict)
    """All others, by topology and message."""

    def meet(self, item: pytest.Item, error: PdserveError, lost: str, *, stood: bool) -> None:
        """Take in the error of a test.

        :param lost: fixture that cannot be had any more; empty if the error tells.
        :param stood: whether the servers of the test's topology stood when it was met.
        """
        said = str(error) or type(error).__name__
        first = FirstError(test=item.nodeid, said=said, stood=stood)
        topology = topology_of(item)
        if topology is not None:
            self.ended.setdefault(topology.id, first)
        if lost or isinstance(error, AllocationError):
            self.fixtures.setdefault(lost or NODES, first)
        elif topology is None or isinstance(error, _OF_A_CELL):
            return
        elif isinstance(error, _OF_SERVERS) or not stood:
            self.topologies.setdefault(topology.id, first)
        else:
            key = (topology.id, _VARYING.sub("…", first.said))
            if key in self._met:
                self.topologies.setdefault(topology.id, self._met[key])
            self._met.setdefault(key, first)

    def behind(self, item: pytest.Item) -> FirstError | None:
        """Return the error that a test depends on; None if there is none.

        A test that judges a topology as a whole looks at what its other tests left, and one that
        was put off has fresh servers started for it.
        """
        names = getattr(item, "fixturenames", ())
        for fixture, first in self.fixtures.items():
            if fixture in names:
                return first
        topology = topology_of(item)
        looks_back = "pdserve_judge_topology" in names
        uses_servers = "_pdserve_restartable" in names and not looks_back
        known = self.topologies.get(topology.id) if topology and uses_servers else None
        put_off = item.stash.get(times_key, 0) > 0
        return None if known is not None and known.stood and put_off else known

    def pointer(self, topologies: Iterable[str]) -> str:
        """Return which tests met the first errors of *topologies*, in brackets; empty if none."""
        tests = [self.ended[each].test for each in topologies if each in self.ended]
        return f" ({', '.join(dict.fromkeys(tests))})" if tests else ""

    @property
    def all(self) -> list[FirstError]:
        """Every error that a test was skipped for, once."""
        found = [*self.fixtures.values(), *self.topologies.values()]
        return [each for n, each in enumerate(found) if each.skipped and each not in found[:n]]


troubles_key = pytest.StashKey[Troubles]()


def troubles_of(config: pytest.Config) -> Troubles:
    """Return the errors of a session that tests depend on, so far."""
    return config.stash.setdefault(troubles_key, Troubles())


def skip_what_depends(item: pytest.Item) -> None:
    """Skip a test that depends on an error that another test has met."""
    first = troubles_of(item.config).behind(item)
    if first is None:
        return
    first.skipped.append(item.nodeid)
    topology = topology_of(item)
    if topology is not None:
        item.config.stash.setdefault(broken_key, set()).add(topology.id)
    pytest.skip(first.reason)


def keep_for_last_failed(config: pytest.Config) -> None:
    """Have ``--lf`` run skipped tests too the next time: nothing is known of them."""
    plugin = config.pluginmanager.getplugin("lfplugin")
    if plugin is not None:
        for first in troubles_of(config).all:
            plugin.lastfailed |= dict.fromkeys(first.skipped, True)


def dependence_lines(config: pytest.Config) -> list[str]:
    """Say how many tests were skipped, and for which ERROR; a line for each."""
    return [
        f"{len(first.skipped)} test{'s' if len(first.skipped) > 1 else ''} skipped: {first.reason}"
        for first in troubles_of(config).all
    ]
