"""Fixtures: nodes, servers on them, measured cells and their judgement."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Set
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.options import settings_of
from pytest_pdserve.values.errors import BaselineRegression
from pytest_pdserve.values.errors import PdserveError

if TYPE_CHECKING:
    from pytest_pdserve.cluster.process import Allocation
    from pytest_pdserve.serving.deployment import Deployment
    from pytest_pdserve.serving.simulated import SimulatedDeployment
    from pytest_pdserve.session import Cell
    from pytest_pdserve.session import Session
    from pytest_pdserve.values.claim import Claim
    from pytest_pdserve.values.workload import Workload

broken_key = pytest.StashKey[set[str]]()
"""Topologies that ended in an ERROR."""
allocation_key = pytest.StashKey["Allocation"]()
session_key = pytest.StashKey["Session"]()


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Show trouble with machines as its one message: in a fixture, pytest makes that an ERROR."""
    try:
        yield
    except PdserveError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def cause_of(config: pytest.Config, error: PdserveError) -> str:
    """What to say of trouble in a test: that of the nodes, if they are what was lost."""
    allocation = config.stash.get(allocation_key, None)
    if allocation is not None:
        try:
            allocation.diagnose()
        except PdserveError as lost:
            return str(lost)
    return str(error)


def progress_to(config: pytest.Config, label: str) -> Callable[[str], None]:
    """A function that writes a line to the terminal, past pytest's capture."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")

    def progress(text: str) -> None:
        if terminal is None or terminal.verbosity < 0:
            return
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            terminal.ensure_newline()
            if config.get_terminal_writer().width_of_current_line:
                terminal.line("")
            terminal.write_line(f"pdserve {label}: {text}", flush=True)

    return progress


@pytest.fixture(scope="session")
def pdserve_session(request: pytest.FixtureRequest) -> Session:
    """What this session has measured and judged so far."""
    from pytest_pdserve.session import Session  # noqa: PLC0415 - effects load in fixtures only

    if hasattr(request.config, "workerinput"):
        pytest.fail("pdserve suites own their cluster; run them without -n", pytrace=False)
    with plainly():
        session = Session.start(settings_of(request.config))
    request.config.stash[session_key] = session
    return session


@pytest.fixture(scope="session")
def pdserve_cluster(
    request: pytest.FixtureRequest, pdserve_session: Session
) -> Iterator[Allocation]:
    """The nodes that every topology of the session shares; released on every path."""
    from pytest_pdserve.session import acquire  # noqa: PLC0415
    from pytest_pdserve.session import client_only  # noqa: PLC0415

    system, settings = pdserve_session.system, pdserve_session.settings
    if settings.base_url:
        system = client_only(system)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            plainly(),
            acquire(
                system,
                folder=pdserve_session.store.folder / system.cluster.kind,
                progress=progress_to(request.config, system.name),
                job_id=settings.job_id,
            ) as allocation,
        ):
            if not settings.base_url:
                pdserve_session.learn_nodes(allocation)
            request.config.stash[allocation_key] = allocation
            try:
                yield allocation
            finally:
                del request.config.stash[allocation_key]
    finally:
        signal.signal(signal.SIGTERM, previous)


@pytest.fixture(scope="session")
def pdserve_deployment(
    request: pytest.FixtureRequest, pdserve_session: Session, pdserve_cluster: Allocation
) -> Iterator[Deployment | SimulatedDeployment]:
    """The topology of the parameter, stood up once per session; ``--topology`` parametrizes it."""
    from pytest_pdserve.serving.deployment import stand_up  # noqa: PLC0415
    from pytest_pdserve.serving.simulated import place_simulated  # noqa: PLC0415

    topology = request.param
    progress = progress_to(request.config, topology.id)
    with plainly():
        if pdserve_session.settings.base_url:
            with _attached(pdserve_session, topology) as deployment:
                yield deployment
            return
        if pdserve_cluster.kind == "simulated":
            yield place_simulated(pdserve_cluster, topology, pdserve_session.system)
            return
        with stand_up(
            pdserve_cluster,
            topology,
            pdserve_session.system,
            logs=pdserve_session.store.logs(topology.id),
            progress=progress,
        ) as deployment:
            yield deployment
            progress("stopping")


@contextlib.contextmanager
def _attached(session: Session, topology: object) -> Iterator[Deployment]:
    import os  # noqa: PLC0415

    from pytest_pdserve.serving.deployment import attach  # noqa: PLC0415
    from pytest_pdserve.values.topology import Topology  # noqa: PLC0415

    assert isinstance(topology, Topology)
    key = os.environ.get("PDSERVE_API_KEY", "")
    with attach(str(session.settings.base_url), topology, session.system, key) as deployment:
        session.learn_versions(deployment)
        yield deployment


@pytest.fixture
def pdserve_run(
    request: pytest.FixtureRequest,
    pdserve_session: Session,
    pdserve_cluster: Allocation,
    pdserve_deployment: Deployment | SimulatedDeployment,
    pdserve_workload: Workload,
) -> Cell:
    """The cell of ``pdserve_workload`` on ``pdserve_deployment``, measured and recorded.

    Its numbers become the test's ``user_properties`` (JUnit) and, where pytest-benchmark was asked
    to store or compare, a benchmark's ``extra_info``; pytest-benchmark never judges.
    """

    def measure() -> Cell:
        return pdserve_session.measure(pdserve_deployment, pdserve_cluster, pdserve_workload)

    with plainly():
        if _benchmark_asked(request.config):
            benchmark = request.getfixturevalue("benchmark")
            cell: Cell = benchmark.pedantic(measure, rounds=1, iterations=1)
            benchmark.extra_info |= dict(cell.records[-1].metrics)
        else:
            cell = measure()
    for name, value in cell.records[-1].metrics:
        request.node.user_properties.append((name, value))
    request.node.user_properties.append(("pdserve_record", str(cell.paths[-1])))
    return cell


def _benchmark_asked(config: pytest.Config) -> bool:
    """Whether pytest-benchmark is there and was asked to keep or compare results."""
    flags = ("benchmark_json", "benchmark_save", "benchmark_autosave", "benchmark_compare")
    return any(config.getoption(flag, None) for flag in flags)


@pytest.fixture
def pdserve_judge(pdserve_session: Session) -> Callable[[Cell], None]:
    """A function that holds a cell against its baseline.

    It raises :class:`BaselineRegression` on a FAIL, and fails on ``--pdserve-record``.
    """

    def judge(cell: Cell) -> None:
        __tracebackhide__ = True
        verdict = pdserve_session.judge(cell)
        if verdict.status == "FAIL":
            raise BaselineRegression(verdict.message)
        if pdserve_session.settings.record:
            pytest.fail(verdict.message, pytrace=False)

    return judge


@pytest.fixture
def pdserve_judge_claim(
    request: pytest.FixtureRequest, pdserve_session: Session
) -> Callable[[Claim], None]:
    """A function that compares topologies as a claim says.

    It raises :class:`BaselineRegression` if the claim does not hold where claims are enforced. It
    skips what no measurement can decide and what this session did not measure, and is an xfail
    where the claim fails just as its known issue says, or is INCONCLUSIVE.
    """

    def judge(claim: Claim) -> None:
        __tracebackhide__ = True
        system, strict = pdserve_session.system, pdserve_session.settings.strict
        if claim.undecidable is not None:
            pytest.skip(f"undecidable: {claim.undecidable}")
        report = system.judgement.claims == "report"
        broken = request.config.stash.get(broken_key, set[str]())
        missing = _unmeasured(claim, pdserve_session, report=report, broken=broken)
        if missing:
            _not_judged(missing, strict=strict)
        verdict = pdserve_session.judge_claim(claim)
        request.node.user_properties.append(("pdserve_claim", verdict.message))
        if verdict.known is not None:
            cells = ", ".join(verdict.contradicted)
            pytest.xfail(f"known issue, contradicted in {cells}: {verdict.known}")
        if verdict.status == "INCONCLUSIVE":
            if strict:
                pytest.fail(f"{verdict.message}\n(--pdserve-strict)", pytrace=False)
            pytest.xfail(f"INCONCLUSIVE: {verdict.misses[0]}")
        if verdict.status == "FAIL":
            if not report:
                raise BaselineRegression(verdict.message)
            pytest.xfail(f"on {system.name} not enforced: {verdict.misses[0]}")

    return judge


def _unmeasured(claim: Claim, session: Session, *, report: bool, broken: Set[str]) -> str | None:
    """Why *claim* cannot be judged in this session, or None: where claims are enforced, try.

    :raises PdserveError: if a side is missing because its topology ended in an ERROR.
    """
    from pytest_pdserve.judge.claims import sides_of  # noqa: PLC0415

    measured = {topology for topology, _ in session.cells}
    if session.system.cluster.kind != "figures" and not measured & set(claim.topologies):
        return f"none of {', '.join(claim.topologies)} was measured"
    sides = tuple(sides_of(claim, session.system.sweep.workloads(), session.known().look))
    missing = {side.topology for side in sides if side.value is None}
    if lost := sorted(missing & broken):
        raise PdserveError(f"claim not judged: {', '.join(lost)} ended in an ERROR in this session")
    if not report:
        return None
    if not sides:
        return "no cell of this system's sweep lies in its regime"
    return f"{', '.join(sorted(missing))} neither measured nor in a baseline" if missing else None


def _not_judged(reason: str, *, strict: bool) -> None:
    if strict:
        pytest.fail(f"claim not judged: {reason} (--pdserve-strict)", pytrace=False)
    pytest.skip(f"claim not judged: {reason}; run suites/sweep with --topology all")
