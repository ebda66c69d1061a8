"""A stand-in for GitHub's REST API on loopback: it checks what it is sent, and fails as told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl
from urllib.parse import urlsplit

TOKEN = "ghs_standin0123456789standin0123456789"
REPOSITORY = "team/serving"
_ROOT = f"/repos/{REPOSITORY}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request that was understood."""

    method: str
    path: str
    """Below the repository."""
    body: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How a request is answered in place of the right answer."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    done: bool = False
    """Whether what was asked is carried out all the same."""
    silent: bool = False
    """Whether no answer comes until the stand-in ends."""
    matches: Callable[[str, str], bool] = lambda method, path: True
    """Which requests it is for, by method and path."""


class StandIn(ThreadingHTTPServer):
    """Issues, labels, comments and pull requests of one repository."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.issues: list[dict[str, Any]] = []
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.labels: set[str] = set()
        self.pulls: list[dict[str, Any]] = []
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.wrong: list[str] = []
        """What GitHub would not take, or this project must not send."""
        self.drops_labels = False
        self.over = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Every request that changes something, in order."""
        return [(each.method, each.path) for each in self.asked if each.method != "GET"]

    def open_issues(self) -> list[dict[str, Any]]:
        return [issue for issue in self.issues if issue["state"] == "open"]

    def fault(self, method: str, path: str) -> Fault | None:
        """The next fault that is due for a request."""
        for fault in self.faults:
            if fault.matches(method, path):
                self.faults.remove(fault)
                return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Carry out a request; status and value of the answer."""
        match [method, *path.split("/")]:
            case ["GET", "issues"]:
                return 200, self._page(self._listed(query), query)
            case ["POST", "issues"]:
                return 201, self._add_issue(body)
            case ["PATCH", "issues", "comments", number]:
                comment = self._comment(int(number))
                comment["body"] = body["body"]
                return 200, comment
            case ["PATCH", "issues", number]:
                issue = self.issues[int(number) - 1]
                issue.update(body)
                return 200, issue
            case ["GET", "issues", number, "comments"]:
                return 200, self._page(self.comments.get(int(number), []), query)
            case ["POST", "issues", number, "comments"]:
                return 201, self._add_comment(int(number), body)
            case ["GET", "labels", name]:
                return (200, {"name": name}) if name in self.labels else (404, {"message": "no"})
            case ["POST", "labels"]:
                self.labels.add(body["name"])
                return 201, {"name": body["name"]}
            case ["GET", "pulls"]:
                head = query.get("head")
                return 200, [each for each in self.pulls if each["head"] == head]
        self.wrong.append(f"no such path: {method} {path}")
        return 404, {"message": "Not Found"}

    def _listed(self, query: dict[str, str]) -> list[dict[str, Any]]:
        """Issues that a query selects, the newest first, pull requests among them as GitHub has."""
        if query.get("state") != "all":
            self.wrong.append(f"closed issues are not asked for: {query}")
        found = [
            issue
            for issue in self.issues
            if query["labels"] in [label["name"] for label in issue["labels"]]
        ]
        return found[::-1]

    def _page(self, entries: list[Any], query: dict[str, str]) -> list[Any]:
        size, page = int(query.get("per_page", "30")), int(query.get("page", "1"))
        if size > 100:
            self.wrong.append(f"per_page {size}")
        return entries[(page - 1) * size : page * size]

    def _add_issue(self, body: dict[str, Any]) -> dict[str, Any]:
        labels = [] if self.drops_labels else body.get("labels", [])
        issue = {
            "number": len(self.issues) + 1,
            "state": "open",
            "title": body["title"],
            "body": body["body"],
            "labels": [{"name": name} for name in labels],
        }
        self.issues.append(issue)
        return issue

    def _add_comment(self, number: int, body: dict[str, Any]) -> dict[str, Any]:
        count = sum(len(each) for each in self.comments.values())
        comment = {"id": 1000 + count, "body": body["body"]}
        self.comments.setdefault(number, []).append(comment)
        return comment

    def _comment(self, number: int) -> dict[str, Any]:
        found = [each for own in self.comments.values() for each in own if each["id"] == number]
        return found[0]


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def _handle(self) -> None:
        server, parts = self.server, urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        text = self.rfile.read(length).decode()
        with server.lock:
            body = json.loads(text) if text else None
            path = parts.path.removeprefix(_ROOT)
            server.wrong += self._wrong(parts.path, text, body)
            server.asked.append(Asked(method=self.command, path=path, body=body))
            fault = server.fault(self.command, path)
            status, value = 200, None
            if fault is None or fault.done:
                status, value = server.answer(
                    self.command, path, dict(parse_qsl(parts.query)), body
                )
        if fault is not None and fault.silent:
            server.over.wait(60)
            return
        if fault is not None:
            self._reply(fault.status, {"message": "as told"}, fault.headers)
        else:
            self._reply(status, value, {})

    def _wrong(self, path: str, text: str, body: Any) -> Iterator[str]:
        """What GitHub would refuse, and a token anywhere but in its header."""
        expected = {
            "Authorization": f"Bearer {TOKEN}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        for name, value in expected.items():
            if self.headers.get(name) != value:
                yield f"header {name}: {self.headers.get(name)!r}"
        if not self.headers.get("User-Agent"):
            yield "no User-Agent: GitHub refuses such requests"
        if not path.startswith(_ROOT):
            yield f"path {path}"
        if TOKEN in self.path or TOKEN in text:
            yield "the token is in the URL or in the body"
        for key, limit in (("title", 256), ("body", 65_536)):
            if body and not len(body.get(key, "")) <= limit:
                yield f"{key} is too long (maximum is {limit} characters)"

    def _reply(self, status: int, value: Any, headers: dict[str, str]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        for name, each in headers.items():
            self.send_header(name, each)
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def github_stand_in() -> Iterator[StandIn]:
    """Serve until the block is left; then nothing may have been wrong."""
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
    assert server.wrong == []
