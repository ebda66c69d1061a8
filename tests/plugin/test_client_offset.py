"""Servers of known timing, and the client ``precise`` held against each."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.clients.precise import main
from pytest_pdserve.study import client_offset
from pytest_pdserve.study.client_offset import FIRST_MS
from pytest_pdserve.study.client_offset import GAP_MS
from pytest_pdserve.study.client_offset import ServerKind
from pytest_pdserve.study.client_offset import TimedLoad
from pytest_pdserve.study.client_offset import measure_offsets
from pytest_pdserve.study.client_offset import timed_server
from pytest_pdserve.values.errors import ConfigError
from tests.support.tokenizers import write_tokenizer

COMPILER = shutil.which("gcc") or shutil.which("cc")
no_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
KINDS = [pytest.param("compiled", marks=no_compiler), "asyncio"]


CHAT = ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]


@pytest.mark.slow
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("kind", KINDS)
def test_the_client_reports_what_the_server_says_is_true(kind: ServerKind, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)

    def precise(load: TimedLoad) -> Mapping[str, Any]:
        words = ["--base-url", load.base_url, "--model", str(tmp_path), "--ignore-eos"]
        words += ["--num-prompts", str(load.requests), "--random-input-len", "32"]
        words += ["--random-output-len", str(load.output_tokens), "--result-dir", str(tmp_path)]
        assert main([*words, *(CHAT if load.requests == 3 else [])]) == 0
        found: dict[str, Any] = json.loads((tmp_path / "precise.json").read_text())
        return found

    with timed_server(tmp_path, kind=kind) as server:
        completions, chat = measure_offsets(precise, server, streams=[4, 3])
    assert (completions.streams, completions.reached, completions.answered) == (4, 4, 4)
    for found in (completions, chat):
        assert found.true["mean_ttft_ms"] >= FIRST_MS
        assert found.true["mean_itl_ms"] == pytest.approx(GAP_MS, rel=0.2)
        # Its times are the kernel's: what a busy machine adds is small.
        assert found.reported == pytest.approx(found.true, rel=0.1)


def test_without_a_compiler_the_server_is_the_asyncio_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with timed_server(tmp_path) as server:
        assert server.kind == "asyncio"
        assert len(server.truth()) == 0
    with (
        pytest.raises(ConfigError, match="no C compiler"),
        timed_server(tmp_path, kind="compiled"),
    ):
        pass


@no_compiler
def test_the_compiled_server_forgets_a_client_that_left(tmp_path: Path) -> None:
    """What was due on a connection is not sent on the next one of that number."""
    request = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    with timed_server(tmp_path, kind="compiled") as server:
        server.truth()
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(request)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(request)
            connection.recv(1)
            arrival, first, *_ = server.truth()[-1]
    assert (first - arrival) / 1e6 >= FIRST_MS


@no_compiler
def test_a_server_that_cannot_be_built_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("int main(void) { return")
    monkeypatch.setattr(client_offset, "SOURCE", broken)
    with (
        pytest.raises(ConfigError, match=r"broken\.c cannot be built with"),
        timed_server(tmp_path, kind="compiled"),
    ):
        pass
