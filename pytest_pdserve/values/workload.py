"""Workloads: loads of the benchmark client, and their ids."""

from __future__ import annotations

import functools
import math
import re
import zlib
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from types import MappingProxyType
from typing import Annotated
from typing import Any
from typing import Final
from typing import Literal
from typing import get_type_hints
from urllib.parse import quote

import msgspec
from msgspec import Meta

from pytest_pdserve.values.errors import ConfigError

Unknown = Literal["unknown"]
UNKNOWN: Final = "unknown"
"""Value of what a result file does not record of its load; differs from every value and default."""

LENGTH_FLAGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "random": ("random-input-len", "random-output-len"),
        "random-mm": ("random-input-len", "random-output-len"),
        # Removed in vLLM 0.32, whose client reports that itself. Earlier clients and their results
        # have it, and the client's version is not known when a load is parsed.
        "sonnet": ("sonnet-input-len", "sonnet-output-len"),
    }
)
"""Data sets that take lengths, with the client's flags for prompt and output; all others have
lengths of their own."""

_OWN_FLAGS = frozenset(
    {
        *("dataset-name", "num-prompts", "request-rate", "burstiness", "max-concurrency"),
        *("ramp-up-strategy", "ramp-up-start-rps", "ramp-up-end-rps", "seed"),
        *(flag for pair in LENGTH_FLAGS.values() for flag in pair),
    }
)
"""Flags that are set by fields, and must not be options."""

