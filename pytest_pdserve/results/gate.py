"""Files of upgrade gates: state, records, result; and policy files."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from pathlib import Path

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import load_toml
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import GATE
from pytest_pdserve.results.kinds import GATE_POLICY
from pytest_pdserve.results.kinds import GATE_STATE
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.store import RUNS
from pytest_pdserve.results.store import load_own_record
from pytest_pdserve.results.store import new_run_id
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.gate import GatePolicy
from pytest_pdserve.values.gate import GateResult
from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.gate_state import GateState
from pytest_pdserve.values.record import Record

STATE_FILE = "gate-state.json"
RESULT_FILE = "gate.json"
TEXT_FILE = "gate.md"


def create_gate(runs: Path, system: str) -> Path:
    """Make the folder of a new gate, e.g. ``runs/20261128T101500-p5-efa-gate``.

    It is not a session: its runs are not compared with nights.

    :raises StoreError: if it cannot be made.
    """
    name = new_run_id(f"{system}-gate", datetime.now(UTC))
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = runs / f"{name}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
        return folder
    raise StoreError(f"{runs / name} and 98 more of the same second exist already")


def write_state(folder: Path, state: GateState) -> None:
    """Write the state of a gate atomically.

    :raises StoreError: if the disk does not take it.
    """
    path = folder / STATE_FILE
    write_json(path, GATE_STATE.dump(state, path), otherwise=f"choose another {RUNS}")


def load_state(folder: Path) -> GateState:
    """Read the state of a gate.

    :raises ConfigError: if the folder is not of a gate, or its state is malformed.
    """
    path = folder / STATE_FILE
    if not is_there(path):
        raise ConfigError(
            f"{folder} is not the folder of a gate: it has no {STATE_FILE}; expected one that "
            "'pdserve gate' made"
        )
    return GATE_STATE.parse(load_json(path), path)


def load_runs(folder: Path, start: GateStart) -> tuple[Record, ...]:
    """Read the records of a start.

    :raises ConfigError: if one is missing or malformed.
    """
    return tuple(load_own_record(folder / name) for name in start.records)


def write_result(folder: Path, result: GateResult, text: str) -> None:
    """Write the result of a gate, as JSON and as Markdown.

    :raises StoreError: if the disk does not take it.
    """
    path = folder / RESULT_FILE
    write_json(path, GATE.dump(result, path), otherwise=f"choose another {RUNS}")
    write_bytes(folder / TEXT_FILE, text.encode(), otherwise=f"choose another {RUNS}")


def load_result(folder: Path) -> GateResult | None:
    """Read the result of a gate; None if there is none yet.

    :raises ConfigError: if the file is malformed.
    """
    path = folder / RESULT_FILE
    return GATE.parse(load_json(path), path) if is_there(path) else None


def load_policy(path: Path) -> GatePolicy:
    """Read a policy file: ``schema_version``, ``max_blocks``, and a table ``[margins]``.

    :raises ConfigError: if it cannot be read or is malformed.
    """
    data = load_toml(path)
    try:
        return GATE_POLICY.parse(data, path)
    except ConfigError as error:
        if str(path) in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from error
