"""What README.md tells a user to type, and the test that it tells them to write."""

from __future__ import annotations

from tests.support import doc_pages
from tests.support.wheel import ROOT

README = ROOT / "README.md"


def command_lines() -> list[str]:
    """Return each line of README.md that starts pytest or pdserve, without its comment."""
    return doc_pages.command_lines(README)


def snippet() -> str:
    """Return the test that README.md prints, as it prints it."""
    python = [block.text for block in doc_pages.blocks(README) if block.language == "python"]
    (test,) = [text for text in python if "def test_" in text]
    return test
