"""Shared by all tests: pytester, and a guard that keeps unit tests pure."""

from __future__ import annotations

import socket
import subprocess
from typing import Any
from typing import NoReturn

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def no_effects(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid processes and sockets in ``tests/unit``."""
    if "unit" not in request.path.relative_to(request.config.rootpath).parts:
        return

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("tests/unit starts no process and opens no socket")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
