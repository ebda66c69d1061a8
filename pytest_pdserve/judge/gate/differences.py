"""What differs between the runs of two stacks beside the components that were declared. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.judge.two_sides import fact_differences
from pytest_pdserve.values.comparison import FactDifference
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.roles import ROLES

_DIGESTS = frozenset({("hardware", "fingerprint")})
"""Facts that stand for others, which are compared themselves."""
_PASSING = frozenset({("conditions", "compiled kernels")})
"""Facts of single starts: the first start of a new version compiles."""
_BROUGHT = frozenset({"torch", "libfabric", "ucx", "libibverbs"})
"""Versions that another vLLM, NIXL or image brings with it."""
_BRINGING = frozenset({"vllm", "nixl", "image"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """What differs between the runs of A and those of B."""

    undeclared: tuple[str, ...]
    """What no component explains, a phrase each: name, value of A, value of B."""
    brought: tuple[str, ...]
    """What came with a component, e.g. another torch with another vLLM."""
    same: int
    """Facts that are the same."""


def find_differences(
    a: Sequence[MeasuredRun], b: Sequence[MeasuredRun], components: Sequence[str]
) -> Differences:
    """Return what differs beside *components*."""
    found, same = fact_differences(a, b)
    undeclared: list[str] = []
    brought: list[str] = []
    for each in found:
        if (each.group, each.name) in _DIGESTS | _PASSING or _is_declared(each, components):
            continue
        (brought if _is_brought(each, components) else undeclared).append(_words(each))
    return Differences(undeclared=tuple(undeclared), brought=tuple(brought), same=same)


def joined(parts: Iterable[Differences]) -> Differences:
    """Return the differences of several comparisons, each once."""
    found = [*parts]
    return Differences(
        undeclared=tuple(dict.fromkeys(each for part in found for each in part.undeclared)),
        brought=tuple(dict.fromkeys(each for part in found for each in part.brought)),
        same=max((part.same for part in found), default=0),
    )


def _is_declared(each: FactDifference, components: Sequence[str]) -> bool:
    """Tell whether a difference is one of *components* itself."""
    if each.group == "versions":
        return each.name in components
    if "serve_args" not in components:
        return False
    if each.group == "settings":
        return each.name.startswith("model.") and each.name.endswith("serve_args")
    role, _, flag = each.name.partition(" ")
    return each.group == "flags" and role in ROLES and flag.startswith("-")


def _is_brought(each: FactDifference, components: Sequence[str]) -> bool:
    """Tell whether a difference is a version that came with one of *components*."""
    if each.group != "versions":
        return False
    return "image" in components or (each.name in _BROUGHT and bool(_BRINGING & {*components}))


def _words(each: FactDifference) -> str:
    one, other = (" or ".join(values) or "not known" for values in (each.a, each.b))
    return f"{each.group} {each.name}: {one} with A, {other} with B"
