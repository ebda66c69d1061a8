"""Comments on issues and pull requests: each is written once."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pdserve.notify.github import GitHub
from pytest_pdserve.notify.github import as_kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment, as GitHub answers it."""

    id: int
    body: str | None = None

    @property
    def text(self) -> str:
        """The body; empty for none."""
        return self.body or ""


def comment_once(github: GitHub, number: int, marker: str, text: str) -> str:
    """Write a comment whose first line is *marker*, or bring the one there is up to *text*.

    :param number: of the issue or the pull request.
    :returns: what was done, one line.
    :raises GitHubError: if GitHub refuses it, or does not answer.
    """
    path = f"issues/{number}/comments"

    def found() -> Comment | None:
        comments = (as_kind(Comment, each) for each in github.all(path))
        return next((each for each in comments if each.text.splitlines()[:1] == [marker]), None)

    comment = found()
    if comment is None:
        github.ask("POST", path, {"body": text}, done=found)
        return f"commented on {number}"
    if comment.text != text:
        github.ask("PATCH", f"issues/comments/{comment.id}", {"body": text})
        return f"updated the comment on {number}"
    return f"left the comment on {number} as it is: it says all of this"
