"""A stand-in for ``vllm.benchmarks.serve``: its five names, with the client of the stub behind."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if os.environ.get("PDSTUB_MOVED"):
    raise ImportError("cannot import name 'main_async' from 'vllm.benchmarks'")

_spec = importlib.util.spec_from_file_location(
    "vllm_stub", Path(__file__).parents[3] / "vllm_stub.py"
)
assert _spec is not None
assert _spec.loader is not None
stub = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stub)

PROMPT_FLAGS = ("random-input-len", "random-output-len", "num-prompts", "seed")
FLAGS = (
    *("base-url", "model", "dataset-name", "request-rate", "max-concurrency", "result-dir"),
    *("result-filename", "percentile-metrics", "metric-percentiles", "temperature"),
)
SWITCHES = ("ignore-eos", "disable-tqdm", "save-result", "save-detailed")


def add_cli_args(parser: argparse.ArgumentParser) -> None:
    for flag in (*FLAGS, *PROMPT_FLAGS):
        parser.add_argument(f"--{flag}")
    for flag in SWITCHES:
        parser.add_argument(f"--{flag}", action="store_true")


def get_tokenizer(name: str) -> str:
    print(f"stub: loads the tokenizer of {Path(name).name}", flush=True)
    return name


def get_samples(args: argparse.Namespace, tokenizer: str) -> list[str]:
    print(f"stub: makes {args.num_prompts} prompts of {args.random_input_len} tokens", flush=True)
    return [args.seed] * int(args.num_prompts)


async def main_async(args: argparse.Namespace) -> None:
    samples = get_samples(args, get_tokenizer(args.model))
    assert samples == [args.seed] * int(args.num_prompts)
    given = {k.replace("_", "-"): v for k, v in vars(args).items() if isinstance(v, str)}
    options = stub.read([word for flag, value in given.items() for word in (f"--{flag}", value)])
    result = await benchmark(
        endpoint_type="openai",
        input_requests=[SimpleNamespace(**body) for body in stub.made_for(options)],
        lora_modules=None,
        ignore_eos=args.ignore_eos,
        extra_body={} if args.temperature is None else {"temperature": float(args.temperature)},
        options=options,
    )
    left = os.environ.get("PDSTUB_LEAVE_ONCE")
    if left and not os.path.exists(left):
        Path(left).touch()
        os.getppid = lambda: -1  # the worker then takes its session for gone, once it is idle
    stub.save(options, result)


async def benchmark(**asked: Any) -> Any:
    return stub.load(asked["options"], [vars(each) for each in asked["input_requests"]])
