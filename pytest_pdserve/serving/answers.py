"""HTTP requests whose responses are read within limits of time and size."""

from __future__ import annotations

import json
import queue
import ssl
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import TypeVar

import httpx

from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.values.errors import PathError

T = TypeVar("T")

_SHOWN = 300
"""Characters of a response that a message shows."""
_MIB = 2**20


class AnswerError(PathError):
    """Raised when a server does not respond, or its response cannot be used."""

    def __init__(self, url: str, why: str, *, status: int | None = None) -> None:
        super().__init__(f"{url} {why}")
        self.why = why
        """What the URL did, as the end of a sentence, e.g. ``answered 404 Not Found``."""
        self.status = status
        """HTTP status; None if no response arrived."""


class RefusedError(AnswerError):
    """Raised when the server rejects the request (HTTP 4xx)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLimits:
    """Largest duration and size of a response."""

    time_s: float
    """Seconds from sending the request to the last byte."""
    size_mib: int = 4
    """Size of the whole body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response that was read to its end."""

    url: str
    status: int
    reason: str
    """Reason phrase; empty if the server sent none."""
    body: bytes
    excerpt: str
    """Beginning of the body as one printable line, without the API key."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Values by lower-case name."""

    @property
    def text(self) -> str:
        """Body decoded as UTF-8; invalid bytes are replaced."""
        return self.body.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """Lines of the body, as server-sent events define them: U+2028 does not end a line."""
        return self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    @property
    def outcome(self) -> str:
        """End of a sentence about the response: ``answered 404 Not Found: no such page``."""
        status = f"answered {self.status} {self.reason}".rstrip()
        return f"{status}: {self.excerpt}" if self.excerpt else status

    def checked(self) -> Response:
        """Return this response if its status is 2xx.

        :raises RefusedError: if it is 4xx.
        :raises AnswerError: if it is another.
        """
        if httpx.codes.is_success(self.status):
            return self
        kind = RefusedError if httpx.codes.is_client_error(self.status) else AnswerError
        raise kind(self.url, self.outcome, status=self.status)

    def json(self) -> Any:
        """Return the JSON value of the body.

        :raises AnswerError: if it is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise AnswerError(self.url, f"{self.outcome}; expected JSON") from error


def read_answer(
    client: httpx.Client,
    method: str,
    url: str,
    *,
    limits: AnswerLimits,
    data: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Send a request and return its response, whatever its status.

    Redirects are not followed, since they would send the API key to another host. Compressed
    responses are rejected, since their size is not known beforehand.

    :param limits: of the response.
    :param data: sent as JSON.

    :raises AnswerError: if the server cannot be reached, closes the connection, redirects,
        compresses, or exceeds *limits*.
    """
    try:
        return _within(
            limits.time_s, lambda: _read(client, method, url, limits, data=data, headers=headers)
        )
    except (httpx.TimeoutException, TimeoutError) as error:
        raise AnswerError(url, f"did not answer within {limits.time_s:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise AnswerError(url, _trouble(error)) from error


def printable(text: str) -> str:
    """Return the beginning of a server's *text* as one line without control characters.

    Secrets are removed before it is cut.
    """
    redacted = environment_redactor().text(text)
    shown = "".join(char if char.isprintable() else " " for char in redacted[: 4 * _SHOWN])
    return " ".join(shown.split())[:_SHOWN]


def _within(limit_s: float, work: Callable[[], T]) -> T:
    """Return the result of *work*, or raise its exception.

    It runs in a thread, because resolving a name and reading headers that arrive byte by byte have
    no time-out in httpx.

    :raises TimeoutError: after *limit_s*; the thread goes on in the background.
    """
    done: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except Exception as error:  # raised again below
            done.put((None, error))

    threading.Thread(target=run, name="pdserve answer", daemon=True).start()
    try:
        result, error = done.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None only if work returns it


def _read(
    client: httpx.Client,
    method: str,
    url: str,
    limits: AnswerLimits,
    *,
    data: Any,
    headers: Mapping[str, str] | None,
) -> Response:
    deadline = time.monotonic() + limits.time_s
    body = bytearray()
    with client.stream(
        method,
        url,
        json=data,
        headers={"Accept-Encoding": "identity", **(headers or {})},
        timeout=limits.time_s,
        follow_redirects=False,
    ) as response:
        _check_headers(url, response)
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > limits.size_mib * _MIB:
                raise AnswerError(url, f"answered with more than {limits.size_mib} MiB")
            if time.monotonic() > deadline:
                raise TimeoutError
    return Response(
        url=url,
        status=response.status_code,
        reason=printable(response.reason_phrase),
        body=bytes(body),
        excerpt=_excerpt(bytes(body[: 8 * _SHOWN]), client),
        headers=dict(response.headers),
    )


def _check_headers(url: str, response: httpx.Response) -> None:
    """Reject redirects and compressed responses.

    :raises AnswerError: if *response* is a redirect or compressed.
    """
    if response.has_redirect_location:
        target = printable(response.headers["Location"])
        raise AnswerError(
            url,
            f"answered {response.status_code} with a redirect to {target}; redirects are not "
            "followed, name the endpoint's own URL",
            status=response.status_code,
        )
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise AnswerError(
            url, f"answered compressed ({printable(encoding)}), which was not asked for"
        )


def _excerpt(body: bytes, client: httpx.Client) -> str:
    text = body.decode(errors="replace")
    key = client.headers.get("Authorization", "").removeprefix("Bearer ")
    return printable(text.replace(key, "<API key>") if key else text)


def _trouble(error: Exception) -> str:
    """Return the end of a sentence: why there was no response, and what to do if that is known."""
    text = printable(str(error)) or type(error).__name__
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return (
            f"has a certificate that is not trusted: {text}; name the file of its authority in "
            "SSL_CERT_FILE"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"does not speak TLS as asked: {text}; try http:// in place of https://"
    if isinstance(error, httpx.ConnectError):
        return f"cannot be reached: {text}"
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | UnicodeError):
        return f"cannot be asked: {text}"
    return f"broke off its answer: {text}"
