"""``pdserve fabric install``: the libraries that a system with LIBFABRIC on CPUs needs."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pdserve.values.exit_codes import ExitCode

NAME = "fabric"
TEXT = "Install libfabric and a NIXL that loads it into a folder of their own, for local-fabric"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    text = (
        "Download them with pinned hashes, compile what is missing, and test them; needed only once"
    )
    install = steps.add_parser("install", help=text, description=text)
    install.add_argument(
        "--folder",
        metavar="DIR",
        help="Folder to install to; a system file then names it in [kv_transfer] libraries "
        "(default: the user's cache folder)",
    )


def run(options: argparse.Namespace) -> int:
    """Install the libraries, and print their versions.

    :returns: the exit code.
    """
    from pytest_pdserve.backends.fabric.folder import default_folder
    from pytest_pdserve.backends.fabric.folder import find_installed
    from pytest_pdserve.backends.fabric.install import install_fabric
    from pytest_pdserve.backends.heartbeat import Heartbeat

    folder = default_folder() if options.folder is None else Path(options.folder).absolute()
    there = find_installed(folder) is not None

    def report(text: str) -> None:
        print(f"pdserve: {text}", flush=True)

    with Heartbeat(report, "installing") as progress:
        probe = install_fabric(folder, progress)
    found = find_installed(folder)
    versions = found.versions if found is not None else {}
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    print(
        f"{'already' if there else 'now'} in {folder}: {named}; LIBFABRIC works over "
        f"{probe.provider} on {', '.join(probe.interfaces)}"
    )
    return ExitCode.OK
