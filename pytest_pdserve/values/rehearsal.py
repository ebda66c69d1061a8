"""Rehearsal of a rolling upgrade: which combinations of two stacks work together."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.stack import IMAGE
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.text import Utc

Side = Literal["A", "B"]
"""``A`` is the stack before the upgrade, ``B`` the one after it."""
Outcome = Literal["works", "refuses", "hangs", "corrupts", "does not start", "not shown"]
"""Outcome of a combination.

- ``works``: tokens are right.
- ``refuses``: a request fails with an error, or a server ends during a request.
- ``hangs``: a request is not answered within its limit.
- ``corrupts``: tokens are wrong at HTTP 200.
- ``does not start``: a server ends, or is not ready in time.
- ``not shown``: it answers, but its answers cannot prove that the KV cache is right.
"""
Seconds = Annotated[float, Meta(ge=0)]
MAX_COMBINATIONS = 8
"""Default limit of combinations."""
ROUTER = "vllm-router"
MODEL = "model"
"""Name of a difference in the model's revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Sides of a prefill instance, a decode instance and a router."""

    prefill: Side
    """Side of the prefill instance."""
    decode: Side
    """Side of the decode instance."""
    router: Side
    """Side of the router."""
    hash_checked: bool = True
    """True if instances compare compatibility hashes, the default of vLLM's NIXL connector."""

    @property
    def id(self) -> str:
        """Name in tables, and of its folder, e.g. ``prefill-A-decode-B-router-A``."""
        hashes = "" if self.hash_checked else "-hash-off"
        return f"prefill-{self.prefill}-decode-{self.decode}-router-{self.router}{hashes}"

    @property
    def mixed(self) -> bool:
        """True if prefill and decode instance are of different sides."""
        return self.prefill != self.decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """Result of one combination."""

    combination: Combination
    """Combination that was tested."""
    outcome: Outcome
    """Outcome."""
    why: str
    """Reason in one sentence: the check that refused, the exceeded limit, or the evidence."""
    ready_s: Seconds | None = None
    """From the start until all instances were healthy, seconds; None if they were not."""
    after_s: Seconds | None = None
    """From then until the outcome was known, seconds; None if instances were not healthy."""
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Loaded versions by server and distribution."""
    sides_agree: bool | None = None
    """True if A and B alone generate the same greedy tokens; None if not both were asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Content of a file ``rehearsal.json``."""

    system: Annotated[str, Meta(min_length=1)]
    """Name of the system."""
    fingerprint: str
    """Digest of the settings in the system file."""
    a: Stack
    """Stack before the upgrade."""
    b: Stack
    """Stack after the upgrade."""
    differences: tuple[str, ...]
    """Components in which they differ: distributions, ``serve_args``, ``model``."""
    started_at: Utc
    """Time of the begin, UTC; not changed when an interrupted rehearsal goes on."""
    models: Mapping[Side, str] = field(default_factory=dict)
    """Folder of each side's model, if they serve two revisions; else empty."""
    chosen: tuple[Combination, ...]
    """Combinations to test, in this order."""
    results: tuple[Rehearsed, ...] = ()
    """Results so far."""

    @property
    def shown(self) -> tuple[Rehearsed, ...]:
        """Results of the chosen combinations, in their order."""
        by_combination = {each.combination: each for each in self.results}
        return tuple(by_combination[each] for each in self.chosen if each in by_combination)

    @property
    def left(self) -> tuple[Combination, ...]:
        """Combinations that have no result yet."""
        done = {each.combination for each in self.results}
        return tuple(each for each in self.chosen if each not in done)


def choose_combinations(
    differences: Sequence[str], limit: int = MAX_COMBINATIONS
) -> tuple[Combination, ...]:
    """Return the combinations of a rolling upgrade, the most likely trouble first.

    Instances of both sides are mixed only if more than the router differs, and routers only if they
    differ; an image has a router of its own. Mixed combinations are repeated without the check of
    compatibility hashes.

    :param differences: components in which the stacks differ, from :func:`~.stack.components`.
    :param limit: largest number of combinations.
    """
    combinations = dict.fromkeys(_combinations(differences))
    return tuple(combinations)[:limit]


def _combinations(differences: Sequence[str]) -> Iterator[Combination]:
    other_router = ROUTER in differences or IMAGE in differences
    routers: tuple[Side, ...] = ("A", "B") if other_router else ("B",)
    mixing = any(name != ROUTER for name in differences)
    mixtures: tuple[tuple[Side, Side], ...] = (("A", "B"), ("B", "A"))
    if mixing:
        for router in routers:
            for prefill, decode in mixtures:
                yield Combination(prefill=prefill, decode=decode, router=router)
    if other_router:  # either the router is upgraded first, or the instances are
        yield Combination(prefill="A", decode="A", router="B")
        yield Combination(prefill="B", decode="B", router="A")
    if mixing:
        for prefill, decode in mixtures:
            yield Combination(prefill=prefill, decode=decode, router=routers[0], hash_checked=False)
    yield Combination(prefill="A", decode="A", router="A")
    yield Combination(prefill="B", decode="B", router="B")
    if mixing:
        for prefill, decode in mixtures:
            yield Combination(
                prefill=prefill, decode=decode, router=routers[-1], hash_checked=False
            )
