"""Transfer rates of NIXL alone, without a model: measured once, then read from a cache."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.plan.transfer import provider_in
from pytest_pdserve.plan.transfer import running_cases
from pytest_pdserve.plan.transfer import shape_of
from pytest_pdserve.results.bare_transfers import BareKey
from pytest_pdserve.results.bare_transfers import keep_bare
from pytest_pdserve.results.bare_transfers import load_bare
from pytest_pdserve.serving.model import load_kv_shape
from pytest_pdserve.serving.model import make_model
from pytest_pdserve.serving.running_transfers import BareFigures
from pytest_pdserve.transfer.measuring import TransferPlan
from pytest_pdserve.transfer.measuring import new_label
from pytest_pdserve.transfer.preflight import REPEATS
from pytest_pdserve.transfer.preflight import Preflight
from pytest_pdserve.transfer.preflight import placed_pairs
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.roles import kv_pullers
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferRecord
from pytest_pdserve.values.transfer import TransferShape

LABEL = "bare"
"""Beginning of the names of the records and agents' folders of such a measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _WantedFigure:
    """A figure to read from the cache or to measure."""

    pair: Pair
    tokens: int
    """Length of the prompt."""
    shape: TransferShape
    key: BareKey


def bare_figures(
    preflight: Preflight, *, versions: Mapping[str, str], may_measure: bool
) -> BareFigures:
    """Return the figures of NIXL alone for the pairs of topologies, by pair and prompt length.

    A figure is measured once for each host, backend, versions and shape, and stored in the user's
    cache folder. Figures that are not available are absent; the result is empty if the size of the
    model's KV cache is unknown.

    :param preflight: topologies, nodes and records of the session.
    :param versions: of the session.
    :param may_measure: whether to measure missing figures; not possible while instances run, which
        use the memory.
    :raises ConfigError: if no length of a prompt is configured.
    :raises TransferError: if a transfer fails.
    """
    wanted = _wanted(preflight, versions)
    found = {each.key.path: record.measured for each in wanted if (record := load_bare(each.key))}
    missing = [each for each in wanted if each.key.path not in found]
    if missing and may_measure:
        found |= _measure(preflight, missing)
    return {
        (each.pair, each.tokens): found[each.key.path] for each in wanted if each.key.path in found
    }


def _wanted(preflight: Preflight, versions: Mapping[str, str]) -> list[_WantedFigure]:
    system, allocation = preflight.system, preflight.allocation
    cases = running_cases(system)
    make_model(system)
    kv = load_kv_shape(system)
    if kv is None:
        return []
    provider = provider_in(system, kv_pullers()[0], os.environ)

    def key(pair: Pair, shape: TransferShape) -> BareKey:
        here = (platform.node(),)
        return BareKey(
            hosts=here if system.cluster.shared_host else (pair.reader, pair.source),
            fingerprint=preflight.fingerprint,
            backend=system.kv_transfer.backend,
            provider=provider,
            versions=versions,
            shape=shape,
        )

    wanted = [
        (pair, case.prompt_tokens or 0, shape_of(case, system, kv, topology=topology))
        for topology in preflight.topologies
        for pair in placed_pairs(allocation, topology, system, preflight.rotation)
        for case in cases
    ]
    return [
        _WantedFigure(pair=pair, tokens=tokens, shape=shape, key=key(pair, shape))
        for pair, tokens, shape in dict.fromkeys(wanted)
    ]


def _measure(preflight: Preflight, missing: Sequence[_WantedFigure]) -> dict[Path, PairFigures]:
    """Measure the missing figures and store them; pairs of slots on one machine share a figure."""
    first = {each.key.path: each for each in reversed(missing)}.values()
    plan = TransferPlan(
        pairs=tuple(dict.fromkeys(each.pair for each in first)),
        backends=(preflight.system.kv_transfer.backend,),
        shapes=tuple(dict.fromkeys(each.shape for each in first)),
        repeats=REPEATS,
    )
    preflight.progress("measuring NIXL without a model, once for this host and these versions")
    measured = preflight.measure(plan, new_label(LABEL, preflight.store.folder))
    return {
        each.key.path: _store(preflight, each, one)
        for each in first
        for one in measured
        if one.pair == each.pair
    }


def _store(preflight: Preflight, wanted: _WantedFigure, measured: PairFigures) -> PairFigures:
    """Store the wanted figure of a pair in the cache, and return it."""
    (figure,) = (each for each in measured.figures if each.shape == wanted.shape)
    own = replace(measured, figures=(figure,))
    record = TransferRecord(
        session=preflight.store.session.id,
        system=preflight.system.name,
        fingerprint=preflight.fingerprint,
        measured_at=utc_text(datetime.now(UTC)),
        measured=own,
    )
    try:
        keep_bare(wanted.key, record)
    except StoreError as error:
        preflight.progress(f"the figure is not stored for later sessions: {error}")
    return own
