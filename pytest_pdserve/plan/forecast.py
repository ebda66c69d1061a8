"""Forecast the duration of a session from earlier sessions, or from defaults."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from statistics import fmean

from pytest_pdserve.plan.bench import UNKNOWN_TOKENS
from pytest_pdserve.values.phases import Held
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.workload import Workload

START_S = 150.0
"""Default seconds of a start of servers, with warm-up and stop; 77 to 146 were measured on H200."""
RUN_S = 5.0
"""Default seconds of a run without its load: warm-up, client, counters."""
GPU_TOK_S, CPU_TOK_S = 15_000.0, 50.0
"""Default tokens/s of prompt and output of a GPU, and of a CPU slot.

Sessions of several topologies of DeepSeek-V2-Lite's shape reached 16,000 to 24,000 on each of four
H200, 1P3D alone 13,500; larger models are slower.
"""
DEFAULTS = (
    f"defaults: {START_S:.0f} s a start, {RUN_S:.0f} s a run without its load, "
    f"{GPU_TOK_S:,.0f} tokens/s a GPU, {CPU_TOK_S:.0f} a CPU slot"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyWork:
    """Starts and runs of a session on one topology."""

    topology: str
    """Topology id."""
    starts: int
    """Starts of its servers; 0 for an attached endpoint."""
    runs: tuple[Workload, ...]
    """Workload of every run."""
    other_tests: bool = False
    """True if other tests use its servers too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSession:
    """Records and times of an earlier session."""

    records: tuple[Record, ...]
    """At least one."""
    times: SessionTimes | None = None
    """Its times by phase; None if it did not write them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Expected duration of a session, without queue and reruns."""

    starts: int
    """Number of starts of servers."""
    start_s: float
    """Seconds of all starts, with stopping the servers."""
    runs: int
    """Number of measured runs."""
    load_s: float
    """Seconds of all loads."""
    rest_s: float
    """Seconds of everything else: warm-up and client of runs, other tests, overhead."""
    sessions: int
    """Number of earlier sessions used."""
    uses_defaults: bool
    """True if a default was used."""
    held: Held
    """Nodes and GPUs that the session holds, for that time."""

    @property
    def total_s(self) -> float:
        """Seconds in total."""
        return self.start_s + self.load_s + self.rest_s


def forecast(
    work: Sequence[TopologyWork],
    past: Sequence[PastSession],
    *,
    client_kind: str,
    gpus: int,
    held: Held,
) -> Forecast:
    """Return the expected duration of *work*.

    :param past: earlier sessions of the system, newest first; each time is from the newest session
        that has it.
    :param client_kind: kind of the client; runs with other kinds are used only if there are none
        with it.
    :param gpus: GPUs of the system; a CPU slot counts as one.
    :param held: nodes of the session, held for 0 s.
    """
    times = _PastTimes(past=past, client=client_kind, gpus=gpus, has_gpus=held.gpus > 0)
    starts = sum(each.starts for each in work)
    runs = [(each.topology, workload) for each in work for workload in each.runs]
    start_s = sum(each.starts * times.start_s(each.topology) for each in work if each.starts)
    load_s = sum(times.load_s(topology, workload) for topology, workload in runs)
    rest_s = sum(times.run_overhead_s(topology) for topology, _ in runs)
    rest_s += sum(times.other_tests_s() for each in work if each.other_tests)
    rest_s += times.client_start_s() if runs else 0.0
    total_s = start_s + load_s + rest_s
    return Forecast(
        starts=starts,
        start_s=start_s,
        runs=len(runs),
        load_s=load_s,
        rest_s=rest_s,
        sessions=len(times.used),
        uses_defaults=times.uses_defaults,
        held=replace(held, seconds=total_s),
    )


ReadTimes = Callable[[PastSession], Iterable[float]]
"""Returns the times of something in an earlier session, seconds; empty if it has none."""


