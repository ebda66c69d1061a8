"""Postpone tests of suspicious cells until their cells have run again on fresh starts.

First all cells run once. Then suspicious cells run again, the topology with the largest suspicion
first; cells of one topology share a start. A postponed test is reported only after its last run.
"""

from __future__ import annotations

import bdb
from collections.abc import Callable
from typing import Any
from typing import Literal

import pytest

from pytest_pdserve.plugin.ordering import topology_of

suspicion_key = pytest.StashKey[float]()
"""Suspicion about the cell of a test, in limits; 0 if it must not run again. Set by the measuring
fixture; only tests that can be postponed have it."""
times_key = pytest.StashKey[int]()
"""How often a test was postponed."""
IsLast = Callable[[pytest.Item], bool]
"""Tells whether a test needs the verdicts of all cells."""


def run_or_postpone(item: pytest.Item, nextitem: pytest.Item | None, *, is_last: IsLast) -> None:
    """Run a test and report it, or postpone it if its cell must run again."""
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    item.stash[suspicion_key] = 0.0
    # pytest 9.2 has no public way to run an item twice: its own protocol, pytest-rerunfailures and
    # pytest-retry create and drop the request in this way too (str0zzapreti/pytest-retry#28).
    function: Any = item
    if not function._request:  # noqa: SLF001
        function._initrequest()  # noqa: SLF001
    try:
        _phases(item, nextitem, is_last)
    finally:
        function._request, function.funcargs = False, None  # noqa: SLF001
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _phases(item: pytest.Item, nextitem: pytest.Item | None, is_last: IsLast) -> None:
    """Set up, call and tear down a test; of a postponed one only report errors."""
    setup = _run(item, "setup", log=False)
    if setup.passed and item.stash[suspicion_key] > 0:
        following = _postpone(item, is_last)
        teardown = _run(item, "teardown", log=False, nextitem=following)
        if teardown.failed:
            item.ihook.pytest_runtest_logreport(report=teardown)
        return
    item.ihook.pytest_runtest_logreport(report=setup)
    if setup.passed:
        _run(item, "call")
    if item.session.shouldfail or item.session.shouldstop:
        nextitem = None  # as pytest does: shared fixtures end with this test
    _run(item, "teardown", nextitem=nextitem)


def _run(
    item: pytest.Item,
    when: Literal["setup", "call", "teardown"],
    *,
    log: bool = True,
    **arguments: Any,
) -> pytest.TestReport:
    """Run one phase of a test and return its report; support debuggers."""
    hooks = item.ihook
    phase = getattr(hooks, f"pytest_runtest_{when}")
    stops: tuple[type[BaseException], ...] = (pytest.exit.Exception,)
    if not item.config.getoption("usepdb", default=False):
        stops += (KeyboardInterrupt,)
    call = pytest.CallInfo.from_call(lambda: phase(item=item, **arguments), when, reraise=stops)
    report: pytest.TestReport = hooks.pytest_runtest_makereport(item=item, call=call)
    if log:
        hooks.pytest_runtest_logreport(report=report)
    if call.excinfo and report.failed and not isinstance(call.excinfo.value, bdb.BdbQuit):
        hooks.pytest_exception_interact(node=item, call=call, report=report)
    return report


def _postpone(item: pytest.Item, is_last: IsLast) -> pytest.Item | pytest.Collector:
    """Move *item* to the waiting tests, in the order in which they will run.

    :returns: the test that runs next; if that is *item* itself, its collector, so that the test is
        torn down, but not the fixtures that it shares with others.
    """
    item.stash[times_key] = item.stash.get(times_key, 0) + 1
    items = item.session.items
    here = _place(items, item)
    ahead = items[here + 1 :]
    waiting = [other for other in ahead if other.stash.get(suspicion_key, 0.0) > 0] + [item]
    worst: dict[str, float] = {}
    for other in waiting:
        topology = _topology(other)
        worst[topology] = max(worst.get(topology, 0.0), other.stash[suspicion_key])
    order = list(worst)
    waiting.sort(
        key=lambda other: (
            -worst[_topology(other)],
            order.index(_topology(other)),
            other.stash[times_key],  # so that cells share the start that comes next
            -other.stash[suspicion_key],
        )
    )
    rest = [other for other in ahead if other not in waiting]
    first_last = next((n for n, other in enumerate(rest) if is_last(other)), len(rest))
    items[here + 1 :] = [*rest[:first_last], *waiting, *rest[first_last:]]
    following = items[here + 1]
    if following is not item:
        return following
    assert item.parent is not None
    return item.parent


def _place(items: list[pytest.Item], item: pytest.Item) -> int:
    return max(n for n, other in enumerate(items) if other is item)


def _topology(item: pytest.Item) -> str:
    found = topology_of(item)
    return found.id if found is not None else ""
