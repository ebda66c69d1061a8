"""Shared by all tests: pytester, and a guard that keeps unit tests pure."""

from __future__ import annotations

import functools
import re
import socket
import subprocess
from pathlib import Path
from typing import Any
from typing import NoReturn

import pytest

pytest_plugins = ["pytester"]
UNIT = Path(__file__).parent / "tests" / "unit"  # pytest's root may be elsewhere: --rootdir


@pytest.fixture(autouse=True)
def no_effects(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid processes and sockets in ``tests/unit``."""
    if not request.path.is_relative_to(UNIT):
        return

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("tests/unit starts no process and opens no socket")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that keeps tests of an ``xdist_group`` in one worker.

    xdist 3.8 writes the group into node ids, which has no effect since pytest 9.2 (pytest-xdist
    issue 1386).
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            group = _group_of(config.rootpath / nodeid.partition("::")[0])
            return group or nodeid

    return ByFile(config, log)


@functools.cache
def _group_of(path: Path) -> str | None:
    if not path.is_file():  # a test outside of the root
        return None
    match = re.search(r'xdist_group\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    return match[1] if match else None
