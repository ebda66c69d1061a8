"""A rehearsal of a rolling upgrade: which mixtures of two stacks serve, and what the others do."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.text import Utc

Side = Literal["A", "B"]
"""``A`` is the stack before the upgrade, ``B`` the one after it."""
Outcome = Literal["works", "refuses", "hangs", "corrupts", "does not start", "not shown"]
"""What became of a combination.

- ``works``: tokens are right.
- ``refuses``: a request fails with an error, or a server ends while it is asked.
- ``hangs``: a request is not answered within its limit.
- ``corrupts``: tokens are wrong at HTTP 200.
- ``does not start``: a server ends, or is not ready in time.
- ``not shown``: it answers, but the answers could not show a wrong KV cache.
"""
Seconds = Annotated[float, Meta(ge=0)]
MAX_COMBINATIONS = 8
"""That are stood up where nothing else is asked."""
ROUTER = "vllm-router"
MODEL = "model"
"""Name of the difference between two revisions of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Which side each server of one prefill and one decode instance is of."""

    prefill: Side
    """Of the prefill instance."""
    decode: Side
    """Of the decode instance."""
    router: Side
    """Of the router."""
    hash_checked: bool = True
    """Whether instances compare their compatibility hashes, as NIXL's connector does by default."""

    @property
    def id(self) -> str:
        """Name in tables and of its folder, e.g. ``prefill-A-decode-B-router-A``."""
        hashes = "" if self.hash_checked else "-hash-off"
        return f"prefill-{self.prefill}-decode-{self.decode}-router-{self.router}{hashes}"

    @property
    def mixed(self) -> bool:
        """Whether prefill and decode instance are of different sides."""
        return self.prefill != self.decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What became of one combination."""

    combination: Combination
    """What was stood up."""
    outcome: Outcome
    """What became of it."""
    why: str
    """In one sentence: the check that refused, the limit that passed, or the evidence."""
    ready_s: Seconds | None = None
    """From the start until all instances were healthy, seconds; None if that never was."""
    after_s: Seconds | None = None
    """From then until the outcome was known, seconds; None if that never was."""
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What each server had loaded: by its name, version by distribution."""
    sides_agree: bool | None = None
    """Whether A and B, each by itself, give the same greedy tokens; None if not both were asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A file ``rehearsal.json``."""

    system: Annotated[str, Meta(min_length=1)]
    """Name of the system."""
    fingerprint: str
    """Digest of what the system file says."""
    a: Stack
    """Before the upgrade."""
    b: Stack
    """After it."""
    differences: tuple[str, ...]
    """In what they differ: distributions, ``serve_args``, ``model``."""
    started_at: Utc
    """When it began, UTC; an interrupted one keeps it."""
    models: Mapping[Side, str] = field(default_factory=dict)
    """Folder of the model of each side, where they serve two revisions; else empty."""
    chosen: tuple[Combination, ...]
    """Combinations to stand up, in this order."""
    results: tuple[Rehearsed, ...] = ()
    """Of those that are done."""

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
    """Return the combinations that a rolling upgrade passes through, the likeliest trouble first.

    Instances of both sides are mixed only where more than the router differs; the router is the
    other side's only where it differs. Without the compatibility hash, mixed ones are tried again.

    :param differences: in what the two stacks differ, as :func:`~.stack.components` names it.
    :param limit: combinations at most.
    """
    found = dict.fromkeys(_combinations(differences))
    return tuple(found)[:limit]


def _combinations(differences: Sequence[str]) -> Iterator[Combination]:
    routers: tuple[Side, ...] = ("A", "B") if ROUTER in differences else ("B",)
    mixing = any(name != ROUTER for name in differences)
    mixtures: tuple[tuple[Side, Side], ...] = (("A", "B"), ("B", "A"))
    if mixing:
        for router in routers:
            for prefill, decode in mixtures:
                yield Combination(prefill=prefill, decode=decode, router=router)
    if ROUTER in differences:  # either the router is upgraded first, or the instances are
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
