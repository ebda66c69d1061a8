"""The client ``vllm``: a process that imports vLLM once and measures all cells of a session."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Process
from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.allocation import failure_text
from pytest_pdserve.backends.passing import secret_env
from pytest_pdserve.clients import vllm_worker
from pytest_pdserve.plan.bench import bench_flags
from pytest_pdserve.plan.bench import worker_command
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import Containment
from pytest_pdserve.results.redaction import redact_file
from pytest_pdserve.serving.client import ClientRun
from pytest_pdserve.serving.client import Load
from pytest_pdserve.serving.client import Watch
from pytest_pdserve.serving.client import finished_run
from pytest_pdserve.serving.client import redact_files
from pytest_pdserve.serving.client import wait_for
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ClientUnusableError
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import System


@dataclass(slots=True, kw_only=True)
class WorkerClient:
    """Client that gives jobs to a worker process, as files in a shared folder."""

    system: System
    """System to measure."""
    allocation: Allocation
    """Nodes of the session."""
    folder: Path
    """Its own folder, in the run folder."""
    api_key: str = field(repr=False)
    """The session's API key."""
    kind: ClientKind = "vllm"
    version: str | None = None
    """Version of its vLLM; None until vLLM is imported."""
    containment: Containment = field(init=False)
    """Wraps its command: it stays in the image in which the session began."""
    _process: Process | None = None
    _starts: int = 0
    _jobs: int = 0
    _prepared: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Keep the present image."""
        self.containment = self.allocation.containment

    def start(self) -> None:
        """Start a worker, which imports vLLM; return at once.

        :raises LaunchError: if the worker cannot be started.
        """
        self._starts += 1
        self._jobs = 0
        self._prepared.clear()
        self._here.mkdir(parents=True)
        script = shutil.copy(str(vllm_worker.__file__), self._here)
        (command,) = self.containment.wrap(
            [
                worker_command(
                    self.system,
                    node=self.allocation.client_node,
                    script=str(script),
                    folder=str(self._here),
                )
            ]
        )
        secrets = secret_env([command], self.api_key)
        (self._process,) = self.allocation.start([command], logs=[self._log], secrets=secrets)

    @property
    def _here(self) -> Path:
        """Folder of the current worker."""
        return self.folder / f"worker-{self._starts}"

    @property
    def _log(self) -> Path:
        return self._here / "worker.log"

    def prepare(self, loads: Sequence[Load]) -> None:
        """Have the worker generate the prompts of *loads*; return at once."""
        if self._process is None or self._process.poll() is not None:
            return
        for load in loads:
            key = (load.workload.id, load.seed)
            if key not in self._prepared:
                self._prepared.add(key)
                self._write_job(load, prepare=True)

    def run(self, load: Load, watch: Watch) -> ClientRun:
        """Have the worker measure one load; a worker that has ended is replaced."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self.start()
        assert self._process is not None
        process, succeeded = self._process, False
        try:
            self._wait_ready(process, watch)
            began = time.monotonic()
            process.watch()
            number = self._write_job(load, prepare=False)
            name, done = load.command(self.kind, self.allocation.client_node).name, self._done
            used = wait_for(process, lambda: done(number), watch, name=name, log=load.log)
            self._check(load, number, watch, name)
            succeeded = True
        finally:
            if not succeeded:
                self.close()
            redact_files(load)
        return finished_run(load, self._recorded_command(load, process), process, used, began=began)

    def _recorded_command(self, load: Load, process: Process) -> Command:
        """Return the worker's command with the arguments of one job, for the record."""
        command = load.command(self.kind, self.allocation.client_node)
        return replace(command, argv=(*process.command.argv, *self._flags(load)))

    def _flags(self, load: Load) -> tuple[str, ...]:
        return bench_flags(
            load.workload,
            load.system,
            base_url=load.base_url,
            seed=load.seed,
            result=load.result,
        )

    def _write_job(self, load: Load, *, prepare: bool) -> int:
        """Write a job; return its number."""
        self._jobs += 1
        job = {"argv": self._flags(load), "log": str(load.log), "prepare": prepare}
        if prepare:
            job["log"] = str(self._here / "prompts.log")
        else:
            load.log.parent.mkdir(parents=True, exist_ok=True)
        vllm_worker.write(self._here / f"{self._jobs}.job.json", job)
        return self._jobs

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return the JSON of a file that the worker writes; None until it exists.

        On a network file system, only listing the folder reliably shows new files.
        """
        if name not in os.listdir(self._here):
            return None
        content: dict[str, Any] = json.loads((self._here / name).read_text(encoding="utf-8"))
        return content

    def _done(self, number: int) -> object:
        """Return the exit code of a job, or of the worker; None while both run."""
        result = self._read(f"{number}.done.json")
        if result is not None:
            return result["code"]
        assert self._process is not None
        return self._process.poll()

    def _check(self, load: Load, number: int, watch: Watch, name: str) -> None:
        """Raise if a job failed.

        :raises ClientError: if its exit code is not 0, or the worker ended.
        """
        result = self._read(f"{number}.done.json")
        if result is not None and result["code"] == 0:
            return
        watch.check_servers()
        if result is not None:
            raise ClientError(f"{name} {exit_text(result['code'])}; {failure_text(load.log)}")
        assert self._process is not None
        code = self._process.poll()
        ended = exit_text(code) if code is not None else "has ended"
        raise ClientError(
            f"{name}: the client process {ended} during the run; {failure_text(load.log)}"
        )

    def _wait_ready(self, process: Process, watch: Watch) -> None:
        """Wait until the worker has imported vLLM.

        :raises ClientUnusableError: if it cannot be imported.
        :raises ClientError: if the worker ends, or exceeds the time limit.
        """
        limited = replace(
            watch, limit_s=self.system.limits.bench_start_s, timeout_error=self._slow_import
        )
        wait_for(
            process,
            lambda: self._read("ready.json") or process.poll(),
            limited,
            name="the client",
            log=self._log,
        )
        ready = self._read("ready.json")
        if ready is None:
            code = process.poll()
            ended = "has ended" if code is None else exit_text(code)
            raise ClientError(f"the client process {ended}; {failure_text(self._log)}")
        self._check_import(ready)
        self.version = ready["version"]

    def check_usable(self) -> None:
        """Raise if the worker has reported that vLLM cannot be imported."""
        ready = self._read("ready.json") if self._process is not None else None
        if ready is not None:
            self._check_import(ready)

    def _check_import(self, ready: dict[str, Any]) -> None:
        """Raise if the worker could not import vLLM.

        :raises ClientUnusableError: with the error and a hint.
        """
        if ready["error"] is not None:
            advice = "repair that installation, or name another Python in [bench] python of"
            if ready["moved"]:
                advice = "set client = 'vllm-command' in"
            raise ClientUnusableError(
                f"[bench] client = 'vllm' cannot be used: {ready['error']} ({self._log}); "
                f"{advice} {self.system.source}"
            )

    def _slow_import(self, _: str, log: str) -> ClientError:
        limit_s = self.system.limits.bench_start_s
        return ClientError(
            f"the client did not import vLLM within {limit_s:.0f} s (limits.bench_start_s); {log}"
        )

    def close(self) -> None:
        """Stop the worker, and remove secrets from its log."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            self.allocation.stop([process])
        finally:
            for path in (self._log, self._here / "prompts.log"):
                redact_file(path)
            shutil.rmtree(self._here / "prompts", ignore_errors=True)