NAME = re.compile(r"[A-Za-z0-9._-]+")
"""Allowed names of data sets."""
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+(?![\s\S])", max_length=60)]
Length = Annotated[int, Meta(ge=1, le=10_000_000)]
Prompts = Annotated[int, Meta(ge=1, le=10_000_000)]
Rate = Annotated[float, Meta(ge=0.001, le=1_000_000)]
Factor = Annotated[float, Meta(gt=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=0)]
Concurrency = Annotated[int, Meta(ge=1, le=1_000_000)]
Flag = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*(?![\s\S])", max_length=60)]
Options = Mapping[Flag, Annotated[str, Meta(max_length=1000)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RampUp:
    """Growth of the rate at the start of a load."""

    strategy: Literal["linear", "exponential"]
    """``--ramp-up-strategy``."""
    start_rps: Annotated[int, Meta(ge=1, le=1_000_000)]
    """First rate, req/s; vLLM takes whole numbers."""
    end_rps: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Last rate, req/s, no lower than the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLoad:
    """A load without unknown values, which can be run."""

    lengths: tuple[int, int] | None
    """Prompt and output length, tokens; None for a data set with lengths of its own."""
    num_prompts: int
    """As in :class:`Workload`; the next four fields too."""
    request_rate: float | None
    burstiness: float
    max_concurrency: int | None
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A load; everything that changes it is a field, and part of :attr:`id`.

    :raises ConfigError: when built with a value of a wrong type or size, with lengths for a data
        set that brings its own or without them for one that takes them, or with an option that is
        a field.
    """

    input_len: Length | Unknown | None = None
    """Prompt length, tokens; None for a data set with lengths of its own."""
    output_len: Length | Unknown | None = None
    """Tokens generated per request, ignoring the end-of-sequence token; None as above."""
    num_prompts: Prompts | Unknown
    """Number of requests."""
    request_rate: Rate | Unknown | None = None
    """Open-loop arrival rate, req/s; None sends all at once."""
    burstiness: Factor | Unknown = 1.0
    """Shape of the gaps between requests; 1 is a Poisson process."""
    ramp_up: RampUp | None = None
    """How the rate grows at the start; None is a constant rate."""
    max_concurrency: Concurrency | Unknown | None = None
    """Requests in flight at most; None is no bound."""
    dataset: Name = "random"
    """``--dataset-name`` of ``vllm bench serve``; ``unknown`` if not known."""
    options: Options | Unknown = field(default_factory=dict)
    """Further options of ``vllm bench serve`` by name, without dashes; empty for a switch."""
    counted_tokens: tuple[Count, Count] | None = None
    """Prompt and output tokens of a whole run with unknown data set, lengths or number of prompts,
    to distinguish its load from others."""

    def __post_init__(self) -> None:
        for name in _kinds():
            value = getattr(self, name)
            if type(value) in _SCALARS:
                _check_scalar(name, value, type(value).__name__)
            else:
                _check(name, value)
        if self.dataset != UNKNOWN:
            self._check_lengths()
        elif (self.input_len is None) != (self.output_len is None):
            raise ConfigError("workload input_len and output_len: expected both or neither")
        if self.counted_tokens is not None and self.lengths and self.num_prompts != UNKNOWN:
            raise ConfigError(
                f"workload counted_tokens = {self.counted_tokens}: expected None, since the "
                "lengths are known"
            )
        self._check_arrivals()
        for flag in self.options if isinstance(self.options, Mapping) else ():
            if flag in _OWN_FLAGS:
                raise ConfigError(
                    f"workload options.{flag}: is set by pdserve, or a field of the load "
                    f"({', '.join(each.name for each in fields(self))}); leave it out"
                )

    def _check_arrivals(self) -> None:
        ramp, rate = self.ramp_up, self.request_rate
        if ramp is not None and isinstance(rate, int | float):
            raise ConfigError(
                f"workload request_rate = {rate} with a ramp_up: the ramp-up sets the rate; leave "
                "request_rate out"
            )
        if ramp is not None and ramp.start_rps > ramp.end_rps:
            raise ConfigError(
                f"workload ramp_up from {ramp.start_rps} to {ramp.end_rps} req/s: expected a rate "
                "that grows"
            )
        if ramp is None and rate is None and self.burstiness not in (1.0, UNKNOWN):
            raise ConfigError(
                f"workload burstiness = {self.burstiness} without a request_rate: it has no "
                "effect where all is sent at once; set a rate, or leave it out"
            )

    def _check_lengths(self) -> None:
        for name in ("input_len", "output_len"):
            given = getattr(self, name)
            if self.dataset in LENGTH_FLAGS:
                if given is None:
                    raise ConfigError(
                        f"workload {name} is missing: data set {self.dataset!r} takes lengths"
                    )
            elif given is not None:
                raise ConfigError(
                    f"workload {name} = {given!r}: data set {self.dataset!r} brings lengths of its "
                    f"own; leave it out (lengths are for {', '.join(LENGTH_FLAGS)})"
                )

    @property
    def lengths(self) -> tuple[int, int] | None:
        """Prompt and output length, tokens; None if not set or not known."""
        if isinstance(self.input_len, int) and isinstance(self.output_len, int):
            return self.input_len, self.output_len
        return None

    def known(self) -> KnownLoad:
        """Return the load without unknown values, for a client.

        :raises ConfigError: if a value is unknown, as in an imported result.
        """
        names = tuple(each.name for each in fields(self))
        unknown = [name for name in names if getattr(self, name) == UNKNOWN]
        if unknown:
            raise ConfigError(f"workload {self.id} cannot be run: unknown are {', '.join(unknown)}")
        values = {each.name: getattr(self, each.name) for each in fields(KnownLoad)}
        return KnownLoad(**values)

    @property
    def parts(self) -> Mapping[str, str]:
        """Parts of :attr:`id` in order: text by name."""
        return MappingProxyType(dict((*self._load_parts, *self._option_parts())))

    @property
    def id(self) -> str:
        """Name of the load, e.g. ``random-512-256-n1024-rate8-c64+random-range-ratio=0.5``.

        Different loads have different ids. Defaults of the client are left out; an unknown value is
        written ``unknown``.
        """
        load = "-".join(text for _, text in self._load_parts)
        return load + "".join(f"+{text}" for _, text in self._option_parts())

    @property
    def _load_parts(self) -> tuple[tuple[str, str], ...]:
        return _load_parts(
            self.dataset,
            (self.input_len, self.output_len),
            self.counted_tokens,
            self.num_prompts,
            self.request_rate,
            self.burstiness,
            self.ramp_up,
            self.max_concurrency,
        )

    def _option_parts(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.options, str):
            yield "options", self.options
            return
        for flag in sorted(self.options):
            yield f"option {flag}", f"{flag}={quote(self.options[flag], safe='')}"

    def seed(self, repeat: int, session: str = "") -> int:
        """Return the seed of a run: the same for all topologies, different otherwise.

        It depends on load, repeat and session, since prompts that are sent again would hit the
        prefix cache.
        """
        return zlib.crc32(f"{session and session + '/'}{self.id}/{repeat}".encode()) % 1_000_000

    def __hash__(self) -> int:
        return hash(self.id)


@functools.lru_cache(maxsize=4096)
def _load_parts(
    dataset: str,
    lengths: tuple[object, object],
    counted_tokens: tuple[int, int] | None,
    num_prompts: float | Unknown,
    request_rate: float | Unknown | None,
    burstiness: float | Unknown,
    ramp: RampUp | None,
    max_concurrency: float | Unknown | None,
) -> tuple[tuple[str, str], ...]:
    """Return name and text of each part; cached, since a session often needs them."""
    # Dashes are quoted, so that no data set's name looks like lengths.
    parts = [("data set", re.sub(rf"-(?=\d|{UNKNOWN})", "%2D", dataset))]
    if lengths != (None, None):
        parts.append(("lengths", "{}-{}".format(*lengths)))
    if counted_tokens is not None:
        parts.append(("tokens", "{}in-{}out".format(*counted_tokens)))
    parts.append(("prompts", _tagged("n", num_prompts)))
    if request_rate is not None:
        parts.append(("rate", _tagged("rate", request_rate)))
    if burstiness != 1.0:
        parts.append(("burstiness", _tagged("burst", burstiness)))
    if ramp is not None:
        parts.append(("ramp-up", f"ramp-{ramp.strategy}-{ramp.start_rps}to{ramp.end_rps}"))
    if max_concurrency is not None:
        parts.append(("concurrency", _tagged("c", max_concurrency)))
    return tuple(parts)


@functools.cache
def _kinds() -> Mapping[str, Any]:
    hints = get_type_hints(Workload, include_extras=True)
    return {each.name: hints[each.name] for each in fields(Workload)}


_SCALARS = frozenset({int, float, str, type(None)})


@functools.lru_cache(maxsize=4096)
def _check_scalar(name: str, value: Any, _: str) -> None:
    """Check a value once; the type in the cache key distinguishes 1 from 1.0."""
    _check(name, value)


def _check(name: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        all_at_once = "; leave it out to send all at once" if name == "request_rate" else ""
        raise ConfigError(f"workload {name} = {value}: expected a finite number{all_at_once}")
    try:
        if not _has_type(name, value):
            raise TypeError
        # `strict` does not convert texts to numbers.
        msgspec.convert(msgspec.to_builtins(value), _kinds()[name], strict=True)
    except (msgspec.ValidationError, TypeError, UnicodeError):
        raise ConfigError(f"workload {name} = {value!r:.80}: expected {_EXPECTED[name]}") from None


def _has_type(name: str, value: Any) -> bool:
    """Return whether *value* has the field's type, since conversion accepts similar types."""
    if name == "dataset":
        return isinstance(value, str)
    if name == "ramp_up":
        return value is None or isinstance(value, RampUp)
    if name == "counted_tokens":
        return value is None or isinstance(value, tuple)
    if name == "options" and isinstance(value, Mapping):
        return all(isinstance(text, str) and text.encode() is not None for text in value.values())
    return True


_LENGTH = "a whole number of tokens from 1 to 10,000,000"
_EXPECTED = {
    "input_len": _LENGTH,
    "output_len": _LENGTH,
    "num_prompts": "a whole number of requests from 1 to 10,000,000",
    "request_rate": "requests per second from 0.001 to 1,000,000, or None to send all at once",
    "burstiness": "a number above 0",
    "ramp_up": "a RampUp with a strategy ('linear', 'exponential') and two whole rates from 1",
    "max_concurrency": "a whole number of requests from 1 to 1,000,000, or None for no bound",
    "dataset": "a name of letters, digits, '.', '_' and '-', at most 60",
    "options": "a dict of flags without dashes in front, and their values as text",
    "counted_tokens": "a tuple of two whole numbers from 0",
}


def _tagged(tag: str, value: float | Unknown) -> str:
    return f"{tag}-{UNKNOWN}" if isinstance(value, str) else f"{tag}{_number(value)}"


def _number(value: float) -> str:
    """Return the shortest text that reads back as *value*: 8 for 8.0, all digits of 0.1 + 0.2."""
    return repr(float(value)).removesuffix(".0")
