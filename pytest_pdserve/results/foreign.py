"""A run that another tool measured, and how readers take its values from a result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import Any

from pytest_pdserve.results.documents import Row
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.numbers import finite
from pytest_pdserve.values.result import ARRAYS
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.system import UNNAMED_CLIENT
from pytest_pdserve.values.workload import UNKNOWN

MAX_TEXT = 300
"""Maximum characters of a stored text."""
_FIRST_YEAR, _LAST_YEAR = 2000, 2199
"""Years that are accepted as dates of a measurement."""
_TOTALS = ("completed", "total_input_tokens", "total_output_tokens")
_STATISTIC = r"(?P<statistic>mean|median|std|min|max|p\d+(?:\.\d+)?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRun:
    """One run that another tool measured."""

    where: str
    """File and row, for messages."""
    load: Mapping[str, Any]
    """Fields of the workload that the file contains; the others are unknown."""
    result: BenchResult
    """Measured values under the names of vLLM: times in ms, throughputs per second."""
    date: datetime | None = None
    """When it was measured; None if the file has no date."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Component to version, as far as the file contains them."""
    served_by: Mapping[str, str] = field(default_factory=dict)
    """Facts about the servers: model, hardware, settings. Runs that differ in them cannot be
    compared."""
    instances: Mapping[str, int] = field(default_factory=dict)
    """Number of instances by role, if in the file; prefill 0 is a topology without roles."""
    client_kind: str = UNNAMED_CLIENT
    """Kind of the benchmark client, as of :attr:`.record.Record.client_kind`."""
    start: int | None = None
    """Start of the servers that it ran on; None if unknown."""
    topology: str | None = None
    """Id of the topology; None if not in the file."""
    notes: tuple[str, ...] = ()
    """Values that were converted or reinterpreted, a sentence each."""
    not_understood: tuple[str, ...] = ()
    """Names that the reader does not know, and ignored."""

    @property
    def has_latency(self) -> bool:
        """True if there is any latency that pdserve knows."""
        names = (n for row in METRICS.values() if row.quantity for n in (row.name, *row.aliases))
        return any(finite(self.result.raw.get(name)) is not None for name in names)


