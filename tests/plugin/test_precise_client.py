"""The client ``precise`` against servers on loopback that do what no server should."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.clients.precise import main
from tests.support.tokenizers import write_tokenizer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKENS, FIRST_S, GAP_S = 4, 0.05, 0.02
Serve = Callable[[socket.socket, int], None]


def http_chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def event(**fields: Any) -> bytes:
    return http_chunk(b"data: " + json.dumps(fields).encode() + b"\n\n")


WORD = event(choices=[{"text": " word"}])
END = event(choices=[], usage={"completion_tokens": TOKENS}) + http_chunk(b"data: [DONE]\n\n")
LAST = END + b"0\r\n\r\n"


def answer(connection: socket.socket, _: int) -> None:
    """A whole answer, with pauses before and between chunks."""
    connection.sendall(HEAD)
    time.sleep(FIRST_S)
    for number in range(TOKENS):
        connection.sendall(WORD)
        if number < TOKENS - 1:
            time.sleep(GAP_S)
    connection.sendall(LAST)


def read_request(connection: socket.socket) -> bool:
    """Read one request; False if the client has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return False
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields[b"Content-Length"]) - len(body)
    while left > 0:
        left -= len(connection.recv(left))
    return True


class Server:
    """Answers the n-th request of all by a function."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._count = iter(range(10_000))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __call__(self, serve: Serve) -> str:
        """Start, and return the URL."""
        threading.Thread(target=self._accept, args=(serve,), daemon=True).start()
        return self.url

    def stop(self) -> None:
        """Take no connection any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, serve: Serve) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection, serve), daemon=True).start()

    def _serve(self, connection: socket.socket, serve: Serve) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while read_request(connection):
                serve(connection, next(self._count))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    made = Server()
    yield made
    made.stop()


def run(url: str, tmp_path: Path, *flags: str, prompts: int = 4, code: int = 0) -> dict[str, Any]:
    write_tokenizer(tmp_path)
    assert main([*arguments(url, tmp_path, prompts=prompts), *flags]) == code
    if code:
        return {}
    found: dict[str, Any] = json.loads((tmp_path / "precise.json").read_text())
    return found


def arguments(url: str, folder: Path, *, prompts: int) -> list[str]:
    words = ["--base-url", url, "--model", str(folder), "--random-input-len", "16"]
    words += ["--random-output-len", str(TOKENS), "--num-prompts", str(prompts)]
    return [*words, "--result-dir", str(folder), "--time-limit", "20"]


def test_times_are_the_servers(server: Server, tmp_path: Path) -> None:
    found = run(server(answer), tmp_path)
    assert (found["completed"], found["failed"], found["total_output_tokens"]) == (4, 0, 16)
    assert found["input_lens"] == [16] * 4
    assert all(ttft >= FIRST_S for ttft in found["ttfts"])
    assert all(gap >= GAP_S * 0.5 for gaps in found["itls"] for gap in gaps)
    assert found["client_clock"] == "kernel"


def test_no_more_requests_are_in_flight_than_asked(server: Server, tmp_path: Path) -> None:
    lock, flying, most = threading.Lock(), [0], [0]

    def serve(connection: socket.socket, number: int) -> None:
        with lock:
            flying[0] += 1
            most[0] = max(most[0], flying[0])
        answer(connection, number)
        with lock:
            flying[0] -= 1

    found = run(server(serve), tmp_path, "--max-concurrency", "2", prompts=6)
    assert found["completed"] == 6
    assert most[0] <= 3  # the server may notice an end after the client
    assert max(found["queue_times"]) >= FIRST_S


def test_requests_arrive_at_the_rate(server: Server, tmp_path: Path) -> None:
    flags = ["--request-rate", "50", "--burstiness", "inf"]
    found = run(server(answer), tmp_path, *flags, prompts=5)
    assert all(at >= 0.02 * (place + 1) for place, at in enumerate(found["start_times"]))


# Servers that fail.


def closes(connection: socket.socket, number: int) -> None:
    connection.sendall(HEAD + WORD)
    connection.shutdown(socket.SHUT_RDWR)


