"""The pytest plugin: hooks of a few lines. What acts is imported inside fixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_pdserve.fixtures import pdserve_cluster as pdserve_cluster
from pytest_pdserve.fixtures import pdserve_deployment as pdserve_deployment
from pytest_pdserve.fixtures import pdserve_judge as pdserve_judge
from pytest_pdserve.fixtures import pdserve_judge_claim as pdserve_judge_claim
from pytest_pdserve.fixtures import pdserve_run as pdserve_run
from pytest_pdserve.fixtures import pdserve_session as pdserve_session
from pytest_pdserve.fixtures import session_key
from pytest_pdserve.options import add_options
from pytest_pdserve.options import asked
from pytest_pdserve.options import settings_of

if TYPE_CHECKING:
    from pytest_pdserve.values.topology import Topology

_MARKERS = (
    "pdserve_panels(*panels): run once for each workload of the system's sweep in the named panels, "
    "'prefill' and 'decode'.",
    "pdserve_requires(disaggregated=None, nodes=None, gpus_per_node=None): skip where topology or "
    "system is another.",
    "pdserve_last: run after all other tests, as it looks at what they measured.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare options and their ini twins."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Declare markers; read settings at once if the command line has any."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if asked(config):
        settings_of(config)
        if getattr(config.option, "numprocesses", None):
            raise pytest.UsageError("pdserve suites own their cluster; run them without -n")


def pytest_report_header(config: pytest.Config) -> str | None:
    """One line, if the command line says anything to pdserve."""
    if not asked(config):
        return None
    from pytest_pdserve.report.header import header  # noqa: PLC0415

    settings = settings_of(config)
    return header(settings.system.name, [t.id for t in settings.topologies])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize over ``--topology`` and, where a test asks for it, the system's sweep."""
    if "pdserve_deployment" in metafunc.fixturenames:
        metafunc.parametrize(
            "pdserve_deployment",
            settings_of(metafunc.config).topologies,
            ids=lambda topology: topology.id,
            indirect=True,
            scope="session",
        )
    marker = metafunc.definition.get_closest_marker("pdserve_panels")
    if marker is not None:
        workloads = [
            workload
            for workload in settings_of(metafunc.config).system.sweep.workloads()
            if set(marker.args) & set(workload.panels)
        ]
        metafunc.parametrize("pdserve_workload", workloads, ids=lambda workload: workload.lengths)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Look at everything that can be wrong before anything is started; put claims last."""
    topologies = [t for t in map(_topology, items) if t is not None]
    if topologies:
        from pytest_pdserve.checks import check_before_start  # noqa: PLC0415

        touching = not (config.option.collectonly or config.getoption("setupplan", default=False))
        unique = list({topology.id: topology for topology in topologies}.values())
        check_before_start(settings_of(config), unique, touching=touching)
    items.sort(key=lambda item: item.get_closest_marker("pdserve_last") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what topology or system do not allow, before anything is stood up for it."""
    marker = item.get_closest_marker("pdserve_requires")
    if marker is None:
        return
    settings = settings_of(item.config)
    unmet = _unmet(marker.kwargs, item, settings.system.cluster)
    if unmet and settings.strict:
        pytest.fail(f"{unmet} (--pdserve-strict)", pytrace=False)
    if unmet:
        pytest.skip(unmet)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Table of cells and claims, and where the records lie; nothing when nothing ran."""
    session = config.stash.get(session_key, None)
    if session is None:
        return
    from pytest_pdserve.report.terminal import summary_lines  # noqa: PLC0415

    lines = summary_lines(session, terminalreporter._tw.fullwidth)  # noqa: SLF001
    if lines:
        terminalreporter.section("pdserve")
        for line in lines:
            terminalreporter.write_line(line)


def _topology(item: pytest.Item) -> Topology | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("pdserve_deployment") if callspec is not None else None


def _unmet(wanted: dict[str, Any], item: pytest.Item, cluster: Any) -> str | None:
    unknown = set(wanted) - {"disaggregated", "nodes", "gpus_per_node"}
    if unknown:
        raise pytest.UsageError(f"pdserve_requires({', '.join(sorted(unknown))}=…): {_MARKERS[1]}")
    topology = _topology(item)
    disaggregated = wanted.get("disaggregated")
    if disaggregated is not None and topology is not None:
        if topology.disaggregated is not disaggregated:
            kind = "separates" if topology.disaggregated else "does not separate"
            return f"{topology.id} {kind} prefill and decode"
    for name in ("nodes", "gpus_per_node"):
        have: int = getattr(cluster, name)
        if wanted.get(name, 0) > have:
            return f"needs {name} >= {wanted[name]}, the system has {have}"
    return None
