"""Phrases that the project does not use, and docstrings that begin as a command does.

Single words are in ``words.toml``, which `make lint` checks with typos.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHRASES = {
    "hang together": "fit, or depend on each other",
    "hangs together": "fits, or depends on each other",
    "speaks against": "contradicts",
    "speak against": "contradict",
    "means nothing": "is invalid",
    "is no number of": "is not a number of",
    "of its own accord": "by itself",
    "anybody's guess": "unknown",
}
"""Each with what to write in its place."""
_PHRASES = re.compile(
    "|".join(rf"\b{phrase}\b".replace(" ", r"[\s#*]+") for phrase in PHRASES), re.IGNORECASE
)
NOT_A_COMMAND = frozenset(
    {
        *("What", "Whether", "Who", "How", "Which", "Why"),
        *("The", "A", "An", "Every", "All", "One"),
    }
)
"""First words of docstrings of functions that say what is returned in place of what is done."""
_SUSPECT = re.compile(rf'"""({"|".join(NOT_A_COMMAND)})\b')
FOLDERS = ("pytest_pdserve", "docs", "suites")
SUFFIXES = {".md", ".py", ".toml", ".html", ".css", ".js", ".j2"}


def texts() -> Iterator[tuple[str, str]]:
    """Yield each file that people read, and its text on one line."""
    paths = [ROOT / "README.md", *(path for name in FOLDERS for path in (ROOT / name).rglob("*"))]
    for path in sorted(paths):
        if path.suffix in SUFFIXES:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def phrases_in(text: str) -> list[str]:
    """Return the phrases that *text* has, also where a line ends within one."""
    return sorted({" ".join(found.lower().split()) for found in _PHRASES.findall(text)})


def not_commands(source: str) -> Iterator[str]:
    """Yield name and docstring of each function whose docstring does not begin as a command.

    Tests do not count: a test's docstring is a statement about the product.
    """
    if not _SUSPECT.search(source):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_noun(node):
            if node.name.startswith("test_"):
                continue
            text = ast.get_docstring(node) or ""
            if text.partition(" ")[0] in NOT_A_COMMAND:
                yield f"{node.name}, line {node.lineno}: {text.splitlines()[0]}"


def _is_noun(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is a property or a fixture, whose docstring names a value."""
    named = {each.attr if isinstance(each, ast.Attribute) else each.id for each in _names(node)}
    return bool(named & {"property", "cached_property", "fixture", "setter"})


def _names(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.Attribute | ast.Name]:
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(called, ast.Attribute | ast.Name):
            yield called


def test_no_text_has_a_phrase_that_others_do_not_use() -> None:
    found = [(name, phrase) for name, text in texts() for phrase in phrases_in(text)]
    assert [f"{name}: {phrase!r}: {PHRASES[phrase]}" for name, phrase in found] == []


def test_a_functions_docstring_begins_as_a_command() -> None:
    paths = sorted((ROOT / "pytest_pdserve").rglob("*.py"))
    found = [
        f"{p.relative_to(ROOT)}: {line}" for p in paths for line in not_commands(p.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("keys that do not hang\n  together", ["hang together"]),
        ("A text that speaks against it", ["speaks against"]),
        ("it changes together", []),
    ],
)
def test_a_phrase_is_found_across_lines(text: str, phrases: list[str]) -> None:
    assert phrases_in(text) == phrases


@pytest.mark.parametrize(
    ("docstring", "named"),
    [("Whether it ran.", 1), ("The nodes.", 1), ("Return the nodes.", 0), ("Allow it.", 0)],
)
@pytest.mark.parametrize(
    ("decorator", "noun"), [("", False), ("@property\n", True), ("@pytest.fixture()\n", True)]
)
def test_a_docstring_that_is_no_command_is_found(
    decorator: str, noun: bool, docstring: str, named: int
) -> None:
    source = f'{decorator}def run():\n    """{docstring}"""\n'
    assert len(list(not_commands(source))) == (0 if noun else named)