def resets(connection: socket.socket, number: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def sends(content: bytes) -> Serve:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(content)

    return serve


def sends_endlessly(head: bytes, part: bytes) -> Serve:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return serve


def plain(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def streamed(*parts: bytes) -> Serve:
    return sends(HEAD + b"".join(parts) + b"0\r\n\r\n")


DEAD = event(error={"message": "dead"})
DEEP = http_chunk(b"data: " + b'{"a":' * 5000 + b"}" * 5000 + b"\n\n")
FAILING = {
    "closes": (
        closes,
        "the server closed the connection before the answer was complete, after 1 chunks",
    ),
    "resets": (resets, "the connection broke: Connection reset by peer, after 0 chunks"),
    "401": (sends(plain("401 No", b'{"error":"key"}')), 'HTTP 401: {"error":"key"}'),
    "500": (sends(plain("500 Bad", b"")), "HTTP 500: "),
    "500-endless": (
        sends_endlessly(b"HTTP/1.1 500 Bad\r\nConnection: close\r\n\r\n", b"trace" * 9999),
        "HTTP 500: tracetrace",
    ),
    "not-http": (sends(b"220 mail.example.org ESMTP\r\n" * 3), "not an HTTP response: "),
    "upgrade": (
        sends(b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        "HTTP 101: ",
    ),
    "endless-head": (
        sends_endlessly(b"HTTP/1.1 200 OK\r\n", b"X-Word: 0123456789\r\n" * 999),
        "the answer exceeds 1081344 bytes, the maximum for its tokens, after 0 chunks",
    ),
    "not-json": (
        streamed(http_chunk(b"data: not json\n\n")),
        "streamed b'not json', which is not an event of a completion",
    ),
    "deep-json": (streamed(DEEP), 'streamed b\'{"a":{"a":'),
    "long-chunk": (
        sends(HEAD + http_chunk(b"data: " + b"x" * 10_000_000)),
        "streamed an event of more than 1048576 bytes",
    ),
    "endless-stream": (
        sends_endlessly(HEAD, WORD * 999),
        "the answer exceeds 1081344 bytes, the maximum for its tokens, after ",
    ),
    "error-in-the-middle": (
        streamed(WORD, DEAD, WORD, END),
        "error in the stream: dead",
    ),
    "error-at-the-end": (streamed(WORD * TOKENS, DEAD), "error in the stream: dead"),
    "no-event": (streamed(), "the answer has no chunk"),
}


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(("serve", "why"), FAILING.values(), ids=FAILING)
def test_a_server_that_fails_every_other_request_is_told(
    serve: Serve, why: str, server: Server, tmp_path: Path
) -> None:
    def every_other(connection: socket.socket, number: int) -> None:
        (answer if number % 2 else serve)(connection, number)

    found = run(server(every_other), tmp_path)
    assert (found["completed"], found["failed"]) == (2, 2)
    assert [error for error in found["errors"] if not error.startswith(why)] == ["", ""]


def test_an_endless_answer_takes_no_endless_memory(server: Server, tmp_path: Path) -> None:
    serve = sends_endlessly(HEAD, http_chunk(b"data: " + b"x" * 10_000_000))
    tracemalloc.start()
    try:
        found = run(server(serve), tmp_path, prompts=1)
        # What the server itself sends is in this process too: twice 10 MB.
        assert tracemalloc.get_traced_memory()[1] < 32_000_000
    finally:
        tracemalloc.stop()
    assert found["failed"] == 1


def test_requests_without_an_answer_fail_at_the_time_limit(server: Server, tmp_path: Path) -> None:
    silent = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        if number % 2:
            answer(connection, number)
        else:
            connection.sendall(HEAD + WORD)
            silent.wait(30)

    flags = ["--time-limit", "0.6", "--max-concurrency", "2"]
    found = run(server(serve), tmp_path, *flags, prompts=9)
    silent.set()
    assert found["completed"] > 0
    assert {error for error in found["errors"] if error} == {
        "no complete answer within the time limit of 0.6 s, after 1 chunks",
        "not sent within the time limit of 0.6 s",
    }


def test_a_server_that_dies_fails_what_is_in_flight_and_what_follows(
    server: Server, tmp_path: Path
) -> None:
    dying = threading.Lock()

    def serve(connection: socket.socket, number: int) -> None:
        if number < 2:
            answer(connection, number)
            return
        with dying:  # both that are in flight: none is closed while another is still taken
            server.stop()
        closes(connection, number)

    found = run(server(serve), tmp_path, "--max-concurrency", "2", prompts=8)
    assert (found["completed"], found["failed"]) == (2, 6)
    assert set(found["errors"][4:]) == {
        "the server cannot be reached: Connection refused, after 0 chunks"
    }


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM], ids=lambda told: told.name)
def test_a_client_that_is_told_to_end_ends_and_leaves_nothing(
    told: signal.Signals, server: Server, tmp_path: Path
) -> None:
    asked, over = threading.Event(), threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        asked.set()
        over.wait(30)

    write_tokenizer(tmp_path)
    command = [sys.executable, "-m", "pytest_pdserve.clients.precise"]
    with subprocess.Popen(
        [*command, *arguments(server(serve), tmp_path, prompts=2)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as client:
        assert asked.wait(30)
        client.send_signal(told)
        said, _ = client.communicate(timeout=30)
    over.set()
    assert (client.returncode, said) == (-told, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


# Servers that do what few do, and are right.


def continues(connection: socket.socket, number: int) -> None:
    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    answer(connection, number)


def ends_by_closing(connection: socket.socket, number: int) -> None:
    word = b'data: {"choices": [{"text": " word"}]}\n\n'
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + word * 2 + b"data: [DONE]\n\n")
    connection.shutdown(socket.SHUT_RDWR)


def comments(connection: socket.socket, number: int) -> None:
    word = b': ping\r\nevent: word\r\ndata: {"choices": [{"text": " word"}]}\r\n\r\n'
    streamed(http_chunk(b": ping\n\n"), http_chunk(word * 2), END)(connection, number)


def says_more(connection: socket.socket, number: int) -> None:
    connection.sendall(HEAD + WORD * 2 + LAST + b"HTTP/1.1 408 Bye\r\n\r\n")


@pytest.mark.parametrize("serve", [continues, ends_by_closing, comments, says_more])
def test_an_unusual_answer_is_an_answer(serve: Serve, server: Server, tmp_path: Path) -> None:
    found = run(server(serve), tmp_path, "--max-concurrency", "1", prompts=2)
    assert (found["completed"], found["errors"]) == (2, ["", ""])


def test_a_connection_that_the_server_closed_meanwhile_is_opened_anew(
    server: Server, tmp_path: Path
) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        answer(connection, number)
        connection.shutdown(socket.SHUT_RDWR)

    flags = ["--max-concurrency", "1", "--request-rate", "5", "--burstiness", "inf"]
    found = run(server(serve), tmp_path, *flags, prompts=3)
    assert (found["completed"], found["errors"]) == (3, ["", "", ""])


def test_a_server_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    run(url, tmp_path, code=1)
    assert capsys.readouterr().err == f"precise: {url} cannot be reached: Connection refused\n"
