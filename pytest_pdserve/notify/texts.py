"""Markdown of a report, as a comment on a pull request or in the summary of a workflow run."""

from __future__ import annotations

from pathlib import Path

from pytest_pdserve.notify.comments import comment_once
from pytest_pdserve.notify.github import GitHub
from pytest_pdserve.notify.issue_text import MAX_BODY
from pytest_pdserve.results.reading import read_text
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError

MARKER = "<!-- pdserve-gate -->"
"""First line of the comment: a gate that runs again brings it up to date."""
GATE_TEXT = "gate.md"
"""File of a gate's verdict in its folder."""
_ROOM = MAX_BODY - 1_000
"""Characters of a text that are kept, beside what is said around it."""
_MAX_MIB = 16


def read_markdown(path: Path) -> str:
    """Return the text of a file, or of the one ``gate.md`` below a folder.

    What is not there is said to be missing: a night or a gate that ended early leaves none.

    :raises ConfigError: if it cannot be read, or a folder has several.
    """
    found = [path] if path.is_file() else sorted(path.glob(f"**/{GATE_TEXT}"))
    if not found:
        return f"No report was left in `{path}`: what was to be measured did not run to its end."
    if len(found) > 1:
        raise ConfigError(f"{path}: expected one {GATE_TEXT}, found {len(found)}; name one of them")
    return read_text(found[0], _MAX_MIB).rstrip()


def comment_text(github: GitHub, number: int, text: str, *, run_url: str = "") -> str:
    """Write *text* as a comment on a pull request, once, and return what was done.

    :param run_url: page of the workflow run; empty if there is none.
    :raises GitHubError: if GitHub refuses it, or does not answer.
    """
    where = ["", f"Workflow run: {run_url}"] if run_url else []
    return comment_once(github, number, MARKER, "\n".join([MARKER, _cut(text), *where]))


def append_summary(path: Path, text: str) -> str:
    """Append *text* to the summary of a step, and return what was done.

    :raises StoreError: if it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{_cut(text)}\n")
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}; check GITHUB_STEP_SUMMARY"
        ) from error
    return f"added to {path}"


def _cut(text: str) -> str:
    if len(text) <= _ROOM:
        return text
    return f"{text[:_ROOM].rstrip()}\n\n… cut here: the whole text is among the files of the run"
