"""The flags of ``vllm bench serve`` that the client ``precise`` supports."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pytest_pdserve.clients.prompts import parse_ratio

CHAT = "openai-chat"
BACKENDS = ("openai", "vllm", CHAT)
"""Values of ``--backend``: completions, under two names, and chat."""
TIME_LIMIT_S = 6 * 3600.0
"""The timeout of a request in vLLM's client."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags.

    :raises ValueError: if a flag is unknown or has an invalid value; the text is a sentence.
    """
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        raise ValueError(
            f"{unknown[0]} is not a flag of the client precise; measure with the client vllm or "
            "vllm-command"
        )
    _check_dataset(options)
    _check_endpoint(options)
    _check_arrivals(options)
    for name in ("num_prompts", "random_input_len", "random_output_len", "max_concurrency"):
        _check_min(options, name, minimum=1)
    _check_min(options, "random_prefix_len", minimum=0)
    if not options.time_limit > 0:
        raise ValueError(
            f"--time-limit {options.time_limit:g}: expected a number of seconds above 0"
        )
    options.random_range_ratio = parse_ratio(options.random_range_ratio)
    options.percentiles = _percentiles(options.metric_percentiles)
    options.goodput_ms = _goodput(options.goodput)
    if not Path(options.result_dir).is_dir():
        raise ValueError(f"--result-dir {options.result_dir!r}: no such folder")
    return options


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all supported flags."""
    parser = argparse.ArgumentParser(prog="precise", allow_abbrev=False)
    _add_load(parser.add_argument_group("load").add_argument)
    add = parser.add_argument
    add("--backend", default="openai", help=f"One of {', '.join(BACKENDS)} (default: openai)")
    add("--base-url", required=True)
    add("--endpoint", default="/v1/completions")
    add("--model", required=True)
    add("--served-model-name")
    add("--tokenizer")
    add("--goodput", nargs="*", default=[])
    add("--percentile-metrics", default="ttft,tpot,itl,e2el", help="All are always computed")
    add("--metric-percentiles", default="99")
    add("--disable-tqdm", action="store_true")
    add("--save-result", action="store_true")
    add("--save-detailed", action="store_true")
    add("--result-dir", default=".")
    add("--result-filename", default="precise.json")
    add(
        "--time-limit",
        type=float,
        default=TIME_LIMIT_S,
        metavar="SECONDS",
        help="Time after the first request was due; requests without a complete answer then fail "
        "(default: 21600; vLLM's client has no such flag)",
    )
    return parser


def _add_load(add: Callable[..., argparse.Action]) -> None:
    add("--dataset-name", default="random", help="random, the only one that this client supports")
    add("--random-input-len", type=int, default=1024)
    add("--random-output-len", type=int, default=128)
    add("--random-prefix-len", type=int, default=0)
    add("--random-range-ratio", default="0")
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


def _check_min(options: argparse.Namespace, name: str, *, minimum: int) -> None:
    value = getattr(options, name)
    if value is not None and value < minimum:
        raise ValueError(f"--{name.replace('_', '-')} {value}: expected at least {minimum}")


def _check_dataset(options: argparse.Namespace) -> None:
    if options.dataset_name != "random":
        raise ValueError(
            f"--dataset-name {options.dataset_name!r}: the client precise has random prompts "
            "only; measure this data set with the client vllm or vllm-command"
        )


def _check_endpoint(options: argparse.Namespace) -> None:
    url = urlsplit(options.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"--base-url {options.base_url!r}: expected http(s)://HOST[:PORT]")
    if options.backend not in BACKENDS:
        raise ValueError(
            f"--backend {options.backend!r}: the client precise supports only {', '.join(BACKENDS)}"
        )
    chat = options.endpoint.endswith("chat/completions")
    if chat != (options.backend == CHAT) or not options.endpoint.endswith("completions"):
        expected = "/v1/chat/completions" if options.backend == CHAT else "/v1/completions"
        raise ValueError(
            f"--backend {options.backend} and --endpoint {options.endpoint!r}: expected an "
            f"endpoint like {expected}" + (f", or --backend {CHAT}" if chat else "")
        )


def _check_arrivals(options: argparse.Namespace) -> None:
    for name in ("request_rate", "burstiness"):
        value = getattr(options, name)
        if not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} {value:g}: expected a number above 0")
    ends = (options.ramp_up_start_rps, options.ramp_up_end_rps)
    if options.ramp_up_strategy is not None and not all(end and end > 0 for end in ends):
        raise ValueError(
            f"--ramp-up-strategy {options.ramp_up_strategy}: expected --ramp-up-start-rps and "
            "--ramp-up-end-rps, both at least 1"
        )


def _percentiles(text: str) -> list[float]:
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= each <= 100 for each in found):
        raise ValueError(f"--metric-percentiles {text!r}: expected numbers of 0 to 100, like 50,99")
    return found


def _goodput(pairs: Sequence[str]) -> dict[str, float]:
    limits = {}
    for pair in pairs:
        name, _, value = pair.partition(":")
        try:
            limits[name] = float(value)
        except ValueError:
            name = ""
        if name not in ("ttft", "tpot", "e2el"):
            raise ValueError(f"--goodput {pair!r}: expected ttft:MS, tpot:MS or e2el:MS")
    return limits
