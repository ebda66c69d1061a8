"""The clients that are compared: how each is started, and how its report is read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pytest_pdserve.clients import vllm_worker
from pytest_pdserve.study.client_offset import METRICS
from pytest_pdserve.study.client_offset import TimedLoad

LIMIT_S = 120.0
PACKAGES = {"guidellm": ("guidellm==0.8.1", "torch==2.13.0"), "aiperf": ("aiperf==0.13.0",)}
"""Packages to install for a client that needs its own environment.

guidellm imports torch for its data loader; ``--find-links`` offers a build without CUDA."""
WHEELS = Path("/opt/wheels")
CLIENTS = ("vllm-command", "vllm", "precise", *PACKAGES)


class ContenderError(Exception):
    """A client that did not end well, or left no report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The metrics that a client reports, under the names of ``vllm bench serve``."""

    metrics: Mapping[str, float]
    duration_s: float
    failed: int


def environment(client: str, folder: Path) -> Path:
    """Return the folder of the programs of *client*, in an environment made once in *folder*."""
    made = folder / client
    if not (made / "installed").exists():
        uv = [sys.executable, "-m", "uv"]
        packages = PACKAGES[client]
        links = ("--find-links", str(WHEELS)) if WHEELS.is_dir() else ()
        subprocess.run([*uv, "venv", "-q", "--clear", "--python", sys.executable, made], check=True)
        python = made / "bin" / "python"
        subprocess.run(
            [*uv, "pip", "install", "-q", *links, "--python", python, *packages], check=True
        )
        (made / "installed").write_text("\n".join(packages))
    return made / "bin"


def vllm_words(load: TimedLoad, model: str, result: Path) -> list[str]:
    """Return the arguments that vLLM's client and ``precise`` take."""
    return [
        *("--base-url", load.base_url, "--model", model),
        *("--dataset-name", "random", "--random-input-len", str(load.input_tokens)),
        *("--random-output-len", str(load.output_tokens), "--num-prompts", str(load.requests)),
        *("--seed", str(load.seed), "--ignore-eos", "--disable-tqdm", "--save-result"),
        *("--save-detailed", "--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--metric-percentiles", "99"),
        *("--result-dir", str(result.parent), "--result-filename", result.name),
    ]


def guidellm_words(load: TimedLoad, model: str, result: Path) -> list[str]:
    """Return the arguments of ``guidellm``.

    By chat: of completions, 0.8.1 sends one request and ends.
    """
    lengths = f"prompt_tokens={load.input_tokens},output_tokens={load.output_tokens}"
    return [
        *(
            "run",
            "--backend",
            f"kind=openai_http,target={load.base_url},model=tiny,"
            "validate_backend=false,request_format=/v1/chat/completions",
        ),
        *("--profile", f"kind=concurrent,streams={load.requests}"),
        *("--constraint", f"kind=max_requests,count={load.requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={model}"),
        *("--data", f"kind=synthetic_text,{lengths}"),
        *("--seed", f"kind=static,value={load.seed}"),
        *("--output", f"kind=json,path={result}", "--disable-console"),
    ]


def aiperf_words(load: TimedLoad, model: str, result: Path) -> list[str]:
    """Return the arguments of ``aiperf``."""
    return [
        *("profile", "--model", "tiny", "--tokenizer", model, "--url", load.base_url),
        *("--endpoint-type", "completions", "--streaming", "--use-server-token-count"),
        *("--concurrency", str(load.requests), "--request-count", str(load.requests)),
        *("--prompt-input-tokens-mean", str(load.input_tokens)),
        *("--prompt-output-tokens-mean", str(load.output_tokens)),
        *("--random-seed", str(load.seed), "--no-server-metrics", "--no-gpu-telemetry"),
        *("--output-artifact-dir", str(result.parent), "--ui", "none"),
    ]


def read_vllm(result: Path) -> Report:
    """Read the file of vLLM's client or of ``precise``."""
    read = json.loads(result.read_text())
    return Report(
        metrics={name: read[name] for name in METRICS},
        duration_s=read["duration"],
        failed=read["failed"],
    )


def read_guidellm(result: Path) -> Report:
    """Read guidellm's file; its time per output token counts the first one, and is left out."""
    (run,) = json.loads(result.read_text())["benchmarks"]
    read = {
        name: value["successful"]
        for name, value in run["metrics"].items()
        if value and "successful" in value
    }
    return Report(
        metrics={
            "mean_ttft_ms": read["time_to_first_token_ms"]["mean"],
            "p99_ttft_ms": read["time_to_first_token_ms"]["percentiles"]["p99"],
            "mean_itl_ms": read["inter_token_latency_ms"]["mean"],
            "output_throughput": read["output_tokens_per_second"]["mean"],
        },
        duration_s=run["duration"],
        failed=run["metrics"]["request_totals"]["errored"],
    )


def read_aiperf(result: Path) -> Report:
    """Read aiperf's file; what it calls inter-token latency is vLLM's time per output token."""
    read = json.loads((result.parent / "profile_export_aiperf.json").read_text())
    return Report(
        metrics={
            "mean_ttft_ms": read["time_to_first_token"]["avg"],
            "p99_ttft_ms": read["time_to_first_token"]["p99"],
            "mean_tpot_ms": read["inter_token_latency"]["avg"],
            "mean_itl_ms": read["inter_chunk_latency"]["avg"],
            "output_throughput": read["output_token_throughput"]["avg"],
        },
        duration_s=read["benchmark_duration"]["avg"],
        failed=int(read.get("error_request_count", {}).get("avg", 0)),
    )


