"""Fixtures: nodes, servers, measured cells and their verdicts."""

from __future__ import annotations

import signal
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.judge.verdict import UNSETTLED
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.plugin import benchmarks
from pytest_pdserve.plugin.forecast import report_forecast
from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.other_plugins import ONE_PROCESS
from pytest_pdserve.plugin.postponing import suspicion_key
from pytest_pdserve.plugin.postponing import times_key
from pytest_pdserve.plugin.progress import progress_to
from pytest_pdserve.plugin.servers import starter
from pytest_pdserve.plugin.servers import stop_shared
from pytest_pdserve.plugin.transfers import _pdserve_transfers as _pdserve_transfers
from pytest_pdserve.plugin.transfers import pdserve_transfer as pdserve_transfer
from pytest_pdserve.plugin.trouble import BENCH
from pytest_pdserve.plugin.trouble import NODES
from pytest_pdserve.plugin.trouble import SESSION
from pytest_pdserve.plugin.trouble import allocation_key
from pytest_pdserve.plugin.trouble import broken_key
from pytest_pdserve.plugin.trouble import troubles_of
from pytest_pdserve.plugin.trouble import without_traceback
from pytest_pdserve.values.errors import BaselineRegression

if TYPE_CHECKING:
    from pytest_pdserve.backends.allocation import Allocation
    from pytest_pdserve.serving.client import BenchClient
    from pytest_pdserve.serving.restartable import RestartableDeployment
    from pytest_pdserve.serving.restartable import Servers
    from pytest_pdserve.session.cell import Cell
    from pytest_pdserve.session.session import Session
    from pytest_pdserve.session.settings import Settings
    from pytest_pdserve.values.claim import Claim
    from pytest_pdserve.values.topology import Topology
    from pytest_pdserve.values.workload import Workload

session_key = pytest.StashKey["Session"]()
suite_property_key = pytest.StashKey[Callable[[str, object], None]]()
"""Function that adds a property to the JUnit report; missing without pytest's plugin for it."""

verdict_key = pytest.StashKey[str]()
"""Verdict of a test, for its report."""


@pytest.fixture(scope="session")
def _pdserve_session(request: pytest.FixtureRequest) -> Session:
    """Return the session: its settings, and what it has measured and judged so far."""
    from pytest_pdserve.session.session import Session

    if hasattr(request.config, "workerinput"):
        pytest.fail(ONE_PROCESS, pytrace=False)
    with without_traceback(lost=SESSION):
        session = Session.start(settings_of(request.config))
    session.broken = request.config.stash.setdefault(broken_key, session.broken)
    request.config.stash[session_key] = session
    if request.config.pluginmanager.hasplugin("junitxml"):
        record = request.getfixturevalue("record_testsuite_property")
        request.config.stash[suite_property_key] = record
    return session


@pytest.fixture(scope="session")
def pdserve_cluster(
    request: pytest.FixtureRequest, _pdserve_session: Session
) -> Iterator[Allocation]:
    """Acquire the session's nodes, to run commands on; all topologies share them.

    They are acquired when a test first needs them, and released on every path.
    """
    from pytest_pdserve.backends.backend import Request
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.results.redaction import redacting_files

    system, settings = _pdserve_session.system, _pdserve_session.settings
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with without_traceback(lost=NODES):
            backend = backend_of(system)
            node_request = Request(
                folder=_pdserve_session.store.folder / backend.name,
                progress=progress_to(request.config, system.name),
                job_id=settings.job_id,
            )
            backend.check(system)
            report_forecast(_pdserve_session, request.session.items, node_request.progress)
            folder, phases = _pdserve_session.store.folder, _pdserve_session.phases
            acquiring = phases.holding(system, backend.acquire(system, node_request))
            with redacting_files(folder), acquiring as allocation:
                _pdserve_session.set_nodes(allocation)
                _pdserve_session.session_judge.check_hardware()
                request.config.stash[allocation_key] = allocation
                try:
                    yield allocation
                finally:
                    del request.config.stash[allocation_key]
    finally:
        signal.signal(signal.SIGTERM, previous)


@pytest.fixture(scope="session")
def _pdserve_bench(
    request: pytest.FixtureRequest, _pdserve_session: Session, pdserve_cluster: Allocation
) -> Iterator[BenchClient | None]:
    """Start the benchmark client of all cells; None if simulated."""
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.serving.clients import bench_client

    system = _pdserve_session.system
    if backend_of(system).deployer is not None:
        yield None
        return
    folder = _pdserve_session.store.folder / "client"
    measuring = any("pdserve_run" in getattr(i, "fixturenames", ()) for i in request.session.items)
    starting = bench_client(system, pdserve_cluster, folder, measuring=measuring)
    with (
        without_traceback(lost=BENCH),
        _pdserve_session.phases.entered("client", starting) as bench,
    ):
        try:
            yield bench
        finally:
            stop_shared(_pdserve_session)