@dataclass(slots=True, kw_only=True)
class _PastTimes:
    """Times of earlier sessions, and which of these were used."""

    past: Sequence[PastSession]
    client: str
    gpus: int
    has_gpus: bool
    used: set[int] = field(default_factory=set)
    """Positions in :attr:`past`."""
    uses_defaults: bool = False
    """True if a default was used."""

    def start_s(self, topology: str) -> float:
        """Return the seconds of a start of *topology*, with stopping its servers."""
        mean_s = self._newest(
            lambda session: (s for name, s in _starts(session) if name == topology),
            lambda session: (s for _, s in _starts(session)),
        )
        return self._default(START_S) if mean_s is None else mean_s + self._stop_s()

    def _stop_s(self) -> float:
        return self._newest(_stop) or 0.0

    def load_s(self, topology: str, workload: Workload) -> float:
        """Return the seconds of the load of one run."""
        mean_s = self._newest(
            lambda s: (_load(r) for r in _measured(s, topology) if r.workload.id == workload.id),
            lambda s: (_load(r) for r in _measured(s) if r.workload.id == workload.id),
        )
        if mean_s is not None:
            return mean_s
        per_token_s = self._newest(
            lambda s: (_load(r) / _tokens(r.workload) for r in _measured(s, topology)),
            lambda s: (_load(r) / _tokens(r.workload) for r in _measured(s)),
        )
        if per_token_s is None:
            rate = GPU_TOK_S if self.has_gpus else CPU_TOK_S
            per_token_s = self._default(1 / (rate * self.gpus))
        return max(per_token_s * _tokens(workload), _arrivals_s(workload))

    def client_start_s(self) -> float:
        """Return the seconds of starting a client that measures all cells."""
        return self._newest(_client_start) or 0.0

    def other_tests_s(self) -> float:
        """Return the seconds of other tests on one topology."""
        return self._newest(_other_tests) or 0.0

    def run_overhead_s(self, topology: str) -> float:
        """Return the seconds of a run without its load, with its share of overhead."""
        mean_s = self._newest(
            lambda s: (
                _run_overhead(r) for r in _measured(s, topology) if r.client_kind == self.client
            ),
            lambda s: (_run_overhead(r) for r in _measured(s) if r.client_kind == self.client),
            lambda s: (_run_overhead(r) for r in _measured(s)),
        )
        if mean_s is None:
            return self._default(RUN_S)
        return mean_s + (self._newest(_overhead) or 0.0)

    def _newest(self, *readers: ReadTimes) -> float | None:
        """Return the mean of the first of *readers* that finds times, in the newest session."""
        for read in readers:
            for position, session in enumerate(self.past):
                if values := [*read(session)]:
                    self.used.add(position)
                    return fmean(values)
        return None

    def _default(self, value: float) -> float:
        self.uses_defaults = True
        return value


def _starts(session: PastSession) -> Iterator[tuple[str, float]]:
    """Yield topology and seconds of every start, from the session's times, else from records."""
    if session.times is not None:
        for each in session.times.starts:
            yield each.topology, each.ready_s + each.warmup_s
        return
    seen: set[tuple[str, int | None]] = set()
    for record in session.records:
        ready_s = record.timings_s.get("ready")
        if ready_s is not None and (record.topology, record.start) not in seen:
            seen.add((record.topology, record.start))
            yield record.topology, ready_s + record.timings_s.get("warmup", 0.0)


def _stop(session: PastSession) -> Iterator[float]:
    """Yield the seconds of stopping servers, per start."""
    if session.times is not None and session.times.ended and session.times.starts:
        yield session.times.seconds.get("stop", 0.0) / len(session.times.starts)


def _client_start(session: PastSession) -> Iterator[float]:
    """Yield the seconds of the client that belong to no run."""
    if session.times is not None and session.times.ended:
        in_runs = sum(_client(record) for record in _measured(session))
        yield max(session.times.seconds.get("client", 0.0) - in_runs, 0.0)


def _other_tests(session: PastSession) -> Iterator[float]:
    """Yield the seconds of other tests, per topology."""
    if session.times is not None and "other tests" in session.times.seconds:
        topologies = {each.topology for each in session.times.starts}
        yield session.times.seconds["other tests"] / max(len(topologies), 1)


def _overhead(session: PastSession) -> Iterator[float]:
    """Yield the seconds that belong to no start and no run, per run."""
    if session.times is not None and session.times.ended and session.times.runs:
        yield session.times.seconds.get("overhead", 0.0) / session.times.runs


def _measured(session: PastSession, topology: str | None = None) -> Iterator[Record]:
    """Yield the records with the duration of their load, of one topology or of all.

    Records of imported results lack it.
    """
    for record in session.records:
        if topology in (None, record.topology) and "bench" in record.timings_s:
            yield record


def _load(record: Record) -> float:
    return record.timings_s["bench"]


def _client(record: Record) -> float:
    """Return the seconds of the client before and after the load of a run."""
    return max(record.timings_s.get("client", 0.0) - _load(record), 0.0)


def _run_overhead(record: Record) -> float:
    """Return the seconds of warm-up and client of a run."""
    return _client(record) + record.timings_s.get("warm", 0.0)


def _tokens(workload: Workload) -> int:
    """Return the tokens of all prompts and outputs."""
    load = workload.known()
    return load.num_prompts * (sum(load.lengths) if load.lengths else UNKNOWN_TOKENS)


def _arrivals_s(workload: Workload) -> float:
    """Return the seconds until the last request arrives; 0 if all are sent at once."""
    load = workload.known()
    return load.num_prompts / load.request_rate if load.request_rate else 0.0
