"""A subcommand and a report format are added by one module each."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve import commands
from pytest_pdserve.commands.main import main
from pytest_pdserve.report import formats
from pytest_pdserve.report.formats import format_named

COMMAND = '''
"""A subcommand more."""

NAME = "greet"
TEXT = "Greet somebody"


def add_arguments(parser):
    parser.add_argument("whom")


def run(options):
    print(f"hello, {options.whom}")
    return 7
'''
FORMAT = '''
"""A format more."""


def render(judged):
    return f"<{judged}>"
'''


def test_a_module_is_a_subcommand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "greet_somebody.py").write_text(COMMAND)
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    assert main(["greet", "Ada"]) == 7
    assert capsys.readouterr().out == "hello, Ada\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Greet somebody" in capsys.readouterr().out


def test_a_module_is_a_report_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert formats.formats() == ("json", "text")
    (tmp_path / "angle.py").write_text(FORMAT)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    assert format_named("angle").render("all") == "<all>"
    with pytest.raises(SystemExit):
        main(["judge", "--help"])
    assert "--format {angle,json,text}" in capsys.readouterr().out


def test_an_unknown_format_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["judge", "--system", "p5-efa", "--format", "pie"])
    assert ended.value.code == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "'pie'" in line
    assert "'json', 'text'" in line
