"""Whether a pull request was opened for a branch before."""

from __future__ import annotations

from pytest_pdserve.notify.github import GitHub


def was_opened(github: GitHub, branch: str) -> bool:
    """Tell whether there is a pull request of *branch*, open or closed.

    One that a person closed is an answer: it is not opened again.

    :raises GitHubError: if GitHub does not answer.
    """
    owner, _, _ = github.repository.partition("/")
    return any(True for _ in github.all("pulls", state="all", head=f"{owner}:{branch}"))
