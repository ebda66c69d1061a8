"""Names of findings: the table of ``docs/records.md`` has a row for each, and for nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def trees() -> list[ast.AST]:
    """Every module of the package."""
    paths = (ROOT / "pytest_pdserve").rglob("*.py")
    return [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]


def makers(nodes: list[ast.AST]) -> dict[str, int]:
    """Functions that are told the name of a finding, and which of their arguments it is."""
    return {
        node.name: number
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        for number, argument in enumerate(node.args.args)
        if argument.arg == "check" and ast.unparse(argument.annotation or argument) == "str"
    }


def names() -> Iterator[str]:
    """Names that the code gives to findings."""
    nodes = trees()
    places = makers(nodes)
    for node in nodes:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        said = [each.value for each in node.keywords if each.arg == "check"]
        if node.func.id in places:
            said += node.args[places[node.func.id] :][:1]
        yield from (str(each.value) for each in said if isinstance(each, ast.Constant))


def rows() -> list[str]:
    """The first column of the table of checks."""
    text = (ROOT / "docs" / "records.md").read_text()
    table = text.partition("| check | asks |\n|---|---|\n")[2].partition("\n\n")[0]
    return [line.split("|")[1].strip() for line in table.splitlines()]


def test_every_finding_has_one_row_in_the_docs() -> None:
    assert sorted(rows()) == sorted(set(names()))
