"""Comments on issues and pull requests; each is written only once."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pdserve.notify.github import GitHub
from pytest_pdserve.notify.github import convert_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment, as GitHub returns it."""

    id: int
    body: str | None = None

    @property
    def text(self) -> str:
        """The body; empty without one."""
        return self.body or ""


def comment_once(github: GitHub, number: int, marker: str, text: str) -> str:
    """Create the comment whose first line is *marker*, or update it to *text*.

    :param number: number of the issue or the pull request.
    :returns: what was done, one line.
    :raises GitHubError: if GitHub rejects it, or does not answer.
    """
    path = f"issues/{number}/comments"

    def found() -> Comment | None:
        comments = (convert_answer(Comment, each) for each in github.list_all(path))
        return next((each for each in comments if each.text.splitlines()[:1] == [marker]), None)

    comment = found()
    if comment is None:
        github.request("POST", path, {"body": text}, done=found)
        return f"commented on {number}"
    if comment.text != text:
        github.request("PATCH", f"issues/comments/{comment.id}", {"body": text})
        return f"updated the comment on {number}"
    return f"left the comment on {number} unchanged: it is up to date"
