"""A project in pytester's folder whose systems are stub engines, and what a run leaves of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
STUBS = Path(__file__).parent / "stubs"
MARK = "PDSTUB_MARK"
UNUSED = ("cacheprovider", "anyio", "benchmark", "hypothesispytest")
WITHOUT_UNUSED = tuple(word for name in UNUSED for word in ("-p", f"no:{name}"))
"""Plugins that are slow to load anew in every run."""
Tables = Mapping[str, Mapping[str, Any]]

CONFIG = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_size": 32,
    "dtype": "float32",
}
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
SPAN = 110
ENDPOINT_PORT = 27990 + WORKER
"""Of a server that no session starts."""
SYSTEM: Tables = {
    "cluster": {
        "kind": "local",
        "nodes": 4,
        "gpus_per_node": 1,
        "shared_host": True,
        "memory_per_instance_gib": 0.05,
        "bind_host": "127.0.0.1",
    },
    # Each worker of xdist has ports of its own: what is planned is then what runs.
    "ports": {
        "http": 27000 + WORKER * SPAN,
        "side_channel": 28000 + WORKER * SPAN,
        "rpc": 29000 + WORKER * SPAN,
        "span": SPAN,
    },
    "kv_transfer": {"backend": "UCX", "buffer_device": "cpu"},
    "limits": {
        "ready_s": 30,
        "warmup_s": 10,
        "bench_start_s": 30,
        "slowest_tok_s": 100,
        "stop_s": 1,
    },
    "sweep": {
        "input_lens": [32],
        "output_lens": [8],
        "num_prompts": 8,
        "max_concurrency": 4,
    },
    # The stub is a program, and not the package that other clients are parts of.
    "bench": {"client": "vllm-command"},
    "judgement": {"claims": "report"},
    # Nothing that one run may show of a stub on a busy machine is worse; tests that judge say less.
    "judgement.floors": {
        "mean_ttft_ms": 10.0,
        "p99_ttft_ms": 10.0,
        "mean_itl_ms": 10.0,
        "mean_tpot_ms": 10.0,
        "mean_e2el_ms": 10.0,
        "output_throughput": 10.0,
    },
}

UNREAD = {
    "attached": (
        *("ports", "kv_transfer", "programs.router", "limits.ready_s"),
        *("cluster.bind_host", "cluster.memory_per_instance_gib"),
    )
}
"""What of :data:`SYSTEM` a kind of system does not read, and refuses."""

WORKLOAD = "random-32-8-n8-c4"
"""Id of the one workload in the sweep of :data:`SYSTEM`."""


@dataclass(kw_only=True)
class House:
    """A project in pytester's folder whose systems are stub engines."""

    pytester: pytest.Pytester
    monkeypatch: pytest.MonkeyPatch
    mark: str
    programs: dict[str, str] = field(default_factory=dict)
    tables: Tables = field(default_factory=lambda: SYSTEM)

    @property
    def path(self) -> Path:
        return self.pytester.path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def system(self, name: str = "stub", /, **tables: Mapping[str, Any]) -> Path:
        """Write a system; *tables* change single keys (``judgement_floors`` is a table)."""
        model = {"path": str(self.path / "model")}
        merged = {"programs": self.programs, "model": model, **self.tables}
        for key, changes in tables.items():
            title = key.replace("judgement_floors", "judgement.floors")
            merged[title] = {**merged.get(title, {}), **changes}
        for each in UNREAD.get(str(merged["cluster"]["kind"]), ()):
            unread, _, key = each.partition(".")
            if key:
                merged[unread] = {k: v for k, v in merged.get(unread, {}).items() if k != key}
            elif each not in tables:
                merged.pop(unread, None)
        lines = ["schema_version = 1", 'description = "stub engines"']
        for title, table in merged.items():
            lines += [f"[{title}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
        path = self.path / "baselines" / name / "system.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    def ini(self, *lines: str) -> None:
        """Write ``tox.ini`` with *lines* beside what every run of the house has.

        A new cell is measured on one start, unless a test says more.
        """
        addopts = f"addopts = --import-mode=importlib --strict-markers {' '.join(WITHOUT_UNUSED)}"
        starts = "" if "pdserve_first_runs" in "".join(lines) else "pdserve_first_runs = 1"
        own = ["[pytest]", addopts, starts, "filterwarnings = error"]
        self.pytester.makeini("\n".join([*own, *lines]))

    @property
    def baseline(self) -> Path:
        """The baseline of the system called ``stub``."""
        return self.path / "baselines" / "stub" / "sweep.json"

    def cells(self) -> dict[str, dict[str, Any]]:
        """Cells of the baseline by topology and workload id, as its file has them."""
        cells: dict[str, dict[str, Any]] = json.loads(self.baseline.read_text())["cells"]
        return cells

    def may_be_interrupted(self) -> None:
        """Let a session be interrupted anywhere, also where a file has just been opened."""
        self.ini("    ignore::pytest.PytestUnraisableExceptionWarning")

    def suites(self, *names: str) -> None:
        """Copy suites that users run."""
        for name in names:
            shutil.copytree(ROOT / "suites" / name, self.path / "suites" / name)

    def faults(self, **faults: Mapping[str, Any]) -> None:
        """Set faults by process; ``every`` is all, ``decode_1`` is ``decode-1``."""
        named = {"*" if k == "every" else k.replace("_", "-"): v for k, v in faults.items()}
        self.monkeypatch.setenv("PDSTUB_FAULTS", json.dumps(named))

    def from_start(self, number: int, **faults: Any) -> None:
        """Set faults of the decode instance from its start of that number on, counted from 1."""
        count, said = self.path / "starts", json.dumps({"*": faults})
        self._when(
            "*kv_consumer*",
            f'echo >> "{count}"; [ $(wc -l < "{count}") -ge {number} ] && '
            f"export PDSTUB_FAULTS='{said}'",
        )

    def with_argument(self, argument: str, **faults: Any) -> None:
        """Set faults of servers that are started with *argument*: those of one stack of a gate."""
        said = json.dumps({"*": faults})
        self._when(f"*{argument}*", f"export PDSTUB_FAULTS='{said}'")

    def hang_at(self, input_len: int) -> None:
        """Have the client never end in cells of prompts of that length."""
        self._when(f"*--random-input-len?{input_len}*", "exec sleep 3600")

    def _when(self, words: str, shell: str) -> None:
        """Have the program ``vllm`` run *shell* first where its arguments have *words*."""
        program = Path(self.programs["vllm"])
        first, rest = program.read_text().split("\n", 1)
        program.write_text(f'{first}\ncase "$*" in {words}) {shell};; esac\n{rest}')

    def run(self, *arguments: object) -> pytest.RunResult:
        """Pytest in this process, on the suites and the system called ``stub``."""
        return self.pytester.runpytest_inprocess(*self._arguments(arguments))

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Pytest in a process of its own, with its output in ``pytest.log``."""
        command = [sys.executable, "-m", "pytest", *self._arguments(arguments)]
        return self.spawn(command, self.path / "pytest.log")

    def spawn(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _arguments(self, arguments: tuple[object, ...]) -> list[str]:
        return ["suites", "--system", "stub", *map(str, arguments)]

    def records(self) -> list[dict[str, Any]]:
        """Every record of every run."""
        return [json.loads(p.read_text()) for p in sorted(self.runs.glob("*/*/*.record.json"))]

    def survivors(self, seconds: float = 0.0) -> list[str]:
        """What still runs of all that this test started, after up to *seconds*."""
        deadline = time.monotonic() + seconds
        while (found := list(self._marked())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _marked(self) -> Iterator[str]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                zombie = process.status() == psutil.STATUS_ZOMBIE
                if not zombie and process.environ().get(MARK) == self.mark:
                    yield f"{process.pid} {' '.join(process.cmdline())}"

    def processes(self) -> list[psutil.Process]:
        """Living processes of this test."""
        return [psutil.Process(int(text.split()[0])) for text in self._marked()]


def wait_text(process: subprocess.Popen[bytes], log: Path, text: str, seconds: float = 60) -> None:
    """Wait until *log* has *text*; fail if *process* ends before."""
    deadline = time.monotonic() + seconds
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


def write_program(folder: Path, stub: Path) -> Path:
    """An executable that runs *stub* with this Python, without its slow ``site``."""
    path = folder / stub.stem
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{stub}" "$@"\n')
    path.chmod(0o755)
    return path


def only_sentence(result: pytest.RunResult) -> str:
    """The one line that a usage error prints, without a traceback."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    errors = [line for line in result.errlines if line.startswith("ERROR: ")]
    assert len(errors) == 1
    return errors[0].removeprefix("ERROR: ")
