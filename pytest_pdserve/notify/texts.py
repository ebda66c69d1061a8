"""Post the Markdown of a report as a comment or as the summary of a workflow run."""

from __future__ import annotations

from pathlib import Path

from pytest_pdserve.notify.comments import comment_once
from pytest_pdserve.notify.github import GitHub
from pytest_pdserve.notify.issue_text import MAX_BODY
from pytest_pdserve.results.reading import read_text
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError

MARKER = "<!-- pdserve-gate -->"
"""First line of the comment, by which a later gate finds and updates it."""
GATE_TEXT = "gate.md"
"""File of a gate's result in its folder."""
_MAX_TEXT = MAX_BODY - 1_000
"""Maximum characters of a text; the rest of a comment takes less than 1000."""
_MAX_MIB = 16


def read_markdown(path: Path) -> str:
    """Return the text of a file, or of the only ``gate.md`` below a folder.

    If there is none, the text reports that: a night or a gate that ended early leaves none.

    :raises ConfigError: if it cannot be read, or a folder has several.
    """
    found = [path] if path.is_file() else sorted(path.glob(f"**/{GATE_TEXT}"))
    if not found:
        return f"There is no report in `{path}`: the measurement did not complete."
    if len(found) > 1:
        raise ConfigError(f"{path}: expected one {GATE_TEXT}, found {len(found)}; name one of them")
    return read_text(found[0], _MAX_MIB).rstrip()


def comment_text(github: GitHub, number: int, text: str, *, run_url: str = "") -> str:
    """Create or update the comment with *text* on a pull request; return what was done.

    :param run_url: page of the workflow run; empty without one.
    :raises GitHubError: if GitHub rejects it, or does not answer.
    """
    where = ["", f"Workflow run: {run_url}"] if run_url else []
    return comment_once(github, number, MARKER, "\n".join([MARKER, _cut(text), *where]))


def append_summary(path: Path, text: str) -> str:
    """Append *text* to the summary of a workflow step; return what was done.

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
    if len(text) <= _MAX_TEXT:
        return text
    return f"{text[:_MAX_TEXT].rstrip()}\n\n… cut here: the full text is in the files of the run"
