"""The hooks of the pytest plugin. Heavy modules are imported only inside fixtures."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_pdserve.judge.verdict import JUDGED
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.plugin.deciding import late_lines
from pytest_pdserve.plugin.deciding import skip_if_late
from pytest_pdserve.plugin.failures import show_message_alone
from pytest_pdserve.plugin.failures import show_verdict_alone
from pytest_pdserve.plugin.fixtures import _pdserve_bench as _pdserve_bench
from pytest_pdserve.plugin.fixtures import _pdserve_restartable as _pdserve_restartable
from pytest_pdserve.plugin.fixtures import _pdserve_session as _pdserve_session
from pytest_pdserve.plugin.fixtures import _pdserve_transfers as _pdserve_transfers
from pytest_pdserve.plugin.fixtures import pdserve_apply_verdict as pdserve_apply_verdict
from pytest_pdserve.plugin.fixtures import pdserve_claim as pdserve_claim
from pytest_pdserve.plugin.fixtures import pdserve_cluster as pdserve_cluster
from pytest_pdserve.plugin.fixtures import pdserve_deployment as pdserve_deployment
from pytest_pdserve.plugin.fixtures import pdserve_judge as pdserve_judge
from pytest_pdserve.plugin.fixtures import pdserve_judge_claim as pdserve_judge_claim
from pytest_pdserve.plugin.fixtures import pdserve_judge_topology as pdserve_judge_topology
from pytest_pdserve.plugin.fixtures import pdserve_run as pdserve_run
from pytest_pdserve.plugin.fixtures import pdserve_topology as pdserve_topology
from pytest_pdserve.plugin.fixtures import pdserve_transfer as pdserve_transfer
from pytest_pdserve.plugin.fixtures import pdserve_workload as pdserve_workload
from pytest_pdserve.plugin.fixtures import session_key
from pytest_pdserve.plugin.fixtures import suite_property_key
from pytest_pdserve.plugin.fixtures import verdict_key
from pytest_pdserve.plugin.forecast import sends_requests
from pytest_pdserve.plugin.markers import SIGNATURES
from pytest_pdserve.plugin.markers import check_requires
from pytest_pdserve.plugin.markers import claims_file
from pytest_pdserve.plugin.markers import panels_of
from pytest_pdserve.plugin.markers import unmet
from pytest_pdserve.plugin.options import add_options
from pytest_pdserve.plugin.options import has_pdserve_options
from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.plugin.ordering import is_last
from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.other_plugins import ONE_PROCESS
from pytest_pdserve.plugin.other_plugins import OtherPlugins
from pytest_pdserve.plugin.postponing import run_or_postpone
from pytest_pdserve.plugin.reporting import make_report
from pytest_pdserve.plugin.reporting import replace_earlier_report
from pytest_pdserve.plugin.reporting import report_key
from pytest_pdserve.plugin.reporting import report_lines
from pytest_pdserve.plugin.reporting import write_headline
from pytest_pdserve.plugin.trouble import Trouble
from pytest_pdserve.plugin.trouble import broken_key
from pytest_pdserve.plugin.trouble import cause_of
from pytest_pdserve.plugin.trouble import dependence_lines
from pytest_pdserve.plugin.trouble import keep_for_last_failed
from pytest_pdserve.plugin.trouble import skip_dependent
from pytest_pdserve.plugin.trouble import troubles_of
from pytest_pdserve.plugin.unmeasured import unmeasured_cells
from pytest_pdserve.values.errors import BaselineRegression
from pytest_pdserve.values.errors import InvalidRunError
from pytest_pdserve.values.errors import PdserveError

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session

NOTHING_RUNS = ("collectonly", "setupplan", "showfixtures", "show_fixtures_per_test")
"""Options with which pytest runs no tests."""
verdicts_key = pytest.StashKey[set[str]]()
"""Verdicts of all tests that judge something."""
trouble_key = pytest.StashKey[pytest.UsageError]()
"""The first error while tests were generated."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare options and their ini keys."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Declare markers; read the settings at once if there are pdserve options."""
    for signature in SIGNATURES.values():
        config.addinivalue_line("markers", signature)
    # The wrapper that is registered last starts first and ends last.
    config.pluginmanager.register(OtherPlugins(check=_check), "pdserve-other-plugins")
    if has_pdserve_options(config):
        settings_of(config)
        if config.getoption("dist", default="no") != "no" and not config.option.collectonly:
            raise pytest.UsageError(ONE_PROCESS)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Replace the report of an earlier session, if a file for it is configured."""
    if _starts(session.config):
        replace_earlier_report(session.config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return system, topologies and folders, if the command line has pdserve options."""
    return _header(config) if has_pdserve_options(config) else []


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Return the header lines, if only collected tests show that they are needed."""
    shown = has_pdserve_options(config) or config.get_verbosity() < 0
    return [] if shown or not any(map(topology_of, items)) else _header(config)


def _header(config: pytest.Config) -> list[str]:
    from pytest_pdserve.report.header import header

    settings = settings_of(config)
    topologies = [topology.id for topology in settings.topologies]
    where = settings.project.describe(settings.system)
    return [header(settings.system, topologies), f"pdserve: {where}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize over ``--topology`` and, if a test uses them, the sweep or claims."""
    try:
        _parametrize(metafunc)
    except pytest.UsageError as error:  # raised here, it would be a traceback and exit code 2
        metafunc.config.stash.setdefault(trouble_key, error)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Use the id or name of values in test ids and in reports of other plugins."""
    from pytest_pdserve.values.claim import Claim
    from pytest_pdserve.values.system import System
    from pytest_pdserve.values.topology import Topology
    from pytest_pdserve.values.workload import Workload

    if isinstance(val, Workload | Topology | Claim):
        return val.id
    return val.name if isinstance(val, System) else None


def _check(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Raise :class:`pytest.UsageError` if tests cannot run."""
    if trouble_key in config.stash:
        raise config.stash[trouble_key]
    for item in items:
        for mark in item.iter_markers("pdserve_requires"):
            check_requires(mark)
    topologies = [t for t in map(topology_of, items) if t is not None]
    if topologies:
        from pytest_pdserve.plugin.checks import check_before_start
        from pytest_pdserve.plugin.checks import check_one_project

        paths = {item.path for item in items if topology_of(item)}
        check_one_project(sorted(paths), settings_of(config).project.rootdir)
        unique = list({topology.id: topology for topology in topologies}.values())
        measuring = any("pdserve_run" in getattr(item, "fixturenames", ()) for item in items)
        settings = settings_of(config)
        check_before_start(settings, unique, starting=_starts(config), measuring=measuring)


def _starts(config: pytest.Config) -> bool:
    """Tell whether tests are run, not only shown."""
    return not any(config.getoption(name, default=False) for name in NOTHING_RUNS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test that judges a cell; postpone it if the cell must run on a fresh start.

    ``--setup-only``, ``--setup-plan`` and ``--setup-show`` are left to pytest.
    """
    judges = {"pdserve_run", "pdserve_judge"} <= {*getattr(item, "fixturenames", ())}
    if not judges or item.config.getoption("setupshow", default=False):
        return None
    run_or_postpone(item, nextitem, is_last=is_last)
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose requirements are not met, before servers are started for it."""
    for mark in item.iter_markers("pdserve_requires"):
        settings = settings_of(item.config)
        reason = unmet(mark, topology_of(item), settings.system.cluster)
        if reason and settings.strict:
            pytest.fail(f"{reason} (--pdserve-strict)", pytrace=False)
        if reason:
            pytest.skip(reason)
    names = getattr(item, "fixturenames", ())
    needs_servers = "_pdserve_restartable" in names and "pdserve_judge_topology" not in names
    if needs_servers and "pdserve_run" not in names:
        system = settings_of(item.config).system
        if system.simulated:
            pytest.skip(f"needs servers that answer; {system.name} is simulated")
    skip_dependent(item)
    if "_pdserve_restartable" in names:
        skip_if_late(item, item.config.stash.get(session_key, None))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Record the time of a test that sends its own requests."""
    session = item.config.stash.get(session_key, None)
    if session is None or not sends_requests(item):
        return (yield)
    with session.phases.of("other tests"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report infrastructure errors inside of a test as an ERROR, as in a fixture.

    Later tests that depend on it are skipped.
    """
    report = yield
    raised = call.excinfo.value if call.excinfo else None
    error = raised.error if isinstance(raised, Trouble) else None
    if call.when == "call" and isinstance(raised, PdserveError):
        error = cause_of(item.config, raised)
        report.longrepr = str(error)
        report.when = "setup"  # an ERROR, not a failure of the test
    elif report.failed and isinstance(raised, BaselineRegression):
        show_verdict_alone(report, raised)
    elif report.failed and isinstance(raised, Trouble):
        show_message_alone(report, str(raised))
    if error is not None and call.when != "teardown":
        lost = raised.lost if isinstance(raised, Trouble) else ""
        troubles_of(item.config).add(item, error, lost, servers_up=_servers_up(item))
    report.pdserve_verdict = item.stash.get(verdict_key, None)  # type: ignore[attr-defined]
    verdict = item.stash.get(verdict_key, Status.NOT_ASKED)
    if verdict != Status.NOT_ASKED:
        item.config.stash.setdefault(verdicts_key, set()).add(verdict)
    topology = topology_of(item)
    invalid = isinstance(error, InvalidRunError)  # only its cell is lost: the servers are up
    in_report = (invalid or verdict_key in item.stash) and call.when != "teardown"
    report.pdserve_in_report = in_report  # type: ignore[attr-defined]
    if report.failed and report.when == "setup" and not invalid and topology is not None:
        item.config.stash.setdefault(broken_key, set()).add(topology.id)
    return report


def _servers_up(item: pytest.Item) -> bool:
    """Tell whether the servers of a test's topology came up at their last start."""
    session, topology = item.config.stash.get(session_key, None), topology_of(item)
    deployed = session.deployments.get(topology.id) if session and topology else None
    return deployed is None or deployed.usable


def pytest_report_teststatus(
    report: pytest.TestReport,
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """Show the verdict of a passed test that is not PASS; pytest counts it as passed."""
    verdict = getattr(report, "pdserve_verdict", None)
    if not report.passed or report.when != "call" or verdict in (None, Status.PASS):
        return None
    return "passed", "?", (verdict, {"yellow": True})


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Add nights to the baseline before the summary is printed; then set the exit code.

    It is 5 if tests should judge something, and none judged or recorded anything; 1 if nights could
    not be added, and with ``--pdserve-strict`` if a cell of the baseline has no test any more, or
    an expected change is expired, unused, or names something that does not exist.
    """
    measured = session.config.stash.get(session_key, None)
    if measured is not None:
        measured.close()
        measured.phases.end()
    if _starts(session.config):
        make_report(session, measured, lambda: _notes(session.config, measured))
        _record_suite_properties(session.config)
    keep_for_last_failed(session.config)
    yield
    if session.exitstatus != pytest.ExitCode.OK:
        return
    strict = measured is not None and measured.settings.strict
    if measured is not None and (measured.trouble or (strict and _lacks(session.config, measured))):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif _nothing_judged(session.config):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def _record_suite_properties(config: pytest.Config) -> None:
    """Add system, versions and run folder to the JUnit report."""
    record, report = config.stash.get(suite_property_key, None), config.stash.get(report_key, None)
    if record is None or report is None:
        return
    record("pdserve_system", report.system)
    record("pdserve_headline", report.headline)
    for name, version in sorted(report.versions.items()):
        record(f"pdserve_version_{name}", version)
    if report.folder:
        record("pdserve_run_folder", report.folder)


def _lacks(config: pytest.Config, measured: Session) -> bool:
    """Tell whether cells of the baseline have no test, or expected changes have no effect."""
    from pytest_pdserve.plugin.claims import unknown_names

    troubles = measured.session_judge.expected.problems or unknown_names(config, measured)
    return bool(troubles or unmeasured_cells(config, measured))


def _nothing_judged(config: pytest.Config) -> bool:
    verdicts = config.stash.get(verdicts_key, set())
    return bool(verdicts) and verdicts.isdisjoint(JUDGED)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print cells, claims and the folder of the records, if anything was measured."""
    session = config.stash.get(session_key, None)
    summary = _summary_lines(config, session) if session else []
    lines, ending = (
        [*dependence_lines(config), *summary],
        report_lines(config, only_requested=not summary),
    )
    if lines or ending:
        terminalreporter.write_sep("=", "pdserve")
        for line in lines:
            terminalreporter.write_line(line)
        if summary:
            write_headline(terminalreporter, config.stash.get(report_key, None))
        for line in ending:
            terminalreporter.write_line(line)


def _summary_lines(config: pytest.Config, session: Session) -> list[str]:
    """Return lines with cells, claims, the folder of the records, and notes."""
    from pytest_pdserve.report.terminal import summary_lines

    return [*summary_lines(session), *_notes(config, session)]


def _notes(config: pytest.Config, session: Session | None) -> list[str]:
    """Return lines about missing tests, unknown names and left-out tests."""
    if session is None:
        return []
    from pytest_pdserve.plugin.claims import unknown_names

    excluded = session.provenance.cluster.get("excluded") or {}
    lines = [f"{node} was excluded from this session: {why}" for node, why in excluded.items()]
    lines += [*unknown_names(config, session), *late_lines(session)]
    if vanished := unmeasured_cells(config, session):
        cells = ", ".join(" ".join(key) for key in vanished)
        lines.append(f"cells of the baseline that no test measures any more: {cells}")
    if _nothing_judged(config):
        lines.append("nothing was judged, and nothing recorded as a reference")
    return lines


def _parametrize(metafunc: pytest.Metafunc) -> None:
    if "pdserve_topology" in metafunc.fixturenames:
        metafunc.parametrize(
            "pdserve_topology",
            settings_of(metafunc.config).topologies,
            ids=lambda topology: topology.id,
            indirect=True,
            scope="session",
        )
    if "pdserve_transfer" in metafunc.fixturenames:
        from pytest_pdserve.plan.transfer import transfer_cases

        cases = transfer_cases(settings_of(metafunc.config).system)
        metafunc.parametrize("pdserve_transfer", cases, ids=lambda case: case.id, indirect=True)
    if panels := metafunc.definition.get_closest_marker("pdserve_panels"):
        named = panels_of(panels)
        points = settings_of(metafunc.config).system.sweep.points()
        chosen = [point for point in points if named & set(point.panels)]
        metafunc.parametrize(
            "pdserve_workload",
            [point.workload for point in chosen],
            ids=[point.test_id for point in chosen],
        )
    if claims := metafunc.definition.get_closest_marker("pdserve_claims"):
        path = claims_file(claims, metafunc.definition.path.parent)
        marks = metafunc.definition.iter_markers("pdserve_requires")
        cluster = settings_of(metafunc.config).system.cluster
        reason = next((why for mark in marks if (why := unmet(mark, None, cluster))), None)
        if reason:  # one skip for all claims, which --pdserve-strict does not fail
            skipped = pytest.param(None, id=path.stem, marks=pytest.mark.skip(reason=reason))
            metafunc.parametrize("pdserve_claim", [skipped])
            return
        from pytest_pdserve.plugin.claims import collect_claims
        from pytest_pdserve.plugin.claims import remember_claims

        settings = settings_of(metafunc.config)
        claims_there = collect_claims(path, settings)
        remember_claims(claims_there, metafunc.config, settings.system.sweep.points())
        metafunc.parametrize("pdserve_claim", claims_there, ids=lambda claim: claim.id)
