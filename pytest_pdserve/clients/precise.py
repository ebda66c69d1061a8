"""``python -m pytest_pdserve.clients.precise``, with flags of ``vllm bench serve``."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_pdserve.clients.arrivals import Arrivals
from pytest_pdserve.clients.load import open_connections
from pytest_pdserve.clients.load import send
from pytest_pdserve.clients.prompts import load_tokenizer
from pytest_pdserve.clients.prompts import random_prompts
from pytest_pdserve.clients.result import result_of

CHAT = "/v1/chat/completions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the result file.

    :returns: 0, or 1 if nothing could be sent.
    """
    options = _parser().parse_args(arguments)
    try:
        result = measure(options)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"precise: {error}\n")
        return 1
    path = Path(options.result_dir) / options.result_filename
    path.write_text(json.dumps(result), encoding="utf-8")
    sys.stdout.write(
        f"{result['completed']} of {options.num_prompts} requests completed in "
        f"{result['duration']:.2f} s, mean TTFT {result['mean_ttft_ms']:.2f} ms, mean ITL "
        f"{result['mean_itl_ms']:.3f} ms\n"
    )
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Send the load, and return the result file's object.

    :raises OSError: if the server cannot be reached.
    :raises ValueError: if the tokenizer cannot be loaded, or flags do not go together.
    """
    lengths = [options.random_input_len] * options.num_prompts
    tokenizer = load_tokenizer(options.tokenizer or options.model)
    prompts = random_prompts(tokenizer, lengths=lengths, seed=options.seed)
    requests = [_request(options, text) for text, _ in prompts]
    due = _arrivals(options).due_s(options.num_prompts, options.seed)
    url = urlsplit(options.base_url)
    at_once = min(options.max_concurrency or options.num_prompts, options.num_prompts)
    try:
        connections = open_connections(url, at_once)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"{options.base_url} cannot be reached: {why}") from error
    sending = send(requests, due, url=url, connections=connections)
    return result_of(
        sending,
        prompt_tokens=[tokens for _, tokens in prompts],
        percentiles=[float(each) for each in options.metric_percentiles.split(",")],
        goodput_ms=_goodput(options.goodput),
        asked=_asked(options),
    )


def _arrivals(options: argparse.Namespace) -> Arrivals:
    return Arrivals(
        request_rate=options.request_rate,
        burstiness=options.burstiness,
        ramp_up=options.ramp_up_strategy,
        start_rps=options.ramp_up_start_rps or 0.0,
        end_rps=options.ramp_up_end_rps or 0.0,
    )


def _request(options: argparse.Namespace, text: str) -> bytes:
    """The whole HTTP request, encoded before the clock starts."""
    body: dict[str, Any] = {
        "model": options.served_model_name or options.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": options.random_output_len,
        "ignore_eos": options.ignore_eos,
    }
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if options.endpoint == CHAT:
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body["prompt"] = text
    content = json.dumps(body).encode()
    url = urlsplit(options.base_url)
    lines = [
        f"POST {url.path.rstrip('/')}{options.endpoint} HTTP/1.1",
        f"Host: {url.netloc.rpartition('@')[2]}",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        f"Content-Length: {len(content)}",
    ]
    if key := os.environ.get("OPENAI_API_KEY"):
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def _goodput(pairs: Sequence[str]) -> dict[str, float]:
    limits = {}
    for pair in pairs:
        name, _, value = pair.partition(":")
        if name not in ("ttft", "tpot", "e2el"):
            raise ValueError(f"--goodput {pair!r}: expected ttft:MS, tpot:MS or e2el:MS")
        limits[name] = float(value)
    return limits


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """What vLLM's file says of the load, under its names."""
    rate = options.request_rate
    asked = {
        "backend": "vllm",
        "label": None,
        "model_id": options.model,
        "tokenizer_id": options.tokenizer or options.model,
        "num_prompts": options.num_prompts,
        "request_rate": "inf" if math.isinf(rate) else rate,
        "burstiness": options.burstiness,
        "max_concurrency": options.max_concurrency,
    }
    if options.ramp_up_strategy is not None:
        asked |= {
            "ramp_up_strategy": options.ramp_up_strategy,
            "ramp_up_start_rps": options.ramp_up_start_rps,
            "ramp_up_end_rps": options.ramp_up_end_rps,
        }
    return asked


def _parser() -> argparse.ArgumentParser:
    """The flags of ``vllm bench serve`` that this client knows; others are refused by name."""
    parser = argparse.ArgumentParser(prog="precise", allow_abbrev=False)
    add = parser.add_argument
    add("--base-url", required=True)
    add("--endpoint", default="/v1/completions")
    add("--model", required=True)
    add("--served-model-name")
    add("--tokenizer")
    add("--dataset-name", choices=["random"], default="random")
    add("--random-input-len", type=int, default=1024)
    add("--random-output-len", type=int, default=128)
    add("--num-prompts", type=int, default=1000)
    add("--request-rate", type=float, default=math.inf)
    add("--burstiness", type=float, default=1.0)
    add("--ramp-up-strategy", choices=["linear", "exponential"])
    add("--ramp-up-start-rps", type=int)
    add("--ramp-up-end-rps", type=int)
    add("--max-concurrency", type=int)
    add("--seed", type=int, default=0)
    add("--temperature", type=float)
    add("--ignore-eos", action="store_true")
    add("--goodput", nargs="*", default=[])
    add("--percentile-metrics", default="ttft,tpot,itl,e2el", help="All are always computed")
    add("--metric-percentiles", default="99")
    add("--disable-tqdm", action="store_true")
    add("--save-result", action="store_true")
    add("--save-detailed", action="store_true")
    add("--result-dir", default=".")
    add("--result-filename", default="precise.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
