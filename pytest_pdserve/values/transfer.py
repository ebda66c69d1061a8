"""Transfers between two nodes without a model: settings, measurements and references."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.numbers import LARGEST
from pytest_pdserve.values.text import Line
from pytest_pdserve.values.text import Utc
from pytest_pdserve.values.text import Word

TransferBackend = Literal["LIBFABRIC", "UCX"]
Memory = Literal["DRAM", "VRAM"]
Milliseconds = Annotated[float, Meta(gt=0, le=LARGEST)]
MiB = Annotated[int, Meta(ge=1, le=65_536)]
Tokens = Annotated[int, Meta(ge=1, le=10_000_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
InFlight = Annotated[int, Meta(ge=1, le=1024)]
GbPerS = Annotated[float, Meta(gt=0, le=1_000_000)]

BenchRates = Mapping[tuple[str, str], Sequence[float | None]]
"""GB/s of nixlbench by backend and id of the shape, one for each pair of nodes; None for a failed
pair."""
MIN_LIMIT = 0.10
"""Minimum limit, as a fraction of the reference."""
SPREADS = 5.0
"""Limit in spreads."""
MAX_RUNS = 20
"""Number of accepted runs that a reference keeps, the newest."""
_MAD_TO_SD = 1.4826
"""Standard deviations in a median absolute deviation of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSpec:
    """Settings of transfers without a model: ``[transfer]``."""

    preflight: bool = False
    """True if a session measures the pairs of a topology before it starts instances."""
    floor_gb_s: GbPerS | None = None
    """Minimum GB/s of each pair with the KV cache of the longest prompt, and half of it once
    instances run; None for the baseline of ``pdserve transfer``."""
    backends: tuple[TransferBackend, ...] = ()
    """NIXL backends; empty for that of ``[kv_transfer]``."""
    block_size: Tokens | None = None
    """Tokens of a KV-cache block; None for ``--block-size``, else vLLM's default."""
    prompt_lens: tuple[Tokens, ...] = ()
    """Prompt lengths whose KV cache is moved; empty for the sweep's shortest and longest."""
    sizes_mib: Annotated[tuple[MiB, ...], Meta(min_length=1)] = (1, 16, 64)
    """Sizes that are moved as one descriptor."""
    in_flight: Annotated[tuple[InFlight, ...], Meta(min_length=1)] = (1, 4)
    """Numbers of transfers in flight at once."""
    repeats: Annotated[int, Meta(ge=3, le=1000)] = 9
    """Number of measurements of each transfer, after one that is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCase:
    """A transfer to measure: the KV cache of a prompt, or a size in one descriptor."""

    prompt_tokens: int | None = None
    """Length of the prompt; None for a size."""
    mib: int | None = None
    """Size; None for a prompt."""
    in_flight: int = 1
    """Transfers that are posted at once."""

    @property
    def id(self) -> str:
        """Name in test ids and tables, e.g. ``256tok``, ``16MiB-x4``."""
        what = f"{self.mib}MiB" if self.prompt_tokens is None else f"{self.prompt_tokens}tok"
        return what if self.in_flight == 1 else f"{what}-x{self.in_flight}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferShape:
    """Descriptors of one transfer."""

    id: Word
    """Id of its :class:`TransferCase`."""
    descriptors: Count
    """Number of descriptors, at arbitrary addresses."""
    descriptor_bytes: Count
    """Bytes of each."""
    in_flight: InFlight = 1
    """Transfers that are posted at once."""

    @property
    def transfer_bytes(self) -> int:
        """Bytes of one transfer."""
        return self.descriptors * self.descriptor_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of all that are in flight at once."""
        return self.transfer_bytes * self.in_flight


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFigure:
    """Measured times of one pair of nodes with one shape."""

    shape: TransferShape
    """Shape of the transfers."""
    first_ms: Milliseconds
    """Time of the first transfer, which sets up connections; not part of other figures."""
    ms: Annotated[tuple[Milliseconds, ...], Meta(min_length=1)]
    """Time from the first posting until all in flight have arrived, of each repeat."""
    posting_ms: Annotated[tuple[Milliseconds, ...], Meta(min_length=1)]
    """Time of posting all in flight, of each repeat."""

    @property
    def median_ms(self) -> float:
        """Median of :attr:`ms`."""
        return statistics.median(self.ms)

    @property
    def median_posting_ms(self) -> float:
        """Median of :attr:`posting_ms`."""
        return statistics.median(self.posting_ms)

    @property
    def gb_s(self) -> float:
        """Bytes of all in flight divided by the median time, in 1e9 bytes per second."""
        return self.shape.total_bytes / self.median_ms / 1e6

    @property
    def spread(self) -> float:
        """Spread of :attr:`ms`, as a fraction of the median."""
        return relative_spread(self.ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two nodes in one direction: *reader*, as a decode instance, fetches from *source*."""

    reader: Word
    """Node that starts the transfer."""
    source: Word
    """Node whose memory is read, as that of a prefill instance."""

    def __str__(self) -> str:
        return f"{self.reader} <- {self.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFigures:
    """Measured times of one pair with one backend."""

    pair: Pair
    """Pair of nodes."""
    backend: TransferBackend
    """NIXL backend."""
    provider: Line
    """Variable that selects the transport, e.g. ``UCX_TLS=tcp``; empty for the default."""
    memory: Memory
    """Type of the memory."""
    versions: Mapping[Word, Line] = field(default_factory=dict)
    """Versions of NIXL and its libraries."""
    figures: Annotated[tuple[TransferFigure, ...], Meta(min_length=1)]
    """One for each shape."""

    @property
    def transport(self) -> str:
        """Backend and provider, for messages."""
        return f"{self.backend} ({self.provider or 'default transports'}, {self.memory})"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPair:
    """A pair that a session has compared with the required rate."""

    measured: PairFigures
    """Figures; of the second measurement, if the first was too slow."""
    why_slow: str = ""
    """Figure and required rate in a sentence; empty if the pair is fast enough."""


CheckedPairs = dict[tuple[Pair, TransferShape], CheckedPair]
"""Pairs that a session has checked so far, by pair and shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRecord:
    """One pair of one session: ``runs/<session>/transfer/*.json``."""

    session: Word
    """Id of the session."""
    system: Word
    """Name of the system."""
    fingerprint: Word
    """Digest of hardware and system file."""
    measured_at: Utc
    """Time of the measurement."""
    measured: PairFigures
    """Figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReference:
    """Times of accepted runs with one shape, over all pairs of the system."""

    backend: TransferBackend
    """NIXL backend."""
    memory: Memory
    """Type of the memory."""
    shape: TransferShape
    """Shape of the transfers."""
    runs: Annotated[tuple[tuple[Milliseconds, ...], ...], Meta(min_length=1)]
    """Median of each pair, ms, of each accepted run, oldest first."""
    spread: Annotated[float, Meta(ge=0, le=LARGEST)]
    """Median of the spreads of single pairs, as a fraction."""

    @property
    def ms(self) -> float:
        """The median of all pairs and runs, ms."""
        return statistics.median(self._all)

    @property
    def gb_s(self) -> float:
        """GB/s at :attr:`ms`."""
        return self.shape.total_bytes / self.ms / 1e6

    @property
    def limit(self) -> float:
        """How much longer a pair may take, as a fraction of the reference."""
        return max(MIN_LIMIT, SPREADS * max(self.spread, relative_spread(self._all)))

    @property
    def floor_gb_s(self) -> float:
        """GB/s of a pair that takes longer by exactly the limit."""
        return self.gb_s / (1 + self.limit)

    @property
    def _all(self) -> tuple[float, ...]:
        return tuple(value for run in self.runs for value in run)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferBaseline:
    """References of transfers: ``baselines/<system>/transfer.json``."""

    system: Word
    """Name of the system."""
    fingerprint: Word
    """Digest of hardware and system file."""
    references: tuple[TransferReference, ...]
    """References by backend, memory and shape."""

    def find(self, backend: str, memory: str, shape: TransferShape) -> TransferReference | None:
        """Return the reference of backend, memory and shape; None if there is none."""
        for each in self.references:
            if (each.backend, each.memory, each.shape) == (backend, memory, shape):
                return each
        return None


def relative_spread(values: tuple[float, ...]) -> float:
    """Return the standard deviation of *values* as a fraction of their median.

    It is estimated from the median absolute deviation, which is robust against outliers; 0 for one
    value.
    """
    middle = statistics.median(values)
    return _MAD_TO_SD * statistics.median(abs(value - middle) for value in values) / middle
