"""The table of metrics: one row per metric, from which everything else derives.

A row decides what the client is asked for, what records and baselines contain, what sanity checks
void, what is judged, what the simulation computes, and which columns tables have.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Literal

from pytest_pdserve.values.counters import counted_per_rank
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.extensions import METRICS_GROUP
from pytest_pdserve.values.extensions import load_extensions
from pytest_pdserve.values.numbers import finite
from pytest_pdserve.values.roles import kv_pullers

if TYPE_CHECKING:
    from pytest_pdserve.values.observation import Observation
    from pytest_pdserve.values.result import BenchResult

Better = Literal["lower", "higher", "equal"]
Reader = Callable[["Observation"], float | None]

DEFAULT_FLOOR = 0.10
"""Default floor of metrics."""
ITL_LIKE_FLOOR = 0.04
"""Floor of mean E2EL, ITL and TPOT, and of output throughput."""
TTFT_FLOOR = 0.10
"""Floor of mean TTFT."""
TAIL_FLOOR = 0.40
"""Floor of p99 TTFT."""
ITL_LIKE_MARGIN = 0.03
"""Gate margin of mean E2EL, ITL and TPOT, and of output throughput."""
TTFT_MARGIN = 0.10
"""Gate margin of mean TTFT."""
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric of a run."""

    name: str
    """Name in records, baselines and claims; the client's own, if it has one."""
    unit: str
    """Unit, e.g. ``ms``."""
    better: Better
    """Direction; ``equal`` for a count that must not change at all."""
    quantity: str | None = None
    """Name in the client's ``--percentile-metrics``, e.g. ``ttft``; None if the client reports it
    anyway."""
    statistic: str = "total"
    """``mean``, a percentile such as ``p99``, or ``total``."""
    aliases: tuple[str, ...] = ()
    """Other names under which a client may write it."""
    read: Reader | None = None
    """Computes it from an observation; None uses the client's value of that name."""
    judged: bool = False
    """True if baselines contain it, so that it is judged."""
    heading: str | None = None
    """Column heading in tables of cells; None if it has no column."""
    voided_by: frozenset[str] = frozenset()
    """Facts about a run that void it: ``chunks`` (several tokens arrive in one chunk), ``counters``
    (the instances' counters cannot be read), ``offered`` (requests were sent at less than the
    load's rate)."""
    zero: bool = False
    """True if it can be 0 in a valid run."""
    min_tokens: int = 1
    """Minimum output tokens per request for it to exist: a single token has no ITL."""
    floor: float = DEFAULT_FLOOR
    """Smallest limit by default, as a fraction of worse by ratio: 0.04 is 4 %. About five times the
    spread of a quiet system (docs/judging.md)."""
    gate_margin: float | None = None
    """How much worse by ratio a candidate may be in an upgrade gate, as a fraction; None for a
    metric that a gate shows but does not judge (docs/gate-rule.md)."""

    @property
    def percentile(self) -> str | None:
        """Percentile for ``--metric-percentiles``, e.g. ``99``; None for other statistics."""
        match = _PERCENTILE.fullmatch(self.statistic)
        return match[1] if match else None

    @property
    def client_flags(self) -> tuple[tuple[str, str], ...]:
        """Flags of the client that request it, without dashes, with their values."""
        if self.quantity is None:
            return ()
        flags = [("percentile-metrics", self.quantity)]
        if self.percentile is not None:
            flags.append(("metric-percentiles", self.percentile))
        return tuple(flags)

    @property
    def is_throughput(self) -> bool:
        """True if it is a throughput, which can be divided by the number of GPUs."""
        return self.unit.endswith("/s")

    def value(self, seen: Observation) -> float | None:
        """Return the metric's value in one run; None if the run has none."""
        result = seen.result
        completed, tokens = result.completed, result.total_output_tokens
        if completed == 0 and self.better != "equal":
            return None
        if completed and tokens is not None and tokens < self.min_tokens * completed:
            return None
        if self.read is not None:
            return finite(self.read(seen)) if result.has_totals else None
        values = (finite(result.raw.get(name)) for name in (self.name, *self.aliases))
        return next((value for value in values if value is not None), None)


