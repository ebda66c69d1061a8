"""Markdown of generated pages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from collections.abc import Sequence

_ROLE = re.compile(r":[a-z]+:`~?\.?([^`]+)`")
_PARAMETER = re.compile(r" ?:param (\w+): ")
_RAISES = re.compile(r" ?:raises (\w[\w.]*): ")
_EMPHASIS = re.compile(r"(?<![\w*])\*(\w+)\*(?![\w*])")
_LITERAL = re.compile(r"``([^`]+)``")
_PAGE = re.compile(r"(?<!`)\bdocs/([a-z-]+\.md)")


def inline(text: str | None) -> str:
    """Return a docstring or a help text as one line of Markdown.

    Roles and literals of reStructuredText become code, ``docs/x.md`` becomes a link.
    """
    joined = " ".join(inspect.cleandoc(text or "").split())
    joined = _PARAMETER.sub(r" `\1`: ", joined)
    joined = _RAISES.sub(r" Raises `\1`: ", joined).replace(":returns:", "Returns")
    joined = _EMPHASIS.sub(r"`\1`", joined)
    joined = _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", joined)
    joined = _LITERAL.sub(r"`\1`", joined)
    parts = re.split(r"(`[^`]*`)", joined)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup outside of code; link pages of docs/."""
    escaped = re.sub(r"([*_<\[\]])", r"\\\1", text)
    return _PAGE.sub(r"[\1](../\1)", escaped)


def code(text: object) -> str:
    """Return *text* as code that a table's cell can hold."""
    shown = str(text).replace("\n", " ")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a cell's vertical bars are escaped."""
    lines = [_row(heads), "|---" * len(heads) + "|"]
    return "\n".join([*lines, *map(_row, rows)]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
