"""Commands of README, how-to and reference pages exist, and those that need no servers run."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from pytest_pdserve.commands.main import subcommands
from pytest_pdserve.plugin.options import add_options
from tests.support.doc_pages import DOCS
from tests.support.doc_pages import command_lines
from tests.support.wheel import ROOT

PAGES = ("README.md", *sorted(f"docs/{path.relative_to(DOCS)}" for path in DOCS.rglob("*.md")))
LINES = [(page, line) for page in PAGES for line in command_lines(ROOT / page)]
RUN = {
    "pytest suites/claims --system article": 0,
    "pdserve plan --topology 1p3d --system p5-efa": 0,
    "pdserve doctor --format json": 4,
    "pdserve init my-project": 0,
}
"""Lines that are run here, and what each exits with.

``tests/package`` runs those of README.md, ``test_tutorial.py`` those of the tutorial.
"""
NOT_RUN = {
    r"pytest .*--system (simulated|mine)\b": "a simulated sweep of minutes",
    r"pytest ": "servers, on this machine or on others",
    r"pdserve (serve|nightly|transfer)\b": "servers or agents on nodes",
    r"pdserve (show|judge|report|baseline|calibrate|history|compare|plot)\b": "stored sessions",
    r"pdserve import\b": "result files of other tools",
    r"pdserve (gate|rehearse|releases)\b": "minutes, servers, or a package index",
    r"pdserve fabric\b": "165 MB from a package index, and a compiler",
    r"pdserve selftest\b": "minutes",
    r"pdserve (plan|doctor|init|--version)\b": "another form of a line that is run",
}
"""Lines of the pages that are not run here, and what they need."""
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


def test_every_line_of_the_docs_is_run_or_says_why_not() -> None:
    tutorial = [line for page, line in LINES if "/tutorial/" in page]
    for page, line in LINES:
        known = line in RUN or line in tutorial or any(re.match(each, line) for each in NOT_RUN)
        assert known or page == "README.md", f"{page}: {line}"


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_a_reason_for_not_running_a_line_is_used(pattern: str) -> None:
    assert any(re.match(pattern, line) for _, line in LINES)


@pytest.mark.slow
@pytest.mark.parametrize("line", RUN)
def test_a_command_that_needs_no_servers_runs_in_an_empty_folder(
    line: str, pytester: pytest.Pytester
) -> None:
    assert line in [each for _, each in LINES]
    program, *arguments = shlex.split(line.replace("suites/", f"{ROOT}/suites/"))
    if program == "pytest":
        code = pytester.runpytest_subprocess(*arguments, "--rootdir", str(pytester.path)).ret
    else:
        code = pytester.runpython_c(
            "import sys; from pytest_pdserve.commands.main import main; "
            f"sys.exit(main({arguments!r}))"
        ).ret
    assert code == RUN[line]


def test_pages_name_only_files_that_exist() -> None:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text):
            if not re.search(r"(^|/)(reference/|changelog\.md)", target):  # generated
                assert ((ROOT / page).parent / target).exists(), (page, target)
