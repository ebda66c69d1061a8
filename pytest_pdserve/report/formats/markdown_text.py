"""Text of a record within Markdown: nothing in it is read as markup."""

from __future__ import annotations

import re
import unicodedata

_MARKUP = {character: f"\\{character}" for character in "\\`*_[]|~#$"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""A backslash before these is not enough where Markdown is shown within HTML."""
_UNSHOWN = ("Cc", "Cf", "Cn", "Co", "Cs")
"""Unicode's categories of characters that have no glyph; direction marks are Cf."""
_RIGHT_TO_LEFT = ("R", "AL", "AN")
"""Bidirectional classes that reorder the text around them."""
_LINK = re.compile(r"(?<=@)(?=\w)|(?<=#)(?=\d)|(?<=GH-)(?=\d)|(?<=\w:)(?=//)|(?<=www)(?=\.)", re.I)
"""Where GitHub recognizes a name, an issue or a link without any markup: ``@name`` would notify."""
_APART = "\0"
"""Stands at these places until all is escaped; no text has it, as it has no glyph."""
_ESCAPES = str.maketrans({**_MARKUP, **_ENTITIES, _APART: "&#8203;"})
"""What is apart has a space of width 0 there, which is not seen."""


def escaped(text: str, limit: int = 300) -> str:
    """Return *text* as one line of Markdown that is shown as it is written, in a table cell too.

    White space becomes one space. Characters that cannot be seen, or that reorder others, are
    written as ``U+202E``. ``@name``, ``#123`` and addresses do not become links, and notify no one.

    :param limit: characters of *text* that are kept; an ellipsis takes the place of the others.
    """
    line = " ".join(text[: limit + 1].split())
    kept = line if len(text) <= limit else f"{line[: limit - 1]}…"
    shown = "".join(_visible(character) for character in kept)
    return _LINK.sub(_APART, shown).translate(_ESCAPES)


def _visible(character: str) -> str:
    """Return *character*, or its number where it has no glyph or reorders its neighbours."""
    if (
        unicodedata.category(character) in _UNSHOWN
        or unicodedata.bidirectional(character) in _RIGHT_TO_LEFT
    ):
        return f"U+{ord(character):04X}"
    return character
