"""The folder of a system's nights: state, lock, and report of the newest night."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import NIGHTLY_STATE
from pytest_pdserve.results.kinds import REPORT
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.values.nightly import NightlyState
from pytest_pdserve.values.report import Report

DEFAULT_NIGHTLY = "nightly"
"""Name of the folder in the project's root."""
STATE_FILE = "nightly-state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyFolder:
    """Paths and files of a system's nights."""

    path: Path
    """``nightly/<system>/``."""

    @property
    def state(self) -> Path:
        """File of the state."""
        return self.path / STATE_FILE

    @property
    def lock(self) -> Path:
        """File that is locked while a night runs."""
        return self.path / "nightly.lock"

    def report(self, form: str) -> Path:
        """Return the file of the newest night's report in a format."""
        return self.path / f"report.{form}"

    @property
    def other_report(self) -> Path:
        """File of the report of the baseline's stack on the newest night's nodes."""
        return self.path / "baseline-stack.json"

    @property
    def other_runs(self) -> Path:
        """Folder of its records, which are not of the system's own stack."""
        return self.path / "baseline-stack"

    def load_state(self) -> NightlyState | None:
        """Read the state of the last night; None if there was none.

        :raises ConfigError: if the file is malformed.
        """
        if not is_there(self.state):
            return None
        return NIGHTLY_STATE.parse(load_json(self.state), self.state)

    def write_state(self, state: NightlyState) -> None:
        """Write the state atomically.

        :raises StoreError: if the disk does not take it.
        """
        write_json(self.state, NIGHTLY_STATE.dump(state, self.state))

    def load_report(self, path: Path | None = None) -> Report | None:
        """Read the report of the newest session; None if there is none.

        :param path: file of another report; None for that of the newest session.
        :raises ConfigError: if the file is malformed.
        """
        path = path or self.report("json")
        return REPORT.parse(load_json(path), path) if is_there(path) else None
