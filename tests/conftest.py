"""A house of stub engines for each test that asks for one, and the order of long tests."""

from __future__ import annotations

import gc
import io
import json
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.house import CONFIG
from tests.support.house import MARK
from tests.support.house import STUBS
from tests.support.house import House
from tests.support.house import write_program

settings.register_profile("short", max_examples=20, deadline=None)
settings.register_profile("all", max_examples=400, deadline=None)
settings.load_profile("short")


def pytest_configure() -> None:
    """Undo what a shell does to jobs in the background: they and theirs would ignore SIGINT.

    Nothing of what is collected is garbage: it is not searched until all is there.
    """
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark slow cases; side by side, chains of one worker are first, and the rest is mixed.

    Tests that compute stand among tests that wait.
    """
    cases: Counter[str] = Counter()
    for item in items:
        if (quick := item.get_closest_marker("quick_cases")) is not None:
            name = item.nodeid.partition("[")[0]
            cases[name] += 1
            if cases[name] > quick.args[0]:
                item.add_marker("slow")
    if not hasattr(config, "workerinput"):
        return
    folders = Counter(item.path.parent for item in items)
    seen: Counter[Path] = Counter()

    def place(item: pytest.Item) -> tuple[bool, float]:
        seen[item.path.parent] += 1
        share = seen[item.path.parent] / folders[item.path.parent]
        return item.get_closest_marker("xdist_group") is None, share

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Keep what is loaded by now out of every later search for garbage.

    Each pytest that runs in this process searches for it five times at its end, in all that is
    there: 113 such runs took 53 s, and 20 s with this (two cores, 2026-11-28).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session")
def loaded() -> None:
    """Import what runs in this process use; pytester unloads the rest, and some load only once."""
    import httpcore  # noqa: F401
    import pandas as pd

    import pytest_pdserve.plugin.checks  # noqa: F401
    from pytest_pdserve.backends.registry import OWN
    from pytest_pdserve.backends.registry import find_backend

    for name in OWN:
        find_backend(name)
    pd.DataFrame({"a": [1]}).to_parquet(io.BytesIO())
    gc.freeze()


@pytest.fixture
def house(
    loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """A project with a system ``stub``; nothing of it may run on when the test is over."""
    mark = uuid.uuid4().hex
    for name, value in {
        MARK: mark,
        "XDG_STATE_HOME": str(pytester.path / "state"),
        "XDG_CACHE_HOME": str(pytester.path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    keys = ("PDSERVE_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY")
    # pytest-benchmark measures nothing in what it takes for a worker of xdist.
    for name in ("PDSTUB_FAULTS", "PYTEST_XDIST_WORKER", *keys):
        monkeypatch.delenv(name, raising=False)
    (pytester.path / "model").mkdir()
    (pytester.path / "model" / "config.json").write_text(json.dumps(CONFIG))
    made = House(pytester=pytester, monkeypatch=monkeypatch, mark=mark)
    made.ini()
    for program in ("vllm", "router"):
        made.programs[program] = str(write_program(pytester.path, STUBS / f"{program}_stub.py"))
    made.system()
    yield made
    left = made.survivors(5.0)
    for process in made.processes():
        process.kill()
    assert left == []
