"""What README.md tells a user to type, and the test that it tells them to write."""

from __future__ import annotations

import re

from tests.support.wheel import ROOT

_SHELL = ("", "sh", "bash", "console")


def command_lines() -> list[str]:
    """Return each line of a fenced block that starts pytest or pdserve, without its comment.

    A line of output begins with ``pdserve:`` or ``pdserve 1p3d:``, which no command does.
    """
    lines = re.findall(
        r"^(?:\$ )?(pytest \S.*?|pdserve (?:--)?[a-z]+(?: [^#\s].*?)?) *(?:#.*)?$",
        "\n".join(text for language, text in _blocks() if language in _SHELL),
        re.MULTILINE,
    )
    return list(dict.fromkeys(lines))


def snippet() -> str:
    """Return the test that README.md prints, as it prints it."""
    python = [text for language, text in _blocks() if language == "python"]
    (test,) = [text for text in python if "def test_" in text]
    return test


def _blocks() -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
