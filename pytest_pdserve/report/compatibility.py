"""The tables of docs/compatibility.md: ``python -m pytest_pdserve.report.compatibility``."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path

from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.values.compatibility import KnownRelease
from pytest_pdserve.values.compatibility import Package

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
"""In a checkout; the installed package has no docs."""
BEGIN = "<!-- tables: written by python -m pytest_pdserve.report.compatibility -->"
END = "<!-- end of tables -->"


def tables(packages: Iterable[Package]) -> str:
    """Return a section with a table for each package, in Markdown."""
    return "\n\n".join("\n".join(_section(package)) for package in packages)


def _section(package: Package) -> Iterator[str]:
    yield f"## {package.name}"
    yield ""
    yield "| release | looked at | how it is known | by what | on | what differs |"
    yield "|---|---|---|---|---|---|"
    for each in package.known:
        yield _row(each)
    if unknown := package.untested_releases():
        yield f"| {', '.join(unknown)} | | not looked at | | | |"


def _row(each: KnownRelease) -> str:
    cells = (
        each.release,
        ", ".join(each.versions),
        each.how,
        each.evidence,
        each.date,
        each.differs,
    )
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def with_tables(page: str, packages: Iterable[Package]) -> str:
    """Return the text of a page with its tables as *packages* say.

    :raises ValueError: if the page has no place for them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{tables(packages)}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), known_packages().values()))
