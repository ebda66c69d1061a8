"""What commands of Slurm printed, from ``tests/data/slurm``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

DATA = Path(__file__).parents[1] / "data" / "slurm"


def text(name: str) -> str:
    """Return a text, by its file's name without the ending."""
    return (DATA / f"{name}.txt").read_text()


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with (DATA / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def case(name: str, file: str = "story") -> Sequence[str]:
    """Return the lines of a case's file; none if it has no such file."""
    path = DATA / "cases" / name / file
    return path.read_text().splitlines() if path.exists() else []
