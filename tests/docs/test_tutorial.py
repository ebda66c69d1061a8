"""Commands of the tutorial do what the pages show, one after the other in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.doc_pages import DOCS
from tests.support.doc_pages import Block
from tests.support.doc_pages import ShownCommand
from tests.support.doc_pages import blocks
from tests.support.doc_pages import missing_lines
from tests.support.doc_pages import shown_commands
from tests.support.wheel import LIMIT_S
from tests.support.wheel import ROOT

PAGES = {
    "laptop": False,
    "project": False,
    "red-night": False,
    "upgrade": False,
    "cluster": True,
    "gpu-host": True,
}
"""Each page of the tutorial; True if its commands take a few seconds, so that it is not slow."""
NOT_RUN = {
    "sh": "installs packages, or starts servers on this machine or others",
    "text": "output of a session on other machines",
}
"""Languages of blocks that are not run, and why."""


@dataclass(slots=True, kw_only=True)
class Reader:
    """Types what a page says, in a folder of its own."""

    home: Path
    package: Path
    """Has ``suites/``, as an installed package does: beside no baselines of a project."""
    folder: Path
    """Where commands run."""

    def follow(self, block: Block) -> list[str]:
        """Do what a block says; return what is not as it shows."""
        if block.language == "console":
            return [text for command in shown_commands(block) for text in self._type(command)]
        if block.title and block.language in ("python", "toml"):
            self._write(block)
        return []

    def _write(self, block: Block) -> None:
        """Write the file that a block's title names, append to it, or replace a line of it."""
        if block.title.startswith("append to "):
            path = self.folder / block.title.removeprefix("append to ")
            path.write_text(path.read_text() + block.text)
        elif block.title.startswith("replace in "):
            name, _, old = block.title.removeprefix("replace in ").partition(": ")
            text = (self.folder / name).read_text()
            assert old in text
            (self.folder / name).write_text(text.replace(old, block.text.strip()))
        elif (self.folder / block.title).parent.is_dir():
            (self.folder / block.title).write_text(block.text)

    def _type(self, command: ShownCommand) -> list[str]:
        program, *arguments = shlex.split(command.line)
        if program == "cd":
            self.folder /= arguments[0]
            return []
        done = subprocess.run(
            [*_program(program), *self._expanded(arguments)],
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.home), "COLUMNS": "96"}
            | {"XDG_STATE_HOME": str(self.home / ".local/state"), "PYTEST_ADDOPTS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=LIMIT_S,
        )
        wrong = missing_lines(command.output, done.stdout, folder=self.folder, home=self.home)
        failed = "BaselineRegression" in "".join(command.output)
        if done.returncode != (1 if failed else command.code):
            wrong.append(f"exit code {done.returncode}")
        return [f"{command.line}\n{text}\n---\n{done.stdout[-6000:]}" for text in wrong]

    def _expanded(self, arguments: list[str]) -> list[str]:
        """Return arguments with the paths of ``runs/*``, and suites as files."""
        if "--pyargs" in arguments:
            at = arguments.index("--pyargs")
            suite = arguments[at + 1].removeprefix("pytest_pdserve.").replace(".", "/")
            arguments[at : at + 2] = [str(self.package / suite), "--rootdir", str(self.folder)]
        if "runs/*" in arguments:
            at = arguments.index("runs/*")
            arguments[at : at + 1] = sorted(map(str, self.folder.glob("runs/*")))
        return arguments


def _program(name: str) -> list[str]:
    if name == "python":
        return [sys.executable]
    module = {"pytest": "pytest", "pdserve": "pytest_pdserve.commands.main"}[name]
    return [sys.executable, "-m", module]


def page_params() -> list[object]:
    return [
        pytest.param(name, marks=[] if quick else [pytest.mark.slow])
        for name, quick in PAGES.items()
    ]


@pytest.mark.parametrize("name", page_params())
def test_commands_of_the_tutorial_print_what_the_page_shows(name: str, tmp_path: Path) -> None:
    home, package, folder = (tmp_path / each for each in ("home", "package", "work"))
    for path in (home, folder):
        path.mkdir()
    shutil.copytree(ROOT / "suites", package / "suites")
    reader = Reader(home=home, package=package, folder=folder)
    page = DOCS / "tutorial" / f"{name}.md"
    wrong = [text for block in blocks(page) for text in reader.follow(block)]
    assert not wrong, "\n\n".join(wrong)


def test_every_page_of_the_tutorial_is_followed() -> None:
    assert {path.stem for path in (DOCS / "tutorial").glob("*.md")} == PAGES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_a_block_of_the_tutorial_is_run_or_says_why_not(name: str) -> None:
    for block in blocks(DOCS / "tutorial" / f"{name}.md"):
        assert block.language in ("console", "python", "toml", *NOT_RUN), block.text
        assert block.language not in ("python", "toml") or block.title, block.text


def test_a_line_that_is_not_printed_is_found(tmp_path: Path) -> None:
    shown = ("…", " dp   512-128   33.1   PASS", "PASS on mine")
    printed = " dp 512-128 41.9 FAIL\nPASS on mine\n"
    assert missing_lines(shown, printed, folder=tmp_path, home=tmp_path)
    assert not missing_lines(shown, re.sub("FAIL", "PASS", printed), folder=tmp_path, home=tmp_path)