@pytest.fixture(scope="session")
def pdserve_topology(request: pytest.FixtureRequest) -> Topology:
    """Return the topology of the test, which runs once per ``--topology``; start nothing."""
    if not hasattr(request, "param"):
        pytest.fail(
            "pdserve_topology is not set: a test must have it among its arguments", pytrace=False
        )
    topology: Topology = request.param
    return topology


@pytest.fixture(scope="session")
def _pdserve_restartable(
    request: pytest.FixtureRequest,
    pdserve_topology: Topology,
    _pdserve_session: Session,
    pdserve_cluster: Allocation,
    _pdserve_bench: BenchClient | None,
) -> Iterator[RestartableDeployment]:
    """Deploy the topology when a test first needs it, and again for further runs."""
    from pytest_pdserve.backends.registry import backend_of
    from pytest_pdserve.serving.restartable import RestartableDeployment

    topology, session = pdserve_topology, _pdserve_session
    session.progress = progress_to(request.config, topology.id)
    if topology.id not in session.deployments:
        session.deployments[topology.id] = RestartableDeployment(
            starter(topology, session, pdserve_cluster, _pdserve_bench, request.session.items),
            topology,
            restartable=backend_of(session.system).starts_servers,
        )
    with without_traceback(), session.deployments[topology.id] as deployed:
        yield deployed


@pytest.fixture
def pdserve_deployment(_pdserve_restartable: RestartableDeployment) -> Servers:
    """Return the running servers of a topology, to send your own requests to.

    A test that requests them runs once for each topology of ``--topology``; it is skipped if the
    system is simulated.
    """
    with without_traceback():
        return _pdserve_restartable.deployment


@pytest.fixture(scope="session")  # so that it is set up, and fails, before nodes are acquired
def pdserve_workload() -> Workload:
    """Return the load of ``pdserve_run``, set by ``pdserve_panels`` or ``parametrize``.

    ``@pytest.mark.pdserve_panels("prefill")`` uses workloads of the system's sweep,
    ``@pytest.mark.parametrize("pdserve_workload", [Workload(...)])`` your own.
    """
    pytest.fail(
        "pdserve_workload is not set: mark the test with @pytest.mark.pdserve_panels('prefill', "
        "'decode'), or with @pytest.mark.parametrize('pdserve_workload', [Workload(...)])",
        pytrace=False,
    )


@pytest.fixture
def pdserve_run(
    request: pytest.FixtureRequest,
    pdserve_workload: Workload,
    _pdserve_session: Session,
    _pdserve_restartable: RestartableDeployment,
) -> Cell:
    """Run ``pdserve_workload`` on the test's topology; return the checked, recorded cell.

    Its numbers become the test's ``user_properties`` (JUnit) and, if pytest-benchmark should store,
    compare or draw results, a benchmark of each metric; pytest-benchmark never judges. A test whose
    cell must run again on a fresh start is postponed until the others have run.
    """
    item = request.node
    again = item.stash.get(times_key, 0) > 0

    def measure() -> Cell:
        return _pdserve_session.measure(_pdserve_restartable, pdserve_workload, again=again)

    with without_traceback():
        for_benchmark = benchmarks.is_requested(request.config)
        benchmark = request.getfixturevalue("benchmark") if for_benchmark else None
        cell = benchmarks.measure_with(benchmark, measure) if for_benchmark else measure()
        key = (cell.topology, cell.workload.id)
        if suspicion_key in item.stash and _pdserve_session.wants_run(key):
            item.stash[suspicion_key] = _pdserve_session.suspicion(key)
            where, why = _pdserve_restartable.rerun_target, _pdserve_session.defer(key)
            if why:
                _pdserve_session.progress(f"{item.name} runs again later, on {where}: {why}")
            return cell
    if for_benchmark:
        benchmarks.add_metrics(benchmark, cell)
    item.user_properties.append(("pdserve_topology", cell.topology))
    item.user_properties.append(("pdserve_workload", cell.workload.id))
    for name, value in cell.records[-1].metrics.items():
        item.user_properties.append((name, value))
    item.user_properties.append(("pdserve_record", str(cell.paths[-1])))
    return cell


@pytest.fixture
def pdserve_judge(
    request: pytest.FixtureRequest, _pdserve_session: Session
) -> Callable[[Cell], None]:
    """Return a function that compares the cell of ``pdserve_run`` with its baseline.

    It raises :class:`BaselineRegression` on FAIL and skips the test on NOT JUDGED; under
    ``--pdserve-strict`` it also fails on unsettled verdicts and unproven runs.
    """

    def judge(cell: Cell) -> None:
        __tracebackhide__ = True
        verdict = _pdserve_session.judge(cell)
        unproven = {f"{f.check}: {f.message}" for record in cell.records for f in record.unproven}
        end_with(verdict, request.node, _pdserve_session.settings, sorted(unproven))

    return judge


