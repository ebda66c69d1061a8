"""Parses the text of a stack: versions, image and arguments."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.stacks.installed import python_of_system
from pytest_pdserve.backends.stacks.installed import python_version_at
from pytest_pdserve.backends.stacks.installed import versions_at
from pytest_pdserve.backends.stacks.installed import versions_of_system
from pytest_pdserve.plan.serve_flags import repeated_serve_args
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.stack import PARTS
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.stack import public_version
from pytest_pdserve.values.system import System

CURRENT = "current"
"""The word for the system's own environment or image."""
FORMS = (
    "'vllm==0.32.0 nixl==1.5.1 vllm-router==0.1.17', 'python:/path/to/environment', "
    "'image:NAME', 'current', each also with 'serve-args:--flag=value'"
)
_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)$"
)
_VALUED = ("python", "image", "serve-args")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackWords:
    """The words of a stack's text, parsed but not yet checked against the system."""

    pins: Mapping[str, str]
    """Version by distribution."""
    python: str | None
    """Folder of an environment, or its Python."""
    image: str | None
    """Container image."""
    serve_args: tuple[str, ...]
    """Further arguments of ``vllm serve``."""


def parse_stack(text: str, system: System) -> Stack:
    """Parse the *text* of a stack for *system*; nothing is built.

    Words are separated as in a shell. ``NAME==VERSION`` pins a distribution, ``python:PATH`` names
    an existing environment, ``image:NAME`` a container image, ``serve-args:ARGUMENT`` one further
    argument of ``vllm serve``, and ``current`` the system's own versions. A distribution that is
    not pinned keeps the version that the system has now.

    :raises ConfigError: if the text has another form, contradicts itself or the system, or names
        an environment that does not exist.
    """
    words = parse_words(text)
    _check_compatible(text, words, system)
    python = None if words.python is None else _python_of(text, words.python)
    if words.image is not None or (not words.pins and python is None and _contained(system)):
        pins: Mapping[str, str] = {}
    elif python is not None:
        pins = _parts(versions_at(python))
    else:
        pins = {**_parts(versions_of_system(system)), **words.pins}
    stack = Stack(
        text=text,
        pins=pins,
        python=python,
        image=words.image,
        serve_args=words.serve_args,
        builds=bool(words.pins),
        digest="",
    )
    return replace(stack, digest=_digest(stack, system))


def parse_words(text: str) -> StackWords:
    """Parse the words of a stack's text.

    :raises ConfigError: if a word has an invalid form, or two words name the same thing.
    """
    try:
        split = shlex.split(text)
    except ValueError as error:
        raise _stack_error(text, f"a quotation mark is not closed ({error})") from error
    if not split:
        raise _stack_error(text, "it is empty")
    pins: dict[str, str] = {}
    valued: dict[str, list[str]] = {name: [] for name in _VALUED}
    for word in split:
        name, colon, value = word.partition(":")
        if colon and name in _VALUED:
            if not value:
                raise _stack_error(text, f"{word!r} has no value")
            valued[name].append(value)
        elif pin := _PIN.match(word):
            _add_pin(pins, pin["name"], pin["version"], text)
        elif word != CURRENT:
            raise _stack_error(text, f"{word!r} is invalid")
    if CURRENT in split and (pins or valued["python"] or valued["image"]):
        raise _stack_error(text, "'current' is the system as it is, and excludes versions")
    for name in ("python", "image"):
        if len(valued[name]) > 1:
            raise _stack_error(text, f"it names {name}: twice")
    return StackWords(
        pins=pins,
        python=next(iter(valued["python"]), None),
        image=next(iter(valued["image"]), None),
        serve_args=tuple(valued["serve-args"]),
    )


def _add_pin(pins: dict[str, str], name: str, version: str, text: str) -> None:
    """Add a pin under the distribution's normalized name (PEP 503)."""
    normal = re.sub(r"[-_.]+", "-", name).lower()
    if normal in pins:
        raise _stack_error(text, f"it pins {normal} twice")
    pins[normal] = version


def _check_compatible(text: str, words: StackWords, system: System) -> None:
    """Raise if a stack has two sources, or a source that the system cannot use."""
    named = [n for n, v in (("versions", words.pins), ("python:", words.python)) if v]
    named += ["image:"] if words.image is not None else []
    if len(named) > 1:
        raise _stack_error(text, f"it names {' and '.join(named)}; a stack has one source")
    if named == ["image:"] and not _contained(system):
        raise ConfigError(
            f"stack {text!r} names an image, but system {system.name!r} runs no containers; write "
            f"[container] kind in {system.source}, or name versions"
        )
    if named and named != ["image:"] and _contained(system):
        raise ConfigError(
            f"stack {text!r} names {named[0]}, but servers of system {system.name!r} run in "
            "containers; name an image: image:NAME"
        )
    for _, name, written in repeated_serve_args(words.serve_args, None):
        raise ConfigError(
            f"stack {text!r}: serve-args {name} repeats what the plan sets ({written.instead}); "
            "remove it"
        )


def _python_of(text: str, path: str) -> str:
    """Return the Python of an environment, given by its folder or its Python."""
    found = Path(path).expanduser().absolute()
    python = found / "bin" / "python" if found.is_dir() else found
    if not python.is_file():
        raise ConfigError(
            f"stack {text!r}: {python} does not exist; expected the folder of a Python "
            "environment, or its Python"
        )
    return str(python)


def _contained(system: System) -> bool:
    return system.container.contained


def _parts(found: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of :data:`~.stack.PARTS` in *found*, without local version parts."""
    return {name: public_version(found[name]) for name in PARTS if name in found}


def environment_digest(stack: Stack, system: System) -> str:
    """Return the digest of the environment that is built for *stack*, whatever its arguments."""
    return _digest(replace(stack, python=None, serve_args=()), system)


def _digest(stack: Stack, system: System) -> str:
    """Return the digest of all that decides what runs.

    For a stack that is built, these include ``[stack]`` and the Python that it is built from.
    """
    inputs: Sequence[object] = (
        sorted(stack.pins.items()),
        stack.python,
        stack.image,
        stack.serve_args,
        (asdict(system.stack), _base_of(system)) if stack.builds else None,
    )
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]


def _base_of(system: System) -> tuple[str, str] | None:
    """Return path and version of the Python that environments are built from; None if not found."""
    base = python_of_system(system)
    return None if base is None else (str(Path(base).absolute()), python_version_at(base))


def _stack_error(text: str, why: str) -> ConfigError:
    return ConfigError(f"stack {text!r:.200}: {why}; expected {FORMS}")
