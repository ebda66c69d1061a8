"""Fenced blocks of the documentation's pages: commands with their output, and files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.wheel import ROOT

DOCS = ROOT / "docs"
SHELL = ("", "sh", "bash", "console")
LEFT_OUT = "…"
"""A line of shown output that stands for any number of lines."""
_BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"^(?:\$ )?(pytest \S.*?|pdserve (?:--)?[a-z]+(?: [^#\s].*?)?) *(?:#.*)?$", re.MULTILINE
)
_EXIT = re.compile(r"# exits with (\d)$")
_NUMBER = re.compile(r"(?<![\w#])[-+]?\d[\d,.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block."""

    language: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCommand:
    """A line after ``$`` in a block of the language ``console``, and the output below it."""

    line: str
    """Without the comment that names its exit code."""
    code: int
    """Exit code that the comment names; 0 without one."""
    output: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """Return every fenced block of a page, in order."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language=language, title=title, text=text) for language, title, text in found]


def command_lines(page: Path) -> list[str]:
    """Return each line of a shell block that starts pytest or pdserve, without its comment.

    A line of output begins with ``pdserve:`` or ``pdserve 1p3d:``, which no command does.
    """
    text = "\n".join(block.text for block in blocks(page) if block.language in SHELL)
    joined = re.sub(r" *\\\n *", " ", text)
    return list(dict.fromkeys(_COMMAND.findall(joined)))


def shown_commands(block: Block) -> Iterator[ShownCommand]:
    """Yield the commands of a block of the language ``console`` with the output of each."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, *output = part.rstrip("\n").split("\n")
        code = _EXIT.search(line)
        yield ShownCommand(
            line=_EXIT.sub("", line).rstrip(),
            code=int(code[1]) if code else 0,
            output=tuple(output),
        )


def missing_lines(shown: tuple[str, ...], printed: str, *, folder: Path, home: Path) -> list[str]:
    """Return the shown lines that are not printed, in this order.

    Numbers, the width of columns, times and the place of folders do not matter.
    """
    printed = printed.replace(f"{folder}/", "").replace(str(home), "~")
    lines = iter([_comparable(line) for line in printed.splitlines()])
    wanted = [line for line in shown if line.strip() and line.strip() != LEFT_OUT]
    return [line for line in wanted if _comparable(line) not in lines]


def _comparable(line: str) -> str:
    line = re.sub(r"/[0-9a-f]{12}/", "/HASH/", line)
    line = re.sub(r"\d{8}T\d{6}", "TIME", line)
    line = _NUMBER.sub("N", line)
    line = re.sub(r"\(N to N %\)", "(N %)", line)
    return re.sub(r"[─=_]{4,}", "────", " ".join(line.split()))
