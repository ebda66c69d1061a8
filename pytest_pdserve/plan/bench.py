"""The benchmark client's command of one run, and that of the process which runs many."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.command import options_of
from pytest_pdserve.plan.router import API_KEY_VARIABLE
from pytest_pdserve.values.counters import release_of
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.system import CLIENTS_OF_VLLM
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import Limits
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import LENGTH_FLAGS
from pytest_pdserve.values.workload import Workload

_NO_PROBE = (0, 14)
"""First vLLM whose client sends no request of its own before the load."""
UNKNOWN_TOKENS = 2048
"""Tokens of prompt and output that are allowed for a request whose lengths nobody knows."""


def bench_command(
    workload: Workload,
    system: System,
    kind: ClientKind,
    *,
    node: str,
    base_url: str,
    seed: int | str,
    result: PurePath,
) -> Command:
    """The client's command; it writes its result, with one entry per request, to *result*.

    Of the client ``vllm`` it is the command that the worker's run stands for.

    :param seed: of its prompts; ``--seed`` in the system's arguments, which come last, pins it.
    """
    flags = bench_flags(workload, system, base_url=base_url, seed=seed, result=result)
    return Command(
        name=f"bench {workload.id}",
        node=node,
        argv=(*_program(system, kind), *flags),
        **_environment(system),
    )


def worker_command(system: System, *, node: str, script: str, folder: str) -> Command:
    """The command of the process that runs vLLM's client again and again.

    Where the system names no Python for its client, another runs the script, which then looks for
    that of vLLM.

    :param script: ``clients/vllm_worker.py``, where the node finds it.
    :param folder: where it looks for jobs.
    """
    own = system.bench.python
    program = () if own else ("--program", system.programs.vllm)
    python = own or ("python3" if system.container.contained else sys.executable)
    return Command(
        name="client",
        node=node,
        argv=(python, script, *program, folder),
        **_environment(system),
    )


def _environment(system: System) -> dict[str, Any]:
    """What every client is given beside its arguments."""
    return {
        "env": tuple((k, v) for k, v in system.env.items() if k.startswith("HF_")),
        "secrets": (API_KEY_VARIABLE,),
        "passed": system.pass_env,
        "watched": True,
    }


def _program(system: System, kind: ClientKind) -> tuple[str, ...]:
    if kind not in CLIENTS_OF_VLLM:
        return (sys.executable, "-m", "pytest_pdserve.clients.precise")
    if (python := system.bench.python) is not None:
        return (python, "-m", "vllm.entrypoints.cli.main", "bench", "serve")
    return (system.programs.vllm, "bench", "serve")


def bench_flags(
    workload: Workload, system: System, *, base_url: str, seed: int | str, result: PurePath
) -> tuple[str, ...]:
    """Return the arguments of ``vllm bench serve``, which every client takes."""
    argv = ["--base-url", base_url, "--model", system.model.path]
    argv += ["--dataset-name", workload.dataset]
    argv += _load_flags(workload)
    argv += ["--seed", str(seed), "--ignore-eos", "--disable-tqdm"]
    for flag, value in METRICS.client_flags().items():
        argv += [f"--{flag}", value]
    argv += ["--save-result", "--save-detailed"]
    argv += ["--result-dir", str(result.parent), "--result-filename", result.name]
    return (*argv, *system.bench.args)


def _load_flags(workload: Workload) -> Iterator[str]:
    load, ramp = workload.known(), workload.ramp_up
    if load.lengths:
        for flag, length in zip(LENGTH_FLAGS[workload.dataset], load.lengths, strict=True):
            yield from (f"--{flag}", str(length))
    for name, value in load.options.items():
        yield from (f"--{name}", value) if value else (f"--{name}",)
    yield from ("--num-prompts", str(load.num_prompts))
    if load.request_rate is not None:
        yield from ("--request-rate", repr(load.request_rate))
    if load.burstiness != 1.0:
        yield from ("--burstiness", repr(load.burstiness))
    if ramp is not None:
        yield from ("--ramp-up-strategy", ramp.strategy)
        yield from ("--ramp-up-start-rps", str(ramp.start_rps))
        yield from ("--ramp-up-end-rps", str(ramp.end_rps))
    if load.max_concurrency is not None:
        yield from ("--max-concurrency", str(load.max_concurrency))


def extra_requests(
    workload: Workload, system: System, vllm: str | None, *, kind: ClientKind
) -> int:
    """Return the requests that the client sends beside those asked, all with the first prompt.

    Only clients that are a part of vLLM send any.

    These are its warm-ups (``--num-warmups``), and the one that tells whether the endpoint is
    ready: before vLLM 0.14 by itself (pull request 30975), since then where
    ``--ready-check-timeout-sec`` asks for it.

    :param vllm: version of the client's vLLM; None if it is not known.
    """
    if kind not in CLIENTS_OF_VLLM:
        return 0
    options = client_options(workload, system)
    release = release_of(vllm)
    probes = "600" if release is not None and release < _NO_PROBE else "0"
    warmups, patience_s = (
        int(said) if (said := options.get(flag, default)).isdecimal() else 0
        for flag, default in (("num-warmups", "0"), ("ready-check-timeout-sec", probes))
    )
    return warmups + (1 if patience_s else 0)


def client_options(workload: Workload, system: System) -> Mapping[str, str]:
    """Return the further options that the client gets, by name; the system's win."""
    own = workload.options if isinstance(workload.options, Mapping) else {}
    return {**own, **options_of(system.bench.args)}


def bench_timeout(workload: Workload, limits: Limits) -> float:
    """Return the seconds after which a client counts as hung: start-up, arrivals, the work asked.

    A data set's own lengths are not known beforehand: :data:`UNKNOWN_TOKENS` are allowed for.
    """
    load = workload.known()
    tokens = load.num_prompts * (sum(load.lengths) if load.lengths else UNKNOWN_TOKENS)
    slowest = workload.ramp_up.start_rps if workload.ramp_up else load.request_rate
    arrivals = 0.0 if slowest is None else load.num_prompts / slowest
    return limits.bench_start_s + arrivals + tokens / limits.slowest_tok_s
