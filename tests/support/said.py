"""What a command of ``pdserve`` said."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

WHERE = "pdserve: rootdir "


@dataclass(frozen=True, slots=True)
class Said:
    """What was printed since the last look."""

    out: str
    """Standard output."""
    err: str
    """Standard error, without the line that says which folders are used."""


def said_by(capsys: pytest.CaptureFixture[str]) -> Said:
    """Return what was printed since the last look."""
    captured = capsys.readouterr()
    lines = captured.err.splitlines(keepends=True)
    return Said(captured.out, "".join(line for line in lines if not line.startswith(WHERE)))
