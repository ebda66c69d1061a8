"""Types the lines of a page in pytester's folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from pytest_pdserve.commands.main import main
from tests.support.doc_lines import PageLines
from tests.support.gates import handlers_kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Typist:
    """Types lines in pytester's folder, in this process."""

    pytester: pytest.Pytester
    capsys: pytest.CaptureFixture[str]

    def wrong(self, part: PageLines, replace: Mapping[str, str] | None = None) -> list[str]:
        """Run the lines of a page; return what is wrong, line by line."""
        found = []
        for line in (*part.first, *part.chosen()):
            typed = part.typed(line)
            for old, new in (replace or {}).items():
                typed = typed.replace(old, new)
            self.capsys.readouterr()
            code, text = self._run(typed)
            expected = part.expected(line)
            if "Traceback" in text or code not in expected:
                found.append(f"{line}\nexit code {code}, expected {expected}\n{text[-3000:]}")
        return found

    def _run(self, line: str) -> tuple[int, str]:
        program, *arguments = shlex.split(line)
        if program == "pytest":
            result = self.pytester.runpytest_inprocess(*arguments)
            return int(result.ret), result.stdout.str() + result.stderr.str()
        if ">" in arguments:
            arguments = arguments[: arguments.index(">")]
        with handlers_kept():
            code = main(arguments)
        said = self.capsys.readouterr()
        return code, said.out + said.err


def params(parts: tuple[PageLines, ...]) -> list[object]:
    """Return the parts of pages as parameters of a test."""
    return [
        pytest.param(part, id=str(part), marks=[pytest.mark.slow] if part.slow else [])
        for part in parts
    ]
