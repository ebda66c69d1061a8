"""The wheel of this repository, and a table of how long each line took that a user types first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.wheel import ROOT
from tests.support.wheel import build_wheel
from tests.support.wheel import find_python
from tests.support.wheel import named_pythons


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print lines and seconds of each Python, and which Python is not on this machine."""
    walks = [
        dict(report.user_properties)
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if report.when == "call" and "test_first_lines.py" in report.nodeid
    ]
    for walk in filter(None, walks):
        terminalreporter.section(f"the wheel in an empty environment, Python {walk.pop('python')}")
        for line, seconds in [*walk.items(), ("in all", sum(walk.values()))]:
            terminalreporter.write_line(f"{seconds:6.1f} s  {line}")
    for version in named_pythons() if any(walks) else ():
        if find_python(version) is None:
            terminalreporter.write_line(f"Python {version} is not on this machine")
