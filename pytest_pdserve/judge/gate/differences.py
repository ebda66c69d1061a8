"""Differences between the runs of two stacks besides the declared components. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.two_sides import fact_differences
from pytest_pdserve.values.comparison import FactDifference
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.stack import IMAGE

_DIGESTS = frozenset({("hardware", "fingerprint")})
"""Facts computed from others, which are compared themselves."""
_OF_ONE_START = frozenset({("conditions", "compiled kernels")})
"""Facts of single starts: the first start of a new version compiles."""
_DEPENDENCIES = frozenset({"torch", "libfabric", "ucx", "libibverbs"})
"""Versions that change together with vLLM or NIXL."""
_WITH_DEPENDENCIES = frozenset({"vllm", "nixl"})
"""Components whose versions determine those of :data:`_DEPENDENCIES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Differences between the runs of A and those of B."""

    undeclared: tuple[str, ...]
    """A phrase for each difference that no component explains: name, value of A, value of B."""
    brought: tuple[str, ...]
    """A phrase for each difference caused by a component, e.g. another torch with another vLLM."""
    same: int
    """Number of equal facts."""


def find_differences(
    a: Sequence[MeasuredRun], b: Sequence[MeasuredRun], components: Sequence[str]
) -> Differences:
    """Return the differences besides *components*."""
    facts, same = fact_differences(a, b)
    undeclared: list[str] = []
    brought: list[str] = []
    for fact in facts:
        if (fact.group, fact.name) in _DIGESTS | _OF_ONE_START or _is_declared(fact, components):
            continue
        (brought if _is_brought(fact, components) else undeclared).append(_phrase(fact))
    return Differences(undeclared=tuple(undeclared), brought=tuple(brought), same=same)


def merge_differences(parts: Iterable[Differences]) -> Differences:
    """Return the differences of several comparisons, each phrase once."""
    all_parts = [*parts]
    return Differences(
        undeclared=tuple(dict.fromkeys(text for part in all_parts for text in part.undeclared)),
        brought=tuple(dict.fromkeys(text for part in all_parts for text in part.brought)),
        same=max((part.same for part in all_parts), default=0),
    )


def _is_declared(fact: FactDifference, components: Sequence[str]) -> bool:
    """Return whether a difference is itself one of *components*."""
    if fact.group == "versions":
        return fact.name in components
    if "serve_args" not in components:
        return False
    if fact.group == "settings":
        return fact.name.startswith("model.") and fact.name.endswith("serve_args")
    role, _, flag = fact.name.partition(" ")
    return fact.group == "flags" and role in ROLES and flag.startswith("-")


def _is_brought(fact: FactDifference, components: Sequence[str]) -> bool:
    """Return whether a difference is a version that comes with one of *components*."""
    if fact.group != "versions":
        return False
    of_vllm = fact.name in _DEPENDENCIES and bool(_WITH_DEPENDENCIES & {*components})
    return of_vllm or IMAGE in components


def _phrase(fact: FactDifference) -> str:
    one, other = (" or ".join(values) or "unknown" for values in (fact.a, fact.b))
    return f"{fact.group} {fact.name}: {one} with A, {other} with B"
