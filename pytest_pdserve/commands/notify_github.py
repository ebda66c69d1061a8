"""``pdserve notify-github``: maintain an issue per regression; post reports to GitHub."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode

if TYPE_CHECKING:
    from pytest_pdserve.notify.github import GitHub
    from pytest_pdserve.values.nightly import Event

NAME = "notify-github"
TEXT = "Open, update or close the issue about an event of pdserve nightly, read as JSON from stdin"
DESCRIPTION = (
    f"{TEXT}; or post the Markdown of a report. The token is read from the variable GITHUB_TOKEN "
    "(docs/github.md)"
)
_API = "https://api.github.com"
_MAX_EVENT = 4 * 2**20
"""Maximum bytes of an event; nightly events have at most 60 sentences."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_repository(parser)
    parser.add_argument(
        "--text",
        type=Path,
        metavar="PATH",
        help="Markdown file, or folder with a gate.md, for --pull or --summary in place of an "
        "event; if it does not exist, a note about that is posted",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--pull",
        type=int,
        metavar="NUMBER",
        help="Write the text as a comment on this pull request",
    )
    where.add_argument(
        "--summary",
        action="store_true",
        help="Append the text to the summary of a workflow run (variable GITHUB_STEP_SUMMARY)",
    )


def add_repository(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a GitHub repository."""
    parser.add_argument(
        "--repo",
        metavar="OWNER/NAME",
        help="Repository (default: variable GITHUB_REPOSITORY, which GitHub Actions sets)",
    )
    parser.add_argument(
        "--api",
        metavar="URL",
        help=f"REST API of GitHub (default: variable GITHUB_API_URL, else {_API})",
    )


def connect(
    options: argparse.Namespace, environment: Mapping[str, str]
) -> AbstractContextManager[GitHub]:
    """Return a client of the repository in *options* or *environment*.

    :raises ConfigError: if the repository or the token is missing or malformed.
    """
    from pytest_pdserve.notify.github import connected

    return connected(
        api=options.api or environment.get("GITHUB_API_URL") or _API,
        repository=_repository(options, environment),
        token=_token(environment),
    )


def run(options: argparse.Namespace) -> int:
    """Update the issue about an event, or post a text.

    :returns: the exit code.
    :raises ConfigError: if event, text, repository or token cannot be used.
    :raises GitHubError: if GitHub rejects a request, or does not answer.
    :raises StoreError: if the summary cannot be written.
    """
    if (options.text is None) != (options.pull is None and not options.summary):
        raise ConfigError(
            "--text needs --pull or --summary, and they need --text: give both, or neither"
        )
    outcome = _handle_event(options) if options.text is None else _post_text(options)
    print(f"pdserve: {outcome}")
    return ExitCode.OK


def _handle_event(options: argparse.Namespace) -> str:
    from pytest_pdserve.notify.issues import Issues

    event = _event()
    with connect(options, os.environ) as github:
        outcome = Issues(github=github, run_url=_run_url(os.environ)).apply(event)
    return f"{event.kind} {event.key}: {outcome}"


def _post_text(options: argparse.Namespace) -> str:
    from pytest_pdserve.notify.texts import append_summary
    from pytest_pdserve.notify.texts import comment_text
    from pytest_pdserve.notify.texts import read_markdown

    text = read_markdown(options.text)
    if options.summary:
        path = os.environ.get("GITHUB_STEP_SUMMARY")
        if not path:
            raise ConfigError(
                "GITHUB_STEP_SUMMARY is not set: --summary is for a step of GitHub Actions"
            )
        return append_summary(Path(path), text)
    with connect(options, os.environ) as github:
        return comment_text(github, options.pull, text, run_url=_run_url(os.environ))


def _event() -> Event:
    """Read the event on standard input.

    :raises ConfigError: if there is none.
    """
    from pytest_pdserve.results.kinds import NIGHTLY_EVENT
    from pytest_pdserve.results.redaction import environment_redactor

    read = sys.stdin.buffer.read(_MAX_EVENT + 1)
    if len(read) > _MAX_EVENT:
        raise ConfigError(f"standard input: more than {_MAX_EVENT // 2**20} MiB, expected an event")
    try:
        data = json.loads(read)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"standard input: expected an event of pdserve nightly as JSON: {error}"
        ) from error
    return environment_redactor().value(NIGHTLY_EVENT.parse(data, "standard input"))


def _repository(options: argparse.Namespace, environment: Mapping[str, str]) -> str:
    repository: str | None = options.repo or environment.get("GITHUB_REPOSITORY")
    if not repository:
        raise ConfigError(
            "the repository is unknown: give --repo OWNER/NAME, or set GITHUB_REPOSITORY"
        )
    return repository


def _token(environment: Mapping[str, str]) -> str:
    token = environment.get("GITHUB_TOKEN", "").strip()
    if not token:
        raise ConfigError(
            "GITHUB_TOKEN is not set: set it to a token of GitHub (there is no option for it: "
            "command lines are visible to all users of a machine)"
        )
    return token


def _run_url(environment: Mapping[str, str]) -> str:
    """Return the page of this workflow run; empty outside of GitHub Actions."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, number = (environment.get(name, "") for name in names)
    return f"{server}/{repository}/actions/runs/{number}" if number.isdecimal() else ""
