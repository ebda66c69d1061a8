"""``pdserve judge`` on ``p5-efa`` in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from tests.support.said import said_by


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeCommand:
    """Runs ``pdserve judge`` in the current folder."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints; the code it must end with is given."""
        self.capsys.readouterr()
        assert main(["judge", "--system", "p5-efa", *arguments]) == code
        said = said_by(self.capsys)
        assert "Traceback" not in said.out + said.err
        return said.err if code == 4 else said.out

    def told(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The same as JSON."""
        found: dict[str, Any] = json.loads(self("--format", "json", *arguments, code=code))
        return found
