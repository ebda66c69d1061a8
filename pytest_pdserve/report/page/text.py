"""Text and numbers of a page: nothing that a record holds can hide, or turn what is around it."""

from __future__ import annotations

import math
import os
import shlex
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_pdserve.judge.wording import number
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.values.record import ProcessRecord

NOTHING = "–"
"""Stands where there is no value."""
_LEAST = 0.0005
"""Changes below this are 0 % as they are shown."""
_UNSHOWN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
"""Unicode's categories of characters without a glyph; those that turn the direction are Cf."""
_KEPT = "\n\t"


def visible(value: Any) -> Any:
    """Return a text or a path with ``U+202E`` in place of each character that cannot be seen.

    Other values, and what is markup of a template already, are returned as they are.
    """
    if isinstance(value, Path):
        value = str(value)
    if type(value) is not str or value.isprintable():
        return value
    return "".join(map(_glyph, value))


def _glyph(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _UNSHOWN:
        return character
    return f"U+{ord(character):04X}"


def shortened(text: str, limit: int) -> str:
    """Return *text* with at most *limit* characters; an ellipsis takes the place of the others."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def first_line(text: str) -> str:
    """Return the first line of a message, at most 300 characters of it."""
    return shortened(text.strip().partition("\n")[0], 300)


def moment_text(moment: str | None) -> str:
    """Return a time of UTC to the minute: ``2026-11-28 09:51 UTC``."""
    return "time unknown" if moment is None else f"{moment[:16].replace('T', ' ')} UTC"


def value_text(value: float | None) -> str:
    """Return a value in four digits; a dash where there is none, or none that is finite."""
    return NOTHING if value is None or not math.isfinite(value) else number(value)


def change_text(change: float | None) -> str:
    """Return a signed change in per cent; a dash as of :func:`value_text`."""
    if change is None or not math.isfinite(change):
        return NOTHING
    return percent(change) if abs(change) >= _LEAST else "0 %"


def limits_text(severity: float) -> str:
    """Return a change in limits with two digits; a dash where nothing was compared with a limit."""
    return f"{severity:.2f}" if severity and math.isfinite(severity) else NOTHING


def counted(count: int, noun: str) -> str:
    """Return a number and its noun: ``1 cell``, ``30 cells``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def command_line(process: ProcessRecord) -> str:
    """Return what starts a process in a shell, environment first, one option a line."""
    words = [f"{name}={shlex.quote(text)}" for name, text in sorted(process.env.items())]
    lines = [" ".join(words)] if words else []
    lines.append("")
    for word in process.argv:
        if word.startswith("-") and lines[-1]:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{shlex.quote(word)}"
    return " \\\n  ".join(lines)


def link(target: Path, page: Path) -> str:
    """Return the address of a file as a page that lies in the folder *page* links to it."""
    return quote(os.path.relpath(target, page).encode("utf-8", "surrogatepass"))
