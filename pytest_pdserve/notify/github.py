"""GitHub's REST API for one repository: bounded in time and tries, and no answer is trusted."""

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

from pytest_pdserve.serving.answers import Answered
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PdserveError

T = TypeVar("T")

API_VERSION = "2022-11-28"
"""Of the REST API; GitHub keeps a version for two years at least after the next one."""
LIMIT_S = 45.0
"""Seconds that everything asked through one :class:`GitHub` may take, with all waiting; `pdserve
nightly` ends a notifier after 60."""
ANSWER_S = 15.0
"""Seconds until an answer must have ended."""
MAX_TRIES = 4
"""Of one request."""
_MAX_PAGES = 50
_PAGE = 100
"""Entries of a page, GitHub's largest."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_TOKEN = re.compile(r"[!-~]+")
_LATER = "run the command again later: what was done already is found, not done twice"


class GitHubError(PdserveError):
    """Raised when GitHub does not do what it was asked."""


class _TryAgainError(Exception):
    """A request failed in a way that may pass."""

    def __init__(self, why: str, *, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        """Seconds to wait, as GitHub asks; None if it did not say."""


def as_kind(kind: type[T], value: Any) -> T:
    """Return a *kind* of an answer's value; what a *kind* does not have is left out.

    :raises GitHubError: if the value is of another kind.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise GitHubError(
            f"GitHub's answer is no {kind.__name__}: {error}; check --api and proxies"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """What tells the time and waits."""

    clock: Callable[[], float] = time.monotonic
    """Seconds of a clock that never goes back."""
    now: Callable[[], float] = time.time
    """Seconds since 1970: GitHub names the end of a rate limit so."""
    sleep: Callable[[float], None] = time.sleep


class GitHub:
    """One repository of GitHub."""

    def __init__(self, client: httpx.Client, *, api: str, repository: str, timer: Timer) -> None:
        self._client = client
        self._api = api
        self._timer = timer
        self._end = timer.clock() + LIMIT_S
        self.repository = repository
        """``OWNER/NAME``."""

    def all(self, path: str, **query: str) -> Iterator[Any]:
        """Yield the entries of a list, page by page.

        :param path: below the repository, e.g. ``issues``.
        :raises GitHubError: if it cannot be read.
        """
        for page in range(1, _MAX_PAGES + 1):
            entries = self.ask("GET", path, query={**query, "per_page": _PAGE, "page": page})
            if not isinstance(entries, list):
                raise GitHubError(f"{self._url(path)} answered with no list; check --api")
            yield from entries
            if len(entries) < _PAGE:
                return
        raise GitHubError(
            f"{self._url(path)} has more than {_MAX_PAGES * _PAGE} entries; remove the label from "
            "old issues"
        )

    def ask(
        self,
        method: str,
        path: str,
        data: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        missing: Any = None,
        done: Callable[[], Any] = lambda: None,
    ) -> Any:
        """Send a request, again where that may help, and return the value of its answer.

        :param missing: returned for HTTP 404; None makes it an error.
        :param done: called before a request is sent again; what it returns, if not None, is the
            answer: a request that seemed to fail may have been carried out.
        :raises GitHubError: if the request is refused, or all tries fail.
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

        :raises GitHubError: if there is none, or no time for it.
        """
        if attempt == MAX_TRIES:
            raise GitHubError(f"{error} ({MAX_TRIES} tries); {_LATER}") from error
        wait_s = 2.0 ** (attempt - 1) if error.wait_s is None else error.wait_s
        if self._timer.clock() + wait_s >= self._end:
            raise GitHubError(
                f"{error}; the next try is due in {math.ceil(wait_s)} s, and all requests together "
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
                f"as the token is for {self._api} only; give --repo the repository's name of today"
            ) from error
        if answer.status == httpx.codes.NOT_FOUND and missing is not None:
            return missing
        self._check(answer, self._url(path))
        try:
            return answer.json() if answer.body else {}
        except AnswerError as error:
            raise GitHubError(f"{error}; check --api") from error

    def _check(self, answer: Answered, url: str) -> None:
        """Refuse an answer that is not a success.

        :raises _TryAgainError: if another try may help.
        :raises GitHubError: if none does.
        """
        if httpx.codes.is_success(answer.status):
            return
        said = f"{url} {answer.said}"
        if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise _TryAgainError(said)
        if answer.status == httpx.codes.TOO_MANY_REQUESTS or _is_limit(answer):
            raise _TryAgainError(said, wait_s=self._asked_wait_s(answer))
        advice = _ADVICE.get(answer.status, "this request is refused for good")
        raise GitHubError(f"{said}; {advice}")

    def _asked_wait_s(self, answer: Answered) -> float | None:
        """Return how long GitHub asks to wait, in seconds; None if it does not say."""
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


def _is_limit(answer: Answered) -> bool:
    """Tell whether a 403 is a rate limit: GitHub's own way to say it."""
    headers = answer.headers
    limited = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    return answer.status == httpx.codes.FORBIDDEN and limited


@contextmanager
def connected(
    *, api: str, repository: str, token: str, timer: Timer | None = None
) -> Iterator[GitHub]:
    """Open a client of GitHub until the block is left.

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
        raise ConfigError("GITHUB_TOKEN is no token: expected printable ASCII without spaces")
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "User-Agent": "pytest-pdserve",
        "X-GitHub-Api-Version": API_VERSION,
    }
    with httpx.Client(headers=headers) as client:
        yield GitHub(client, api=api, repository=repository, timer=timer or Timer())