@pytest.fixture
def pdserve_judge_topology(
    request: pytest.FixtureRequest,
    _pdserve_session: Session,
    _pdserve_restartable: RestartableDeployment,
) -> Callable[[], None]:
    """Return a function that compares medians over all cells of a topology with the baseline.

    It raises :class:`BaselineRegression` on FAIL. If fewer than two of the topology's cells
    have a reference and were measured, the verdict is NOT JUDGED. A topology that is slower
    over all its cells is run again on fresh starts first.
    """

    def judge() -> None:
        __tracebackhide__ = True
        topology = _pdserve_restartable.topology.id
        if topology in _pdserve_session.broken:
            pointer = troubles_of(request.config).pointer([topology])
            why = f"{topology} as a whole: it ended in an ERROR{pointer}"
            verdict = Verdict(status=Status.NOT_JUDGED, subject=topology, misses=(why,))
            end_with(verdict, request.node, _pdserve_session.settings)
            return
        verdict = _pdserve_session.judge_topology(_pdserve_restartable)
        end_with(verdict, request.node, _pdserve_session.settings)

    return judge


@pytest.fixture(scope="session")
def pdserve_claim() -> Claim:
    """Return a claim that compares topologies, from the file of ``pdserve_claims``.

    A test that requests it runs once for each claim of the file.
    """
    pytest.fail(
        "pdserve_claim is not set: mark the test with @pytest.mark.pdserve_claims('claims.toml'), "
        "a file next to the test",
        pytrace=False,
    )


@pytest.fixture
def pdserve_judge_claim(
    request: pytest.FixtureRequest, _pdserve_session: Session
) -> Callable[[Claim], None]:
    """Return a function that compares topologies as ``pdserve_claim`` states.

    It raises :class:`BaselineRegression` if the claim does not hold where claims are enforced. It
    skips the test if the claim is undecidable, was not measured or could not be judged, and is an
    xfail if ``expected.toml`` expects the claim to fail.
    """
    from pytest_pdserve.session.claims import ClaimNotJudgedError
    from pytest_pdserve.session.claims import judge_claim

    def judge(claim: Claim) -> None:
        __tracebackhide__ = True
        if claim.undecidable is not None:
            pytest.skip(f"undecidable: {claim.undecidable}")
        _pdserve_session.progress = progress_to(request.config, _pdserve_session.system.name)
        try:
            verdict = judge_claim(_pdserve_session, claim)
        except ClaimNotJudgedError as error:
            pytest.skip(f"{error}{troubles_of(request.config).pointer(claim.topologies)}")
        request.node.user_properties.append(("pdserve_claim", verdict.message))
        end_with(verdict, request.node, _pdserve_session.settings)

    return judge


@pytest.fixture
def pdserve_apply_verdict(request: pytest.FixtureRequest) -> Callable[[Verdict], None]:
    """Return a function that passes, skips or fails the test by the test's own verdict.

    Such a verdict needs no baseline: for example, whether servers answer correctly.
    It fails on FAIL, and skips on NOT JUDGED; under ``--pdserve-strict`` it fails on that too.
    """

    def end(verdict: Verdict) -> None:
        __tracebackhide__ = True
        end_with(verdict, request.node, settings_of(request.config), compared=False)

    return end


def end_with(
    verdict: Verdict,
    item: pytest.Item,
    settings: Settings,
    unproven: Sequence[str] = (),
    *,
    compared: bool = True,
) -> None:
    """End a test according to its verdict; return if it passes.

    :param unproven: checks that could not be made on the run; they fail the test under
        ``--pdserve-strict``.
    :param compared: whether something was compared with a baseline or a claim: only then it counts
        as judged in the session's exit code.
    """
    __tracebackhide__ = True
    status = verdict.status
    item.user_properties.append(("pdserve_verdict", str(status)))
    if compared:
        item.stash[verdict_key] = str(status)
    else:
        _keep_for_report(verdict, item)
        if status is Status.FAIL:
            pytest.fail(verdict.message, pytrace=False)
    if status is Status.FAIL:
        raise BaselineRegression(verdict.message)
    if status is Status.EXPECTED:
        pytest.xfail(verdict.reason)
    if status is Status.NOT_ASKED:
        pytest.skip(verdict.reason)
    if settings.strict and status in UNSETTLED | {Status.NOT_JUDGED}:
        pytest.fail(f"{status}: {verdict.message}\n(--pdserve-strict)", pytrace=False)
    if settings.strict and unproven:
        pytest.fail(f"unproven: {'; '.join(unproven)}\n(--pdserve-strict)", pytrace=False)
    if status is Status.NOT_JUDGED:
        pytest.skip(verdict.reason)


def _keep_for_report(verdict: Verdict, item: pytest.Item) -> None:
    """Keep a test's own verdict for the report."""
    session, topology = item.config.stash.get(session_key, None), topology_of(item)
    if session is not None:
        session.smoke[item.nodeid] = (topology.id if topology else "", verdict)