class Fields:
    """Values of one result, taken by name; names that are never taken were not understood.

    Each method raises a ConfigError that names file, name and value if a value is of another type
    than expected: NaN, text and true are not numbers.
    """

    def __init__(self, row: Row, prefix: str = "") -> None:
        self.where = row.where
        self._prefix = prefix
        self._data = row.data
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def skip(self, *names: str) -> None:
        """Mark *names* as understood and not needed."""
        self._taken.update(names)

    def skip_matching(self, pattern: re.Pattern[str]) -> None:
        """Mark names that match *pattern* as understood and not needed."""
        self._taken.update(name for name in self._data if pattern.fullmatch(name))

    def peek(self, name: str) -> Any:
        """Return the value of *name* without marking it as understood; None if missing."""
        return self._data.get(name)

    def take(self, name: str) -> Any:
        """Return the value of *name*, of any type; None if missing."""
        self._taken.add(name)
        return self._data.get(name)

    def number(self, name: str) -> float | None:
        """Return a number of at least 0; None if missing."""
        value = self.take(name)
        if value is None:
            return None
        number = finite(value)
        if number is None or number < 0:
            raise self.wrong(name, "a number from 0")
        return number

    def count(self, name: str) -> int | None:
        """Return a whole number of at least 0; None if missing."""
        number = self.number(name)
        if number is not None and not number.is_integer():
            raise self.wrong(name, "a whole number")
        return None if number is None else int(number)

    def text(self, name: str) -> str | None:
        """Return one line of text; None if missing or empty."""
        value = self.take(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
            raise self.wrong(name, f"one line of text, at most {MAX_TEXT} characters")
        return value

    def fact(self, name: str) -> str | None:
        """Return a text, number or truth value as text; None if missing."""
        value = self.take(name)
        if isinstance(value, bool | int | float):
            return str(value).lower()
        return self.text(name)

    def table(self, name: str) -> Fields:
        """Return the values of an object; empty if missing."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "an object")
        path = f"{self._prefix}{name}."
        return Fields(Row(where=self.where, data=value or {}), path)

    def tables(self, name: str) -> list[Fields]:
        """Return the values of each object of a list; empty if missing."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.wrong(name, "a list of objects")
        paths = (f"{self._prefix}{name}[{index}]." for index in range(len(value)))
        rows = (Row(where=self.where, data=each) for each in value)
        return [Fields(row, path) for row, path in zip(rows, paths, strict=True)]

    def wrong(self, name: str, expected: str) -> ConfigError:
        """Return the error for a value that is not as *expected*."""
        value = self._data.get(name)
        return ConfigError(
            f"{self.where}: {self._prefix}{name} = {value!r:.60}: expected {expected}"
        )

    @property
    def left(self) -> tuple[str, ...]:
        """Names that were not taken."""
        return tuple(f"{self._prefix}{name}" for name in self._data if name not in self._taken)

    @property
    def single_values(self) -> dict[str, Any]:
        """All values except lists, objects and long texts, unchanged."""
        return {
            name: value
            for name, value in self._data.items()
            if not isinstance(value, list | dict)
            and not (isinstance(value, str) and len(value) > MAX_TEXT)
        }


def take_latencies(fields: Fields, form: str, *, to_ms: float = 1.0) -> dict[str, float]:
    """Take every latency of one spelling; return the known ones in ms.

    :param form: regular expression of a name, in which ``{statistic}`` stands for the statistic;
        its group ``quantity`` is one of ``ttft``, ``tpot``, ``itl``, ``e2el``, or begins with
        ``e2e``.
    :param to_ms: milliseconds of the file's unit.
    """
    pattern = re.compile(form.replace("{statistic}", _STATISTIC))
    found = {}
    for name in fields:
        if (match := pattern.fullmatch(name)) and (value := fields.number(name)) is not None:
            quantity = "e2el" if match["quantity"].startswith("e2e") else match["quantity"]
            found[f"{match['statistic']}_{quantity}_ms"] = scaled(value, to_ms)
    return found


def scaled(value: float, factor: float) -> float:
    """Return *value* in another unit, without floating-point noise."""
    return value if factor == 1.0 else round(value * factor, 9)


def bench_result(
    fields: Fields, measured: Mapping[str, float], throughputs: Sequence[str]
) -> BenchResult:
    """Take totals, throughputs and per-request lists, which are named as in vLLM.

    :param measured: metrics that were taken already, under the names of vLLM.
    :raises ConfigError: if a total is missing, or a value is not a number.
    """
    counts = {name: fields.count(name) for name in _TOTALS}
    times = {name: fields.number(name) for name in ("duration", *throughputs)}
    missing = next((name for name, value in {**counts, **times}.items() if value is None), None)
    if missing in (*_TOTALS, "duration"):
        raise fields.wrong(missing, "a number from 0")
    failed = fields.count("failed")
    lists = {name: fields.take(name) for name in ARRAYS if name in fields}
    single = {**fields.single_values, **measured}
    try:
        return BenchResult.from_json(
            {**single, **counts, **times, "failed": failed, **lists}, source=fields.where
        )
    except ClientError as error:
        raise ConfigError(str(error)) from error


def request_rate(fields: Fields, name: str = "request_rate") -> dict[str, Any]:
    """Take the arrival rate as a workload field; ``inf`` is None: all requests at once."""
    if name not in fields:
        return {}
    rate = fields.take(name)
    if rate in ("inf", "Infinity"):
        return {"request_rate": None}
    return {"request_rate": UNKNOWN if rate is None else rate}


def moment(text: Any) -> datetime | None:
    """Return the time that *text* contains, in UTC without an offset; None if it is not a time."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.strptime(text, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            return None
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
