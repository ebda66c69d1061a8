"""Arguments that commands of ``pdserve`` have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pdserve.options import DEFAULT_RUNS


def add_system(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add ``--system``, which must be given where there is no default."""
    text = "Folder of baselines/ with a system.toml"
    parser.add_argument(
        "--system",
        required=default is None,
        default=default,
        metavar="NAME",
        help=text if default is None else f"{text} (default: %(default)s)",
    )


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add ``--runs``."""
    parser.add_argument(
        "--runs",
        default=DEFAULT_RUNS,
        type=Path,
        metavar="DIR",
        help="Folder of records and logs (default: %(default)s)",
    )