class MetricTable(Mapping[str, Metric]):
    """Metrics by name: of this package, then of entry points, which are loaded at first use."""

    def __init__(self, rows: tuple[Metric, ...], group: str | None = None) -> None:
        self._own = rows
        self._group = group

    @functools.cached_property
    def _rows(self) -> dict[str, Metric]:
        rows = {row.name: row for row in self._own}
        added = load_extensions(self._group) if self._group else {}
        for name, row in added.items():
            if not isinstance(row, Metric):
                raise ConfigError(
                    f"entry point {name!r} of group {self._group!r} is a {type(row).__name__}, "
                    "expected a pytest_pdserve.Metric"
                )
            if row.name in rows:
                raise ConfigError(
                    f"entry point {name!r} of group {self._group!r} defines metric {row.name!r}, "
                    "which exists already; give it another name"
                )
            rows[row.name] = row
        return rows

    def __getitem__(self, name: str) -> Metric:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def measure(self, seen: Observation) -> dict[str, float]:
        """Return the values of all metrics that the run has."""
        values = {name: row.value(seen) for name, row in self.items()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def times(self) -> tuple[str, ...]:
        """Judged latencies and throughputs."""
        return tuple(n for n, row in self.items() if row.judged and row.better != "equal")

    @property
    def kept(self) -> tuple[str, ...]:
        """Metrics that a night of a baseline contains: judged ones, and all throughputs."""
        return tuple(n for n, row in self.items() if n in self.times or row.is_throughput)

    @property
    def counts(self) -> tuple[str, ...]:
        """Judged counts, which depend only on workload and topology."""
        return tuple(n for n, row in self.items() if row.judged and row.better == "equal")

    @property
    def measured(self) -> tuple[str, ...]:
        """Latencies and throughputs, judged or not."""
        return tuple(name for name, row in self.items() if row.better != "equal")

    @property
    def gate_margins(self) -> dict[str, float]:
        """Margin of every metric that upgrade gates judge, as a fraction, by name."""
        margins = {name: row.gate_margin for name, row in self.items()}
        return {name: margin for name, margin in margins.items() if margin is not None}

    @property
    def latencies(self) -> tuple[str, ...]:
        """Latencies, judged or not: metrics that require the load's request rate."""
        return self.voided_by("offered")

    @property
    def shown(self) -> tuple[Metric, ...]:
        """Metrics with a column in tables of cells."""
        return tuple(row for row in self.values() if row.heading)

    def voided_by(self, fact: str) -> tuple[str, ...]:
        """Return the metrics that *fact* voids."""
        return tuple(name for name, row in self.items() if fact in row.voided_by)

    def client_flags(self) -> dict[str, str]:
        """Return the client's flags that request all metrics, without dashes, with their values."""
        flags: dict[str, dict[str, None]] = {}
        for row in self.values():
            for flag, value in row.client_flags:
                flags.setdefault(flag, {})[value] = None
        percentiles = flags.get("metric-percentiles", {})
        flags["metric-percentiles"] = dict.fromkeys(sorted(percentiles, key=float))
        return {flag: ",".join(values) for flag, values in flags.items() if values}


def _latency(quantity: str, statistic: str, *, heading: str | None = None) -> Metric:
    tail = statistic in ("p90", "p99")
    first, gaps = quantity == "ttft", quantity == "itl"
    return Metric(
        name=f"{statistic}_{quantity}_ms",
        unit="ms",
        better="lower",
        quantity=quantity,
        statistic=statistic,
        aliases=(f"median_{quantity}_ms",) if statistic == "p50" else (),
        judged=statistic == "mean" or (first and statistic == "p99"),
        heading=heading,
        voided_by=frozenset({"offered", "chunks"} if gaps else {"offered"}),
        zero=gaps,
        min_tokens=2 if quantity in ("tpot", "itl") else 1,
        floor=TAIL_FLOOR if tail else TTFT_FLOOR if first else ITL_LIKE_FLOOR,
        gate_margin=(TTFT_MARGIN if first else ITL_LIKE_MARGIN) if statistic == "mean" else None,
    )


def _due(name: str, statistic: str, after: Callable[[BenchResult, int], float]) -> Metric:
    """Return a latency since a request was due by the arrival rate; recorded, not judged.

    :param after: returns the seconds since request *i* was sent.
    """

    def read(seen: Observation) -> float | None:
        spans = [seen.result.queue_s[i] + after(seen.result, i) for i in with_queue_time(seen)]
        return _statistic(spans, statistic)

    return Metric(
        name=f"{statistic}_{name}_ms",
        unit="ms",
        better="lower",
        statistic=statistic,
        read=read,
        zero=True,
        min_tokens=0,
        floor=TAIL_FLOOR if statistic != "mean" else TTFT_FLOOR,
    )


def with_queue_time(seen: Observation) -> tuple[int, ...]:
    """Return the indices of the requests whose queue time in the client is known.

    Empty without an arrival rate, since requests then have no due time.
    """
    result, rate = seen.result, seen.workload.request_rate
    if not isinstance(rate, int | float) and seen.workload.ramp_up is None:
        return ()
    if not len(result.queue_s) == len(result.ttft_s) == len(result.itl_s):
        return ()
    errors = result.errors or ("",) * len(result.queue_s)
    return tuple(
        i
        for i, error in enumerate(errors)
        if not error and not math.isnan(result.queue_s[i] + result.ttft_s[i])
    )


def _statistic(spans: Sequence[float], statistic: str) -> float | None:
    """Return the mean or percentile of *spans*, seconds, in ms; None if there are none."""
    import numpy as np

    if not spans:
        return None
    match = _PERCENTILE.fullmatch(statistic)
    value = np.percentile(spans, float(match[1])) if match else np.mean(spans)
    return float(value) * 1000


def _sent(_: BenchResult, __: int) -> float:
    return 0.0


def _first_token(result: BenchResult, i: int) -> float:
    return result.ttft_s[i]


def _last_token(result: BenchResult, i: int) -> float:
    return result.ttft_s[i] + sum(result.itl_s[i])


def _rate(name: str, unit: str, *, heading: str | None = None, judged: bool = False) -> Metric:
    return Metric(
        name=name,
        unit=unit,
        better="higher",
        judged=judged,
        heading=heading,
        min_tokens=0,
        floor=ITL_LIKE_FLOOR,
        gate_margin=ITL_LIKE_MARGIN if judged else None,
    )


def _count(name: str, unit: str, read: Reader, *, voided_by: str = "") -> Metric:
    return Metric(
        name=name,
        unit=unit,
        better="equal",
        read=read,
        judged=True,
        zero=True,
        min_tokens=0,
        voided_by=frozenset({voided_by} if voided_by else ()),
    )


def _transfers(seen: Observation) -> float | None:
    """Return the KV transfers of decode instances; None without NIXL counters."""
    return seen.total("kv_transfers", *kv_pullers())


def _failed_transfers(seen: Observation) -> float | None:
    return None if _transfers(seen) is None else seen.total("kv_failed")


def _bytes_per_request(seen: Observation) -> float | None:
    """Return the mean bytes of a prompt's KV cache, including bytes in the prefix cache."""
    moved, completed = seen.total("kv_bytes", *kv_pullers()), seen.result.completed
    whole, cached = seen.kv_predicted, seen.kv_cached
    if moved and whole and cached and counted_per_rank(moved, whole - cached, seen.ranks):
        moved *= whole / (whole - cached)
    return (moved or 0.0) / completed if _transfers(seen) and completed else None


METRICS = MetricTable(
    (
        _latency("ttft", "mean", heading="TTFT"),
        _latency("ttft", "p50"),
        _latency("ttft", "p90"),
        _latency("ttft", "p99", heading="p99 TTFT"),
        _latency("itl", "mean", heading="ITL"),
        _latency("itl", "p50"),
        _latency("itl", "p90"),
        _latency("itl", "p99"),
        _latency("tpot", "mean", heading="TPOT"),
        _latency("tpot", "p50"),
        _latency("tpot", "p90"),
        _latency("tpot", "p99"),
        _latency("e2el", "mean"),
        _latency("e2el", "p50"),
        _latency("e2el", "p90"),
        _latency("e2el", "p99"),
        _due("client_queue_time", "mean", _sent),
        _due("client_queue_time", "p99", _sent),
        _due("ttft_including_client_queue", "mean", _first_token),
        _due("ttft_including_client_queue", "p99", _first_token),
        _due("e2el_including_client_queue", "mean", _last_token),
        _due("e2el_including_client_queue", "p99", _last_token),
        _rate("output_throughput", "tok/s", heading="output", judged=True),
        _rate("request_throughput", "req/s"),
        _rate("total_token_throughput", "tok/s"),
        _count("completed", "requests", lambda seen: seen.result.completed),
        _count("failed", "requests", lambda seen: seen.result.failed),
        _count("total_input_tokens", "tokens", lambda seen: seen.result.total_input_tokens),
        _count("total_output_tokens", "tokens", lambda seen: seen.result.total_output_tokens),
        _count("kv_transfers", "transfers", _transfers, voided_by="counters"),
        _count("kv_failed_transfers", "transfers", _failed_transfers, voided_by="counters"),
        _count("kv_bytes_per_request", "bytes", _bytes_per_request, voided_by="counters"),
    ),
    group=METRICS_GROUP,
)
"""Every metric, by name."""
