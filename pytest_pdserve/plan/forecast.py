"""How long a session will take, by what earlier ones took, or else by stated defaults."""

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

START_S = 180.0
"""Default of a start of servers, warm-up and end included."""
RUN_S = 5.0
"""Default of a run, beside its load: warm-up, client, counters."""
GPU_TOK_S, CPU_TOK_S = 10_000.0, 50.0
"""Defaults of tokens of prompt and output that a GPU, or a CPU slot, works off in a second.

Two H200 worked off 37,000 to 60,000 each with DeepSeek-V2-Lite's shape; larger models are slower.
"""
DEFAULTS = (
    f"defaults: {START_S:.0f} s a start, {RUN_S:.0f} s a run beside its load, "
    f"{GPU_TOK_S:,.0f} tokens/s a GPU, {CPU_TOK_S:.0f} a CPU slot"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyWork:
    """What a session will do on one topology."""

    topology: str
    """Its id."""
    starts: int
    """Starts of its servers; 0 where somebody else runs them."""
    runs: tuple[Workload, ...]
    """Workload of every run."""
    other_tests: bool = False
    """Whether other tests ask its servers too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSession:
    """What an earlier session left."""

    records: tuple[Record, ...]
    """At least one."""
    times: SessionTimes | None = None
    """Where its time went; None where it did not write that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a session will take; queue and reruns are left out."""

    starts: int
    """Starts of servers."""
    start_s: float
    """Seconds of all of them, with the end of the servers."""
    runs: int
    """Measured runs."""
    load_s: float
    """Seconds of their loads."""
    rest_s: float
    """Seconds of their warm-up and client, of other tests, and of everything else."""
    sessions: int
    """Earlier sessions that it is made of."""
    guessed: bool
    """Whether any of it is made of defaults."""
    held: Held
    """What the session holds so long."""

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.start_s + self.load_s + self.rest_s


def forecast(
    work: Sequence[TopologyWork],
    past: Sequence[PastSession],
    *,
    client_kind: str,
    gpus: int,
    held: Held,
) -> Forecast:
    """Return what *work* will take.

    :param past: earlier sessions of the system, newest first; the newest that tells counts.
    :param client_kind: of the client; what runs with others took beside their load counts if there
        are none with it.
    :param gpus: of the system, CPU slots that count as one included.
    :param held: nodes of the session, for no time yet.
    """
    known = _Known(past=past, client=client_kind, gpus=gpus, has_gpus=held.gpus > 0)
    starts = sum(each.starts for each in work)
    runs = [(each.topology, workload) for each in work for workload in each.runs]
    start_s = sum(each.starts * known.start_s(each.topology) for each in work if each.starts)
    load_s = sum(known.load_s(topology, workload) for topology, workload in runs)
    rest_s = sum(known.beside_s(topology) for topology, _ in runs)
    rest_s += sum(known.other_tests_s() for each in work if each.other_tests)
    rest_s += known.client_start_s() if runs else 0.0
    total_s = start_s + load_s + rest_s
    return Forecast(
        starts=starts,
        start_s=start_s,
        runs=len(runs),
        load_s=load_s,
        rest_s=rest_s,
        sessions=len(known.used),
        guessed=known.guessed,
        held=replace(held, seconds=total_s),
    )


Take = Callable[[PastSession], Iterable[float]]
"""Returns what an earlier session tells of something, seconds."""


@dataclass(slots=True, kw_only=True)
class _Known:
    """What earlier sessions tell, and which of them were asked."""

    past: Sequence[PastSession]
    client: str
    gpus: int
    has_gpus: bool
    used: set[int] = field(default_factory=set)
    """Places in :attr:`past`."""
    guessed: bool = False
    """Whether a default was used."""

    def start_s(self, topology: str) -> float:
        """Seconds of a start of *topology*, with the end of its servers."""
        found = self._newest(
            lambda session: (s for name, s in _starts(session) if name == topology),
            lambda session: (s for _, s in _starts(session)),
        )
        return self._default(START_S) if found is None else found + self._stop_s()

    def _stop_s(self) -> float:
        return self._newest(_stop) or 0.0

    def load_s(self, topology: str, workload: Workload) -> float:
        """Seconds of the load of one run."""
        found = self._newest(
            lambda s: (_load(r) for r in _measured(s, topology) if r.workload.id == workload.id),
            lambda s: (_load(r) for r in _measured(s) if r.workload.id == workload.id),
        )
        if found is not None:
            return found
        per_token_s = self._newest(
            lambda s: (_load(r) / _tokens(r.workload) for r in _measured(s, topology)),
            lambda s: (_load(r) / _tokens(r.workload) for r in _measured(s)),
        )
        if per_token_s is None:
            rate = GPU_TOK_S if self.has_gpus else CPU_TOK_S
            per_token_s = self._default(1 / (rate * self.gpus))
        return max(per_token_s * _tokens(workload), _arrivals_s(workload))

    def client_start_s(self) -> float:
        """Seconds of starting a client that then measures every cell."""
        return self._newest(_client_start) or 0.0

    def other_tests_s(self) -> float:
        """Seconds of tests that send requests of their own to a topology."""
        return self._newest(_other_tests) or 0.0

    def beside_s(self, topology: str) -> float:
        """Seconds of a run beside its load, and its part of what belongs to no run."""
        found = self._newest(
            lambda s: (_beside(r) for r in _measured(s, topology) if r.client_kind == self.client),
            lambda s: (_beside(r) for r in _measured(s) if r.client_kind == self.client),
            lambda s: (_beside(r) for r in _measured(s)),
        )
        if found is None:
            return self._default(RUN_S)
        return found + (self._newest(_overhead) or 0.0)

    def _newest(self, *takes: Take) -> float | None:
        """Mean of what the newest session tells that tells anything, by the first way that does."""
        for take in takes:
            for place, session in enumerate(self.past):
                if values := [*take(session)]:
                    self.used.add(place)
                    return fmean(values)
        return None

    def _default(self, value: float) -> float:
        self.guessed = True
        return value


def _starts(session: PastSession) -> Iterator[tuple[str, float]]:
    """Yield topology and seconds of every start; without the session's own times as records say."""
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
    """Yield the seconds of ending servers, for each start."""
    if session.times is not None and session.times.ended and session.times.starts:
        yield session.times.seconds.get("stop", 0.0) / len(session.times.starts)


def _client_start(session: PastSession) -> Iterator[float]:
    """Yield the seconds of the client that no run had."""
    if session.times is not None and session.times.ended:
        in_runs = sum(_client(record) for record in _measured(session))
        yield max(session.times.seconds.get("client", 0.0) - in_runs, 0.0)


def _other_tests(session: PastSession) -> Iterator[float]:
    """Yield the seconds of other tests, for each topology."""
    if session.times is not None and "other tests" in session.times.seconds:
        topologies = {each.topology for each in session.times.starts}
        yield session.times.seconds["other tests"] / max(len(topologies), 1)


def _overhead(session: PastSession) -> Iterator[float]:
    """Yield the seconds that belong to no start and no run, for each run."""
    if session.times is not None and session.times.ended and session.times.runs:
        yield session.times.seconds.get("overhead", 0.0) / session.times.runs


def _measured(session: PastSession, topology: str | None = None) -> Iterator[Record]:
    """Yield the records that say how long their load took, of one topology or of all.

    Those of imported results do not.
    """
    for record in session.records:
        if topology in (None, record.topology) and "bench" in record.timings_s:
            yield record


def _load(record: Record) -> float:
    return record.timings_s["bench"]


def _client(record: Record) -> float:
    """Return the seconds of the client outside of the load of a run."""
    return max(record.timings_s.get("client", 0.0) - _load(record), 0.0)


def _beside(record: Record) -> float:
    """Return the seconds of warm-up and client of a run."""
    return _client(record) + record.timings_s.get("warm", 0.0)


def _tokens(workload: Workload) -> int:
    """Return the tokens of prompts and outputs."""
    load = workload.known()
    return load.num_prompts * (sum(load.lengths) if load.lengths else UNKNOWN_TOKENS)


def _arrivals_s(workload: Workload) -> float:
    """Return the seconds until the last request is sent at the earliest."""
    load = workload.known()
    return load.num_prompts / load.request_rate if load.request_rate else 0.0
