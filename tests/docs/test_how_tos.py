"""Options of commands of README, how-to and reference pages exist, and a test runs each command."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from pytest_pdserve.commands.main import subcommands
from pytest_pdserve.plugin.options import add_options
from tests.package.test_first_lines import ELSEWHERE
from tests.support.doc_lines import ALL
from tests.support.doc_lines import PageLines
from tests.support.doc_pages import DOCS
from tests.support.doc_pages import command_lines
from tests.support.wheel import ROOT

PAGES = ("README.md", *sorted(f"docs/{path.relative_to(DOCS)}" for path in DOCS.rglob("*.md")))
LINES = [(page, line) for page in PAGES for line in command_lines(ROOT / page)]
NOT_RUN = {
    r"pdserve calibrate .*NAME|pdserve calibrate \[": "the form of a command, with placeholders",
    r"pdserve judge .* RUN": "the form of a command, with placeholders",
    r"pytest .*--benchmark-histogram$": "pygal, which `make setup` does not install",
    r"pdserve fabric install$": "165 MB from a package index, and a compiler",
    r"pdserve (gate|rehearse) .*nixl==(?!.*--plan)": (
        "versions from a package index, and servers of real vLLM for hours"
    ),
}
"""Lines of the pages that no test runs, and why.

``doc_lines.py`` has the lines that a test of ``tests/docs`` or ``tests/slurm`` runs,
``tests/package`` runs those of README.md, ``test_tutorial.py`` those of the tutorial.
"""
_PLACEHOLDERS = ("[", "]", "…")


def _own_options() -> set[str]:
    """Return the names of the options that the plugin adds to pytest."""
    found: set[str] = set()

    class Parser:
        def getgroup(self, *_: str) -> Parser:
            return self

        def addoption(self, name: str, **_: object) -> None:
            found.add(name)

        def addini(self, *_: object, **__: object) -> None: ...

    add_options(Parser())  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda value: str(value))
def test_a_command_of_the_docs_has_options_that_exist(page: str, line: str) -> None:
    program, *arguments = shlex.split(line.replace(" runs/*", " runs/one runs/two"))
    if any(mark in argument for argument in arguments for mark in _PLACEHOLDERS):
        pytest.skip("the form of a command, with placeholders")
    if program == "pytest":
        own = [a.partition("=")[0] for a in arguments if re.match("--(pdserve|topology|system)", a)]
        assert set(own) <= _own_options()
        return
    name, *rest = arguments
    if name.startswith("--"):
        return
    parser = argparse.ArgumentParser(prog=name, exit_on_error=False)
    subcommands()[name].add_arguments(parser)
    if ">" in rest:
        rest = rest[: rest.index(">")]
    if "--help" not in rest:
        parser.parse_args(rest)


def reason(line: str) -> str:
    """Return why no test runs a line; empty without a reason."""
    return next((why for each, why in NOT_RUN.items() if re.match(each, line)), "")


def run_somewhere() -> set[str]:
    """Return the lines that some test runs."""
    tutorial = [line for page, line in LINES if "/tutorial/" in page]
    readme = [line for page, line in LINES if page == "README.md"]
    elsewhere = [line for line in readme if any(re.match(each, line) for each in ELSEWHERE)]
    pages = [line for part in ALL for line in part.chosen()]
    return {*tutorial, *pages, *readme} - ({*elsewhere} - {*pages})


def test_a_test_runs_every_line_of_the_docs_or_says_why_not() -> None:
    ran = run_somewhere()
    neither = [f"{page}: {line}" for page, line in LINES if not (line in ran or reason(line))]
    both = [line for line in ran if reason(line)]
    assert (neither, both) == ([], [])


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_a_reason_for_not_running_a_line_is_used(pattern: str) -> None:
    assert any(re.match(pattern, line) for _, line in LINES)


@pytest.mark.parametrize("part", ALL, ids=str)
def test_a_part_of_a_page_has_lines_and_each_of_its_exit_codes_is_of_one(part: PageLines) -> None:
    lines = part.chosen()
    assert lines
    for some in (*part.codes, *part.replace):
        assert any(some in line for line in lines), some


def test_pages_name_only_files_that_exist() -> None:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text):
            if not re.search(r"(^|/)(reference/|changelog\.md)", target):  # generated
                assert ((ROOT / page).parent / target).exists(), (page, target)