class CpuWatch(threading.Thread):
    """CPU time of a process and its children, sampled while it runs."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._spent: dict[int, float] = {}
        self._over = threading.Event()
        self.at_ns: list[int] = []
        self.cpu_s: list[float] = []
        self._sample()
        self.start()

    def run(self) -> None:
        """Sample ten times a second; what a child had used when it ended stays counted."""
        while not self._over.wait(0.1):
            self._sample()

    def _sample(self) -> None:
        try:
            family = [self._process, *self._process.children(recursive=True)]
        except psutil.Error:
            return
        for each in family:
            try:
                times = each.cpu_times()
            except psutil.Error:
                continue
            self._spent[each.pid] = times.user + times.system
        self.at_ns.append(time.time_ns())
        self.cpu_s.append(sum(self._spent.values()))

    def stop(self) -> None:
        """End the sampling."""
        self._sample()
        self._over.set()
        self.join()

    @property
    def total_s(self) -> float:
        """CPU seconds since the watch began."""
        return self.cpu_s[-1] - self.cpu_s[0]

    def cores(self, began_ns: int, ended_ns: int) -> float:
        """Return the cores used between two times."""
        used = np.interp([began_ns, ended_ns], self.at_ns, self.cpu_s)
        return float(used[1] - used[0]) / ((ended_ns - began_ns) / 1e9)


class Worker:
    """The process that keeps vLLM's client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.process = subprocess.Popen([sys.executable, vllm_worker.__file__, str(folder)])
        self.wait("ready.json")
        self.jobs = 0

    def wait(self, name: str) -> None:
        """Wait until the worker has written a file."""
        deadline = time.monotonic() + LIMIT_S
        while not (self.folder / name).exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ContenderError(f"the worker ended or hangs before {name}")
            time.sleep(0.01)

    def run(self, words: list[str]) -> None:
        """Run one job."""
        self.jobs += 1
        job = {"argv": words, "log": str(self.folder / "log"), "prepare": False}
        vllm_worker.write(self.folder / f"{self.jobs}.job.json", job)
        self.wait(f"{self.jobs}.done.json")

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=30)


class Contender:
    """One client, ready to be run again and again."""

    def __init__(self, name: str, *, folder: Path, model: str, environments: Path) -> None:
        self.name = name
        self._folder, self._model = folder / f"of-{name}", model
        self._folder.mkdir()
        self._result = self._folder / "result.json"
        self._worker = Worker(folder / "worker") if name == "vllm" else None
        self._environment = environment(name, environments) if name in PACKAGES else None

    def run(self, load: TimedLoad) -> tuple[Report, CpuWatch, float]:
        """Send the load; return its report, its use of CPU, and the seconds that all took.

        :raises ContenderError: if it does not end well.
        """
        self._result.unlink(missing_ok=True)
        began = time.monotonic()
        watch = self._run_worker(load) if self._worker else self._run_command(load)
        seconds = time.monotonic() - began
        read = {"guidellm": read_guidellm, "aiperf": read_aiperf}.get(self.name, read_vllm)
        try:
            return read(self._result), watch, seconds
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ContenderError(
                f"{self.name} left no report that can be read: {error!r}"
            ) from error

    def close(self) -> None:
        """End what is kept between runs."""
        if self._worker is not None:
            self._worker.close()

    def _run_worker(self, load: TimedLoad) -> CpuWatch:
        assert self._worker is not None
        watch = CpuWatch(self._worker.process.pid)
        try:
            self._worker.run(vllm_words(load, self._model, self._result))
        finally:
            watch.stop()
        return watch

    def _run_command(self, load: TimedLoad) -> CpuWatch:
        command, env = self._command(load)
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=self._folder)
        watch = CpuWatch(process.pid)
        try:
            code = process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise ContenderError(f"{self.name} did not end within {LIMIT_S:.0f} s") from error
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=30)
            watch.stop()
        if code:
            last = (self._folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise ContenderError(f"{self.name} ended with code {code}: {' '.join(last)[:200]}")
        return watch

    def _command(self, load: TimedLoad) -> tuple[Sequence[str | Path], dict[str, str]]:
        env = dict(os.environ)
        if self.name == "precise":
            words = vllm_words(load, self._model, self._result)
            return [sys.executable, "-m", "pytest_pdserve.clients.precise", *words], env
        if self.name == "vllm-command":
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            vllm = shutil.which("vllm", path=path) or "vllm"
            return [vllm, "bench", "serve", *vllm_words(load, self._model, self._result)], env
        assert self._environment is not None
        program = self._environment / self.name
        if self.name == "guidellm":
            return [program, *guidellm_words(load, self._model, self._result)], env
        # Offline, aiperf looks for a tokenizer in the hub's cache alone, and takes no folder.
        env.pop("HF_HUB_OFFLINE", None)
        return [program, *aiperf_words(load, self._model, self._result)], env


def versions(environments: Path, clients: Sequence[str]) -> Mapping[str, Any]:
    """Return what is installed for the clients that have an environment of their own."""
    return {
        name: (environments / name / "installed").read_text().split("\n")[0]
        for name in clients
        if name in PACKAGES
    }
