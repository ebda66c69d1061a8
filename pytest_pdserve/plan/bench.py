"""Commands of the benchmark client: for one run, and for a worker that makes all runs."""

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
"""First vLLM release whose client sends no readiness request before the load."""
UNKNOWN_TOKENS = 2048
"""Tokens of prompt and output assumed for a request whose lengths are not known."""


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
    """Return the client's command, which writes its result, with all requests, to *result*.

    For the client ``vllm``, it is the equivalent of a job of the worker.

    :param seed: of its prompts; ``--seed`` in the system's arguments, which come last, overrides
        it.
    """
    flags = bench_flags(workload, system, base_url=base_url, seed=seed, result=result)
    return Command(
        name=f"bench {workload.id}",
        node=node,
        argv=(*_program(system, kind), *flags),
        **_environment(system),
    )


def worker_command(system: System, *, node: str, script: str, folder: str) -> Command:
    """Return the command of the worker, which runs vLLM's client for every run of a session.

    If the system sets no Python for its client, the script starts with another one and then looks
    for the Python of vLLM.

    :param script: path of ``clients/vllm_worker.py`` on the node.
    :param folder: folder of its jobs.
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
    """Return the environment of a client's command, as fields of :class:`Command`."""
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
    """Return the arguments of ``vllm bench serve``, which all clients accept."""
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
    """Return how many requests the client sends in addition to the load's, with the first prompt.

    Only clients that are part of vLLM send any.

    They are its warm-up requests (``--num-warmups``) and the readiness request: always before vLLM
    0.14 (pull request 30975), since then only with ``--ready-check-timeout-sec``.

    :param vllm: version of the client's vLLM; None if it is not known.
    """
    if kind not in CLIENTS_OF_VLLM:
        return 0
    options = client_options(workload, system)
    release = release_of(vllm)
    probes = "600" if release is not None and release < _NO_PROBE else "0"
    warmups, patience_s = (
        int(value) if (value := options.get(flag, default)).isdecimal() else 0
        for flag, default in (("num-warmups", "0"), ("ready-check-timeout-sec", probes))
    )
    return warmups + (1 if patience_s else 0)


def client_options(workload: Workload, system: System) -> Mapping[str, str]:
    """Return the client's further options by name; the system's override the workload's."""
    own = workload.options if isinstance(workload.options, Mapping) else {}
    return {**own, **options_of(system.bench.args)}


def bench_timeout(workload: Workload, limits: Limits) -> float:
    """Return the seconds after which a client counts as hung: start-up, arrivals and tokens.

    For data sets with lengths of their own, :data:`UNKNOWN_TOKENS` are assumed.
    """
    load = workload.known()
    tokens = load.num_prompts * (sum(load.lengths) if load.lengths else UNKNOWN_TOKENS)
    slowest = workload.ramp_up.start_rps if workload.ramp_up else load.request_rate
    arrivals = 0.0 if slowest is None else load.num_prompts / slowest
    return limits.bench_start_s + arrivals + tokens / limits.slowest_tok_s
