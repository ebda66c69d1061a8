"""The workflows of ``.github/workflows``: what their steps run, and those steps run here."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yml")))
_STEP_S = 1200.0
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


def workflow(name: str) -> dict[Any, Any]:
    """Return a workflow's data; YAML takes its key ``on`` for True."""
    data: dict[Any, Any] = yaml.safe_load((FOLDER / f"{name}.yml").read_text())
    return data


def steps(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every step of a workflow with the id of its job."""
    for job, data in workflow(name)["jobs"].items():
        yield from ((job, step) for step in data["steps"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A step that ran."""

    step: str
    code: int
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job whose steps run in a folder on this machine."""

    workflow: str
    job: str
    folder: Path
    known: Mapping[str, str]
    """What expressions such as ``vars.PDSERVE_SYSTEM`` stand for."""
    environment: Mapping[str, str]
    """What a runner sets, and what keeps a step on this machine."""

    def run(self) -> list[Ran]:
        """Run every ``run:`` step with a command of pdserve, as a runner would.

        After one that fails only those that ask for it run.
        """
        done: list[Ran] = []
        for step in self._steps:
            if all(ran.code == 0 for ran in done) or "if" in step:
                done.append(self._ran(step))
        return done

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Start the first of these steps in a process group of its own, and return at once."""
        return self._started(self._steps[0], log)

    def _started(self, step: Mapping[str, Any], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=self.folder,
                env=self._environment(step),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def _steps(self) -> list[dict[str, Any]]:
        found = workflow(self.workflow)["jobs"][self.job]["steps"]
        return [step for step in found if _is_pdserve(step.get("run", ""))]

    def _environment(self, step: Mapping[str, Any]) -> dict[str, str]:
        data = workflow(self.workflow)
        own = data["jobs"][self.job].get("env", {})
        made = {**data.get("env", {}), **own, **step.get("env", {})}
        filled = {name: self._filled(value) for name, value in made.items()}
        return {**self.environment, **filled}

    def _ran(self, step: Mapping[str, Any]) -> Ran:
        log = self.folder / "step.log"
        process = self._started(step, log)
        try:
            code = process.wait(_STEP_S)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended, as it should
                os.killpg(process.pid, signal.SIGKILL)
        name = step.get("name", step["run"])
        return Ran(step=name, code=code, output=log.read_text())

    def _filled(self, text: str) -> str:
        return _EXPRESSION.sub(lambda found: self._value(found[1].strip()), str(text))

    def _value(self, expression: str) -> str:
        name, _, otherwise = (part.strip() for part in expression.partition("||"))
        return self.known.get(name, "") or otherwise.strip("'")


def runner_environment(**more: str) -> dict[str, str]:
    """Return the variables of this process, with pdserve on PATH and no way to another network."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("GITHUB_", "PYTEST_"))
    }
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "NO_PROXY": "*", **more}


def _is_pdserve(text: str) -> bool:
    return text.split(" ")[0].endswith("pdserve")
