"""Measure KV transfers of a running deployment, one at a time between each pair of instances."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import httpx

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.plan.transfer import provider_in
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.serving.scrape import settled
from pytest_pdserve.serving.warm_load import distinct_prompt
from pytest_pdserve.serving.warmup import COUNTER_S
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.serving.warmup import Engine
from pytest_pdserve.serving.warmup import pairs_of
from pytest_pdserve.serving.warmup import why_not_shown
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.running_transfer import RunningTransfer
from pytest_pdserve.values.system import System
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferFigure

REPEATS = 3
"""Transfers of each pair and length, one after the other."""
_STEP_S = 0.1
BareFigures = Mapping[tuple[Pair, int], PairFigures]
"""Figures of transfers without a model, one for each, by nodes and prompt length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPairs:
    """Moves KV caches between instances that are up and idle, and reads their counters."""

    servers: Sequence[Server]
    """Instances."""
    system: System
    """System that they run on."""
    completions: Completions
    """Sender of requests."""
    client: httpx.Client
    """HTTP client that reads counters."""
    vocabulary: int
    """Vocabulary size of the model."""
    progress: Progress
    """Receives progress messages."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """Reason by decode instance that does not count its transfers."""

    def measure(
        self,
        lengths: Sequence[int],
        bare: BareFigures,
        *,
        only: Sequence[tuple[str, str]] | None = None,
    ) -> tuple[RunningTransfer, ...]:
        """Measure prompts of *lengths* between the first engines of each pair of instances.

        :param bare: figures of transfers without a model.
        :param only: decode and prefill instances to measure; None for all.
        :returns: nothing for a decode instance that does not count its transfers; the reason is in
            :attr:`unmeasured`.
        :raises PathError: if a request fails, or one that should be counted is not.
        """
        measured: list[RunningTransfer] = []
        for prefill, decode in self._pairs():
            names = decode[0].name, prefill[0].name
            if (only is not None and names not in only) or names[0] in self.unmeasured:
                continue
            self.progress(f"measuring transfers: {names[0]} <- {names[1]}")
            counters = scrape(self.client, str(decode[0].url))
            if why := why_not_shown("kv_transfers", decode[0], counters, self.client):
                self.unmeasured[names[0]] = why
                self.progress(f"transfers not measured: {why}")
                continue
            measured += [self._measure(prefill, decode, length, bare) for length in lengths]
        return tuple(measured)

    def _pairs(self) -> Sequence[tuple[Engine, Engine]]:
        """Return the first engines of each pair of a prefill and a decode instance."""
        first: dict[tuple[str, str], tuple[Engine, Engine]] = {}
        for prefill, decode in pairs_of(self.servers)[0]:
            first.setdefault((decode[0].name, prefill[0].name), (prefill, decode))
        return tuple(first.values())

    def _measure(
        self, prefill: Engine, decode: Engine, length: int, bare: BareFigures
    ) -> RunningTransfer:
        """Move a few prompts, and divide the decode instance's counts by its transfers."""
        url = str(decode[0].url)
        before = self._settled(url)
        for _ in range(REPEATS):
            name = f"pair {length} {secrets.token_hex(4)}"  # in no prefix cache
            prompt = distinct_prompt(name, length, self.vocabulary)
            self.completions.transfer(prefill, decode, prompt, tokens=1)
        counted = self._counted_since(url, before)
        return self._figure(prefill[0], decode[0], length, counted, bare)

    def _counted_since(self, url: str, before: Counters) -> dict[str, float]:
        """Return the counts of an instance since *before*, once it has counted all transfers."""
        deadline = time.monotonic() + COUNTER_S
        while True:
            after = self._settled(url)
            counted = {
                name: after.counts[name] - before.counts[name]
                for name in after.counts
                if name in before.counts
            }
            if counted.get("kv_transfers", 0.0) >= REPEATS:
                return counted
            if time.monotonic() > deadline:
                raise PathError(
                    f"{url} counted {counted.get('kv_transfers', 0.0):g} NIXL transfers for "
                    f"{REPEATS} requests"
                )
            time.sleep(_STEP_S)

    def _figure(
        self,
        prefill: Server,
        decode: Server,
        length: int,
        counted: Mapping[str, float],
        bare: BareFigures,
    ) -> RunningTransfer:
        transfers = counted["kv_transfers"]
        mean = {name: count / transfers for name, count in counted.items()}
        took_s, moved = mean.get("kv_transfer_s", 0.0), mean.get("kv_bytes", 0.0)
        if took_s <= 0 or moved <= 0:
            raise PathError(
                f"{decode.name} counted {transfers:g} NIXL transfers of {moved:g} bytes and "
                f"{took_s:g} s each; expected more than 0 of both"
            )
        pair = Pair(reader=_node(decode), source=_node(prefill))
        alone = _bare_figure(bare.get((pair, length)), moved)
        posted_s = mean.get("kv_post_s")
        return RunningTransfer(
            reader=decode.name,
            source=prefill.name,
            pair=pair,
            backend=self.system.kv_transfer.backend,
            provider=provider_in(self.system, decode.role, self._inherited),
            prompt_tokens=length,
            transfers=round(transfers),
            ms=took_s * 1e3,
            transfer_bytes=moved,
            descriptors=mean.get("kv_descriptors"),
            posting_ms=None if posted_s is None else posted_s * 1e3,
            bare_gb_s=None if alone is None else alone.gb_s,
            bare_descriptors=None if alone is None else alone.shape.descriptors,
        )

    @property
    def _inherited(self) -> Mapping[str, str]:
        """Environment that instances inherit from the session."""
        return {} if self.system.container.contained else os.environ

    def _settled(self, url: str) -> Counters:
        return settled(lambda: {url: scrape(self.client, url)})[url]


def _bare_figure(bare: PairFigures | None, moved: float) -> TransferFigure | None:
    """Return the figure of *bare* if it moved as many bytes as vLLM does.

    The number of descriptors may differ: NIXL merges adjacent ones, and vLLM counts those.
    """
    if bare is None:
        return None
    (figure,) = bare.figures
    return figure if moved == figure.shape.transfer_bytes else None


def _node(server: Server) -> str:
    return server.process.command.node if server.process is not None else server.name
