"""The client ``precise`` against servers on loopback that do what no server should."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.clients.precise import main

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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Serve], str]]:
    """Start a server that answers the n-th request of all by a function; returns its URL."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    listener = socket.create_server(("127.0.0.1", 0))
    count = iter(range(10_000))

    def serve_connection(connection: socket.socket, serve: Serve) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while read_request(connection):
                serve(connection, next(count))

    def accept(serve: Serve) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(
                    target=serve_connection, args=(connection, serve), daemon=True
                ).start()

    def start(serve: Serve) -> str:
        threading.Thread(target=accept, args=(serve,), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def run(url: str, tmp_path: Path, *flags: str, prompts: int = 4, code: int = 0) -> dict[str, Any]:
    tokenizer(tmp_path)
    arguments = ["--base-url", url, "--model", str(tmp_path), "--random-input-len", "16"]
    arguments += ["--random-output-len", str(TOKENS), "--num-prompts", str(prompts)]
    assert main([*arguments, *flags, "--result-dir", str(tmp_path)]) == code
    if code:
        return {}
    found: dict[str, Any] = json.loads((tmp_path / "precise.json").read_text())
    return found


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({f"w{n}": n for n in range(100)} | {"?": 100}, unk_token="?"))
    made.pre_tokenizer = Whitespace()
    made.save(str(folder / "tokenizer.json"))


def test_times_are_the_servers(server: Callable[[Serve], str], tmp_path: Path) -> None:
    found = run(server(answer), tmp_path)
    assert (found["completed"], found["failed"], found["total_output_tokens"]) == (4, 0, 16)
    assert found["input_lens"] == [16] * 4
    assert all(ttft >= FIRST_S for ttft in found["ttfts"])
    assert all(gap >= GAP_S * 0.5 for gaps in found["itls"] for gap in gaps)
    assert found["client_clock"] == "kernel"


def test_no_more_requests_are_in_flight_than_asked(
    server: Callable[[Serve], str], tmp_path: Path
) -> None:
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


def test_requests_arrive_at_the_rate(server: Callable[[Serve], str], tmp_path: Path) -> None:
    flags = ["--request-rate", "50", "--burstiness", "inf"]
    found = run(server(answer), tmp_path, *flags, prompts=5)
    gaps = [b - a for a, b in zip(found["start_times"], found["start_times"][1:], strict=False)]
    assert all(gap >= 0.015 for gap in gaps)


def closes(connection: socket.socket, number: int) -> None:
    connection.sendall(HEAD + WORD)
    connection.shutdown(socket.SHUT_RDWR)


def resets(connection: socket.socket, number: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def refuses(connection: socket.socket, number: int) -> None:
    connection.sendall(b'HTTP/1.1 429 Slow\r\nContent-Length: 15\r\n\r\n{"error":"full"}'[:-1])


def talks_garbage(connection: socket.socket, number: int) -> None:
    connection.sendall(b"220 mail.example.org ESMTP\r\n" * 3)


def streams_garbage(connection: socket.socket, number: int) -> None:
    connection.sendall(HEAD + http_chunk(b"data: not json\n\n") + b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        (closes, "the server closed the connection before the answer was complete, after 1 chunks"),
        (resets, "the connection broke: Connection reset by peer, after 0 chunks"),
        (refuses, 'HTTP 429: {"error":"full"'),
        (talks_garbage, "no HTTP: "),
        (streams_garbage, "streamed b'not json', which is not an event of a completion"),
    ],
)
def test_a_server_that_fails_every_other_request_is_told(
    serve: Serve, why: str, server: Callable[[Serve], str], tmp_path: Path
) -> None:
    def every_other(connection: socket.socket, number: int) -> None:
        (answer if number % 2 else serve)(connection, number)

    found = run(server(every_other), tmp_path)
    assert (found["completed"], found["failed"]) == (2, 2)
    assert all(error.startswith(why) for error in found["errors"] if error)


def test_a_connection_that_the_server_closed_meanwhile_is_opened_anew(
    server: Callable[[Serve], str], tmp_path: Path
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
