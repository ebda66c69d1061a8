"""Find out whether a pull request for a branch was opened before."""

from __future__ import annotations

from pytest_pdserve.notify.github import GitHub


def was_opened(github: GitHub, branch: str) -> bool:
    """Tell whether there is a pull request from *branch*, open or closed.

    A pull request that a user closed counts: it must not be opened again.

    :raises GitHubError: if GitHub does not answer.
    """
    owner, _, _ = github.repository.partition("/")
    return any(True for _ in github.list_all("pulls", state="all", head=f"{owner}:{branch}"))
