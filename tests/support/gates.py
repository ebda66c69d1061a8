"""``pdserve gate`` in this process, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.gate import load_result
from pytest_pdserve.results.gate import load_state
from pytest_pdserve.values.gate import GateResult
from pytest_pdserve.values.gate_state import GateState


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Take back the handlers of signals that the command sets."""
    kept = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for number, handler in kept:
            signal.signal(number, handler)


def run_gate(*words: object) -> int:
    """Run the command; return its exit code."""
    with handlers_kept():
        return main(["gate", *map(str, words)])


def gates(runs: Path) -> list[Path]:
    """Return the folders of all gates, the oldest first."""
    return sorted(path.parent for path in runs.glob("*-gate*/gate-state.json"))


def result_in(folder: Path) -> GateResult:
    """Return the verdict that a gate wrote."""
    found = load_result(folder)
    assert found is not None
    return found


def state_in(folder: Path) -> GateState:
    """Return how far a gate is."""
    return load_state(folder)


def cut_off(folder: Path, starts: int) -> None:
    """Leave a gate as if it had been killed within the start after *starts* others."""
    path = folder / "gate-state.json"
    state: dict[str, Any] = json.loads(path.read_text())
    state["starts"] = state["starts"][:starts]
    path.write_text(json.dumps(state))
    for name in ("gate.json", "gate.md"):
        (folder / name).unlink()
