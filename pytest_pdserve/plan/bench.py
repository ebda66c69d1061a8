"""The ``vllm bench serve`` command of one run."""

from __future__ import annotations

import math
from pathlib import PurePath

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.router import API_KEY_VARIABLE
from pytest_pdserve.values.system import Limits
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import Workload

PERCENTILES = "50,90,99"


def bench_command(
    workload: Workload,
    system: System,
    *,
    node: str,
    base_url: str,
    repeat: int,
    result: PurePath,
) -> Command:
    """The client's command; it writes its result, with one entry per request, to *result*."""
    argv = [
        system.programs.vllm,
        "bench",
        "serve",
        "--base-url",
        base_url,
        "--model",
        system.model.path,
    ]
    argv += ["--dataset-name", workload.dataset]
    if workload.dataset == "random":
        argv += ["--random-input-len", str(workload.input_len)]
        argv += ["--random-output-len", str(workload.output_len)]
    for name, value in workload.options:
        argv += [f"--{name}", value] if value else [f"--{name}"]
    argv += ["--num-prompts", str(workload.num_prompts)]
    if not math.isinf(workload.request_rate):
        argv += ["--request-rate", f"{workload.request_rate:g}"]
    if workload.max_concurrency is not None:
        argv += ["--max-concurrency", str(workload.max_concurrency)]
    argv += ["--seed", str(workload.seed(repeat)), "--ignore-eos", "--disable-tqdm"]
    argv += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", PERCENTILES]
    argv += ["--save-result", "--save-detailed"]
    argv += ["--result-dir", str(result.parent), "--result-filename", result.name]
    argv += system.bench_args
    return Command(
        name=f"bench {workload.id}",
        node=node,
        argv=tuple(argv),
        env=tuple((k, v) for k, v in system.env if k.startswith("HF_")),
        secrets=(API_KEY_VARIABLE,),
        watched=True,
    )


def bench_timeout(workload: Workload, limits: Limits) -> float:
    """Seconds after which a client counts as hung: start-up, arrivals, and the work asked."""
    tokens = workload.num_prompts * (workload.input_len + workload.output_len)
    arrivals = (
        0.0 if math.isinf(workload.request_rate) else workload.num_prompts / workload.request_rate
    )
    return limits.bench_start_s + arrivals + tokens / limits.slowest_tok_s
