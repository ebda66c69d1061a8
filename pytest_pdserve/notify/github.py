"""A client of GitHub's REST API for one repository, with limits on time, tries and answers."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import Response
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PdserveError

T = TypeVar("T")

API_VERSION = "2022-11-28"
"""Version of the REST API; GitHub supports a version for at least two years after the next."""
LIMIT_S = 45.0
"""Maximum seconds for all requests of one :class:`GitHub`, with waiting; `pdserve nightly` ends a
notifier after 60."""
ANSWER_S = 15.0
"""Maximum seconds for one answer."""
MAX_TRIES = 4
"""Maximum tries of one request."""
_MAX_PAGES = 50
_PAGE = 100
"""Entries per page, GitHub's maximum."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_TOKEN = re.compile(r"[!-~]+")
_LATER = "run the command again later: steps that are done are not repeated"


class GitHubError(PdserveError):
    """Raised when a request to GitHub fails."""


class _TryAgainError(Exception):
    """Raised when a request failed, but another try may succeed."""

    def __init__(self, why: str, *, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        """Seconds to wait, as GitHub requests; None if it did not."""


def convert_answer(kind: type[T], value: Any) -> T:
    """Convert an answer's value to *kind*, ignoring unknown fields.

    :raises GitHubError: if the value does not fit.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise GitHubError(
            f"GitHub's answer is not a {kind.__name__}: {error}; check --api and proxies"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """Clocks and sleep."""

    clock: Callable[[], float] = time.monotonic
    """Seconds of a monotonic clock."""
    now: Callable[[], float] = time.time
    """Seconds since 1970, as GitHub reports the end of a rate limit."""
    sleep: Callable[[float], None] = time.sleep


class GitHub:
    """A client of one GitHub repository."""

    def __init__(self, client: httpx.Client, *, api: str, repository: str, timer: Timer) -> None:
        self._client = client
        self._api = api
        self._timer = timer
        self._end = timer.clock() + LIMIT_S
        self.repository = repository
        """``OWNER/NAME``."""

    def list_all(self, path: str, **query: str) -> Iterator[Any]:
        """Yield the entries of a list, page by page.

        :param path: path below the repository, e.g. ``issues``.
        :raises GitHubError: if it cannot be read.
        """
        for page in range(1, _MAX_PAGES + 1):
            entries = self.request("GET", path, query={**query, "per_page": _PAGE, "page": page})
            if not isinstance(entries, list):
                raise GitHubError(f"{self._url(path)} did not answer with a list; check --api")
            yield from entries
            if len(entries) < _PAGE:
                return
        raise GitHubError(
            f"{self._url(path)} has more than {_MAX_PAGES * _PAGE} entries; remove the label from "
            "old issues"
        )

    def request(
        self,
        method: str,
        path: str,
        data: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        missing: Any = None,
        done: Callable[[], Any] = lambda: None,
    ) -> Any:
        """Send a request, with retries; return the value of the answer.

        :param missing: value to return for HTTP 404; None raises an error.
        :param done: called before a retry; if its value is not None, it is returned instead: a
            request that seemed to fail may have succeeded.
        :raises GitHubError: if the request is rejected, or all tries fail.
        """
        for attempt in range(1, MAX_TRIES + 1):
            if attempt > 1 and (found := done()) is not None:
                return found
            try:
                return self._once(method, path, data, query, missing)
            except _TryAgainError as error:
                self._wait(error, attempt)
        raise AssertionError("_wait raises after the last try")

    def _wait(self, error: _TryAgainError, attempt: int) -> None:
        """Wait before the next try.

        :raises GitHubError: if there are no tries or no time left.
        """
        if attempt == MAX_TRIES:
            raise GitHubError(f"{error} ({MAX_TRIES} tries); {_LATER}") from error
        wait_s = 2.0 ** (attempt - 1) if error.wait_s is None else error.wait_s
        if self._timer.clock() + wait_s >= self._end:
            raise GitHubError(
                f"{error}; the next try is due in {math.ceil(wait_s)} s, but all requests together "
                f"may take {LIMIT_S:g} s; {_LATER}"
            ) from error
        self._timer.sleep(wait_s)

    def _once(
        self,
        method: str,
        path: str,
        data: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
        missing: Any,
    ) -> Any:
        """Send a request once.

        :raises _TryAgainError: if another try may help.
        :raises GitHubError: if none does.
        """
        url = str(httpx.URL(self._url(path), params=query)) if query else self._url(path)
        left_s = self._end - self._timer.clock()
        limits = AnswerLimits(time_s=round(max(0.1, min(ANSWER_S, left_s)), 1), size_mib=16)
        try:
            answer = read_answer(self._client, method, url, limits=limits, data=data)
        except AnswerError as error:
            if error.status is None:
                raise _TryAgainError(f"{self._url(path)} {error.why}") from error
            raise GitHubError(
                f"{self._url(path)} answered {error.status} with a redirect, which is not followed "
                f"as the token is for {self._api} only; give the repository's current name "
                "with --repo"
            ) from error
        if answer.status == httpx.codes.NOT_FOUND and missing is not None:
            return missing
        self._check(answer, self._url(path))
        try:
            return answer.json() if answer.body else {}
        except AnswerError as error:
            raise GitHubError(f"{error}; check --api") from error

    def _check(self, answer: Response, url: str) -> None:
        """Raise if an answer is not a success.

        :raises _TryAgainError: if another try may help.
        :raises GitHubError: if none does.
        """
        if httpx.codes.is_success(answer.status):
            return
        message = f"{url} {answer.outcome}"
        if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise _TryAgainError(message)
        if answer.status == httpx.codes.TOO_MANY_REQUESTS or _is_limit(answer):
            raise _TryAgainError(message, wait_s=self._retry_after_s(answer))
        advice = _ADVICE.get(answer.status, "do not retry this request")
        raise GitHubError(f"{message}; {advice}")

    def _retry_after_s(self, answer: Response) -> float | None:
        """Return the seconds to wait that GitHub requests; None if it does not."""
        after, reset = answer.headers.get("retry-after"), answer.headers.get("x-ratelimit-reset")
        if after is not None and after.isdecimal():
            return float(after)
        if answer.headers.get("x-ratelimit-remaining") == "0" and reset and reset.isdecimal():
            return max(1.0, float(reset) - self._timer.now())
        return None

    def _url(self, path: str) -> str:
        return f"{self._api}/repos/{self.repository}/{path}"


_ADVICE = {
    401: "the token in GITHUB_TOKEN is invalid or has expired: set a new one",
    403: "the token in GITHUB_TOKEN may not do this: docs/github.md lists the permissions",
    404: "there is no such repository, or the token in GITHUB_TOKEN may not read it",
    410: "issues are switched off in the settings of the repository",
}


def _is_limit(answer: Response) -> bool:
    """Tell whether a 403 is a rate limit."""
    headers = answer.headers
    limited = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    return answer.status == httpx.codes.FORBIDDEN and limited


@contextmanager
def connected(
    *, api: str, repository: str, token: str, timer: Timer | None = None
) -> Iterator[GitHub]:
    """Open a client of GitHub while the context is open.

    :param api: URL of the REST API, e.g. of GitHub Enterprise Server.
    :param repository: ``OWNER/NAME``.
    :param token: sent with every request to *api*, and to nothing else.
    :raises ConfigError: if one of them is malformed.
    """
    api = api.rstrip("/")
    parts = urlsplit(api)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ConfigError(f"--api {api!r}: expected an https:// URL, since a token is sent to it")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError("--api: expected a URL without user, password, query and fragment")
    if not _NAME.fullmatch(repository) or ".." in repository.split("/"):
        raise ConfigError(f"--repo {repository!r}: expected OWNER/NAME")
    if not _TOKEN.fullmatch(token):
        raise ConfigError("GITHUB_TOKEN is not a token: expected printable ASCII without spaces")
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "User-Agent": "pytest-pdserve",
        "X-GitHub-Api-Version": API_VERSION,
    }
    with httpx.Client(headers=headers) as client:
        yield GitHub(client, api=api, repository=repository, timer=timer or Timer())
