"""The page of messages has what commands say when they refuse something."""

from __future__ import annotations

import ast
import re

import pytest

from docs.reference_pages.messages import PACKAGE
from docs.reference_pages.messages import messages
from docs.reference_pages.messages import messages_page
from docs.reference_pages.messages import text_form
from pytest_pdserve.commands.main import main
from tests.support.doc_pages import DOCS
from tests.support.said import said_by

REFUSED = (
    "plan --topology 1p7d --system p5-efa",
    "plan --system nowhere",
    "compare here there",
    "compare article p5-efa --partial",
    "history list",
    "baseline show --system p5-efa",
    "gate --system p5-efa --baseline current --candidate vllm==0.32.0",
    "report --format json nothing",
    "transfer --system article",
)
COMPOSED = (
    "…/system.toml: /sweep: Additional properties",
    "vLLM is missing",
    "Slurm job 4711 waits",
    "node p5-03 lost GPUs",
    "system '…' needs 4 free GPUs",
)
"""Beginnings of examples whose text the code puts together, or takes from a library."""
FORMS = tuple(dict.fromkeys(message.form for message in messages()))


def is_listed(text: str) -> bool:
    """Return whether a message has one of the forms of the page."""
    return any(_pattern(form).search(text) for form in FORMS)


def _pattern(form: str) -> re.Pattern[str]:
    return re.compile(re.escape(form).replace("…", ".*").strip())


@pytest.mark.parametrize("line", REFUSED)
def test_what_a_command_refuses_is_on_the_page_of_messages(
    line: str, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(line.split())
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = said_by(capsys).err.strip().splitlines()
    assert code == 4
    assert is_listed(said[-1]), said


def test_a_message_that_no_code_has_is_not_listed() -> None:
    assert not is_listed("the moon is missing: expected one above this machine; wait for the night")


def test_a_message_of_every_group_is_on_the_page() -> None:
    headings = re.split(r"^## .*$", messages_page(), flags=re.MULTILINE)[1:]
    assert all(len(re.findall(r"^\| `", part, re.MULTILINE)) >= 5 for part in headings)


def texts_of_the_code() -> str:
    """Return every text of the package's source, one a line; values are holes."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                found.append(" ".join(text_form(node).split()))
    return "\n".join(found)


def stale(page: str, code: str) -> list[str]:
    """Return the examples in a page's tables of messages that are no text of the code."""
    examples = re.findall(r"^\| `+ ?([^`]+?) ?`+", page, re.MULTILINE)
    assert len(examples) > 20
    parts = {text: re.split(r"…|'[^']*'|\b\d[\d,:.]*|/\w+|p5-\w+", text) for text in examples}
    longest = {text: max(map(str.strip, each), key=len) for text, each in parts.items()}
    return [text for text, part in longest.items() if part[:24] not in code]


def test_an_example_of_a_message_is_one_that_the_code_has() -> None:
    page = (DOCS / "troubles.md").read_text(encoding="utf-8")
    tables = page.partition("## Options and names")[2].partition("## Verdicts that")[0]
    code = texts_of_the_code()
    assert {text for text in stale(tables, code) if not text.startswith(COMPOSED)} == set()
    changed = stale(tables, code.replace("is the same as", "equals"))
    assert "topology 'route1' is the same as 'dp'; write 'dp'" in changed
