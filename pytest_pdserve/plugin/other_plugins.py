"""Order, deselect and reject tests after other plugins, including pytest's own, have run."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_pdserve.plugin.deciding import most_urgent_first
from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.plugin.ordering import in_order
from pytest_pdserve.plugin.ordering import judges_other_tests
from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.servers import groups_of
from pytest_pdserve.plugin.unmeasured import remember_collected_cells
from pytest_pdserve.plugin.unmeasured import remember_deselected_tests

ONE_PROCESS = "pdserve suites own their cluster; run them without -n"
"""Message for tests on workers of pytest-xdist."""
REFUSED = "pdserve_refused"
"""Key of a pytest-xdist worker's output with the reason why it runs nothing."""


class OtherPlugins:
    """Hooks that process tests after other plugins have selected and sorted them."""

    def __init__(self, check: Callable[[pytest.Config, Sequence[pytest.Item]], None]) -> None:
        """Store *check*, which raises :class:`pytest.UsageError` if tests cannot run."""
        self._check = check
        self._left_out: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None]:
        """Reject, deselect and sort tests after every other plugin."""
        yield
        try:
            _refuse(config, items)
            self._leave_out(config, items)
            self._check(config, items)
        except pytest.UsageError as error:
            if not hasattr(config, "workeroutput"):
                raise
            config.workeroutput[REFUSED] = str(error)
            items.clear()
        remember_collected_cells(config, items)
        if any(topology_of(item) for item in items):
            settings = settings_of(config)
            if settings.until is not None:
                items[:] = most_urgent_first(items, settings.project.runs, settings.system.name)
            items[:] = in_order(items, groups_of(items, settings.system))

    def _leave_out(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect tests under ``--lf`` that judge tests which it does not run.

        They stay failed for the next ``--lf``; skipped, they would count as passed.
        """
        if not config.getoption("lf", default=False) or config.cache is None:
            return
        failed = config.cache.get("cache/lastfailed", {})
        looking = [item for item in items if judges_other_tests(item)]
        if not looking or not all(item.nodeid in failed for item in items):
            return  # without a failure, --lf runs everything
        if settings_of(config).system.figures is not None:
            return  # nothing is measured
        self._left_out = [item.name for item in looking]
        if len(looking) == len(items):
            raise pytest.UsageError(
                "--lf selects only tests that judge what other tests measure "
                f"({', '.join(self._left_out)}); run without --lf"
            )
        items[:] = [item for item in items if item not in looking]
        config.hook.pytest_deselected(items=looking)

    def pytest_report_collectionfinish(self, config: pytest.Config) -> str | None:
        """Return which tests were deselected, and why."""
        if not self._left_out or config.get_verbosity() < 0:
            return None
        names = ", ".join(self._left_out)
        return f"pdserve: --lf leaves out tests that judge what other tests measure: {names}"

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Remember that tests were deselected."""
        remember_deselected_tests(items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """End the session with the message of a pytest-xdist worker, once for all workers."""
        if refused := getattr(node, "workeroutput", {}).get(REFUSED):
            raise pytest.UsageError(refused)


def _refuse(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    if not any("_pdserve_session" in getattr(item, "fixturenames", ()) for item in items):
        return
    if hasattr(config, "workerinput"):
        raise pytest.UsageError(ONE_PROCESS)
    if config.getoption("stepwise", default=False):
        raise pytest.UsageError(
            "--stepwise would leave out pdserve tests that have not run, as they end in another "
            "order than they are collected; use -x, then --lf"
        )
