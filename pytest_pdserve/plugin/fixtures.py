"""Fixtures: nodes, servers on them, measured cells and their judgement."""

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
from pytest_pdserve.plugin.forecast import tell_forecast
from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.plugin.ordering import topology_of
from pytest_pdserve.plugin.other_plugins import ONE_PROCESS
from pytest_pdserve.plugin.progress import progress_to
from pytest_pdserve.plugin.putting_off import suspicion_key
from pytest_pdserve.plugin.putting_off import times_key
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
"""What adds a property to the report for JUnit; missing where pytest's plugin for it is."""

verdict_key = pytest.StashKey[str]()
"""Verdict of a test, which its report then carries."""


@pytest.fixture(scope="session")
def _pdserve_session(request: pytest.FixtureRequest) -> Session:
    """What this session was asked to measure, and what it has measured and judged so far."""
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
    """The nodes that the session acquired, to run commands on; all topologies share them.

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
            asked = Request(
                folder=_pdserve_session.store.folder / backend.name,
                progress=progress_to(request.config, system.name),
                job_id=settings.job_id,
            )
            backend.check(system)
            tell_forecast(_pdserve_session, request.session.items, asked.progress)
            folder, phases = _pdserve_session.store.folder, _pdserve_session.phases
            acquiring = phases.holding(system, backend.acquire(system, asked))
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
    """The benchmark client of all cells; None where no server is asked."""
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
    """The topology of the test, which runs once for each one of ``--topology``; starts nothing."""
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
    """Servers of the topology, started when a test first needs them, and anew for further runs."""
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
    """The running servers of a topology, to send requests of your own to.

    A test that requests them runs once for each topology of ``--topology``; it is skipped where the
    system is simulated.
    """
    with without_traceback():
        return _pdserve_restartable.deployment


@pytest.fixture(scope="session")  # so that it is set up, and fails, before nodes are acquired
def pdserve_workload() -> Workload:
    """The load that ``pdserve_run`` measures; set it by ``pdserve_panels`` or ``parametrize``.

    ``@pytest.mark.pdserve_panels("prefill")`` takes workloads of the system's sweep,
    ``@pytest.mark.parametrize("pdserve_workload", [Workload(...)])`` those of your own.
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
    """A measured cell: ``pdserve_workload`` run on the test's topology, checked and recorded.

    Its numbers become the test's ``user_properties`` (JUnit) and, where pytest-benchmark was asked
    to store, compare or draw, a benchmark of each metric; pytest-benchmark never judges. A test
    that judges a cell which must run again on a fresh start is put off until the others have run.
    """
    item = request.node
    again = item.stash.get(times_key, 0) > 0

    def measure() -> Cell:
        return _pdserve_session.measure(_pdserve_restartable, pdserve_workload, again=again)

    with without_traceback():
        asked = benchmarks.is_asked(request.config)
        benchmark = request.getfixturevalue("benchmark") if asked else None
        cell = benchmarks.measure_with(benchmark, measure) if asked else measure()
        key = (cell.topology, cell.workload.id)
        if suspicion_key in item.stash and _pdserve_session.wants_run(key):
            item.stash[suspicion_key] = _pdserve_session.suspicion(key)
            where, why = _pdserve_restartable.where_again, _pdserve_session.put_off(key)
            if why:
                _pdserve_session.progress(f"{item.name} runs again later, on {where}: {why}")
            return cell
    if asked:
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
    """A function that compares the cell of ``pdserve_run`` with its baseline, and ends the test.

    It raises :class:`BaselineRegression` on a FAIL and skips what is NOT JUDGED; under
    ``--pdserve-strict`` it also fails on what is unsettled or unproven.
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
    """A function that compares medians over all cells of a topology with the baseline.

    It raises :class:`BaselineRegression` on a FAIL. Where fewer than two of the topology's cells
    have a reference and were measured, it is NOT JUDGED. A topology that is slower over all its
    cells is run again on fresh starts first.
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
    """A statement that compares topologies, one of the file that ``pdserve_claims`` names.

    A test that requests it runs once for each claim of the file.
    """
    pytest.fail(
        "pdserve_claim is not set: mark the test with @pytest.mark.pdserve_claims('claims.toml'), "
        "a file beside the test",
        pytrace=False,
    )


@pytest.fixture
def pdserve_judge_claim(
    request: pytest.FixtureRequest, _pdserve_session: Session
) -> Callable[[Claim], None]:
    """A function that compares topologies as ``pdserve_claim`` says, and ends the test.

    It raises :class:`BaselineRegression` if the claim does not hold where claims are enforced. It
    skips what no measurement can decide, what was not run and what could not be judged, and is an
    xfail where the claim fails as ``expected.toml`` says.
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
    """A function that passes, skips or fails the test by a verdict of the test's own.

    Such a verdict needs no baseline: the servers answer as they should, or they do not.
    It fails on FAIL, and skips what is NOT JUDGED; under ``--pdserve-strict`` it fails on that too.
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
    """End a test as its verdict says; return where it passes.

    :param unproven: what could not be known of the run; fails the test under
        ``--pdserve-strict``.
    :param compared: whether something was compared with a baseline or a claim: only then it counts
        as judged when the session asks whether anything was.
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
    """Keep a verdict of a test's own, which no baseline or claim gives."""
    session, topology = item.config.stash.get(session_key, None), topology_of(item)
    if session is not None:
        session.smoke[item.nodeid] = (topology.id if topology else "", verdict)
