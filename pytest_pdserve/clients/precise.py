"""The command of the client: ``python -m pytest_pdserve.clients.precise``.

It has flags of ``vllm bench serve``.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import os
import signal
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult
from urllib.parse import urlsplit

from pytest_pdserve.clients.arrivals import Arrivals
from pytest_pdserve.clients.connection import Connection
from pytest_pdserve.clients.flags import CHAT
from pytest_pdserve.clients.flags import parse
from pytest_pdserve.clients.load import Bounds
from pytest_pdserve.clients.load import open_connections
from pytest_pdserve.clients.load import send
from pytest_pdserve.clients.prompts import Lengths
from pytest_pdserve.clients.prompts import load_tokenizer
from pytest_pdserve.clients.prompts import random_prompts
from pytest_pdserve.clients.result import result_of
from pytest_pdserve.clients.vllm_worker import sampled

_BYTES_PER_TOKEN = 1 << 13
"""Maximum bytes of one token in an answer."""
_EXTRA_BYTES = 1 << 20
"""Maximum bytes of an answer in addition to its tokens."""
_ENDING = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Send the load, and write the result file.

    :returns: exit code: 0, or 1 if nothing could be sent.
    """
    try:
        options = parse(arguments)
        result = measure(options)
        write(Path(options.result_dir) / options.result_filename, json.dumps(result))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"precise: {error}\n")
        return 1
    sys.stdout.write(
        f"{result['completed']} of {options.num_prompts} requests completed in "
        f"{result['duration']:.2f} s, mean TTFT {result['mean_ttft_ms']:.2f} ms, mean ITL "
        f"{result['mean_itl_ms']:.3f} ms\n"
    )
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Send the load, and return the result file's object.

    :raises OSError: if the server cannot be reached.
    :raises ValueError: if the tokenizer cannot be loaded, or prompts would be empty.
    """
    tokenizer = load_tokenizer(options.tokenizer or options.model)
    lengths = _lengths(options, tokenizer)
    prompts = random_prompts(
        tokenizer,
        lengths=[tokens for tokens, _ in lengths],
        seed=options.seed,
        prefix_len=options.random_prefix_len,
    )
    requests = [
        _request(options, text, tokens)
        for (text, _), (_, tokens) in zip(prompts, lengths, strict=True)
    ]
    due = _arrivals(options).due_s(options.num_prompts, options.seed)
    url = urlsplit(options.base_url)
    at_once = min(options.max_concurrency or options.num_prompts, options.num_prompts)
    longest = max(tokens for _, tokens in lengths)
    sending = send(
        requests,
        due,
        url=url,
        connections=_connections(url, at_once),
        bounds=Bounds(
            time_s=options.time_limit, answer_bytes=_EXTRA_BYTES + _BYTES_PER_TOKEN * longest
        ),
    )
    result = result_of(
        sending,
        prompt_tokens=[tokens for _, tokens in prompts],
        percentiles=options.percentiles,
        goodput_ms=options.goodput_ms,
        load_fields=_load_fields(options),
    )
    return {**result, "kept_requests": kept_requests(options, [text for text, _ in prompts])}


def kept_requests(options: argparse.Namespace, prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Return a few of the requests as they were sent, so that they can be repeated."""
    if options.backend == CHAT:
        return []
    fields: dict[str, Any] = {"ignore_eos": options.ignore_eos}
    if options.temperature is not None:
        fields["temperature"] = options.temperature
    places = sampled(len(prompts))
    return [{"index": place, "prompt": prompts[place], "fields": fields} for place in places]


def _lengths(options: argparse.Namespace, tokenizer: Any) -> list[tuple[int, int]]:
    """Return prompt and output tokens of each request."""
    input_ratio, output_ratio = options.random_range_ratio
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    lengths = Lengths(
        input_len=options.random_input_len,
        output_len=options.random_output_len,
        prefix_len=options.random_prefix_len,
        input_ratio=input_ratio,
        output_ratio=output_ratio,
    )
    drawn = lengths.draw(options.num_prompts, special=special, seed=options.seed)
    if min(tokens for tokens, _ in drawn) + lengths.prefix_len < 1:
        raise ValueError(
            f"--random-input-len {lengths.input_len}: the tokenizer adds {special} tokens, and "
            "some prompts would be empty; expected more, or --random-prefix-len"
        )
    return drawn


def _connections(url: SplitResult, number: int) -> list[Connection]:
    where = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
    try:
        return open_connections(url, number)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EMFILE:
            raise OSError(
                f"{number} connections to {where} cannot be open at once: {why}; raise the limit "
                "of open files (ulimit -n), or give a lower --max-concurrency"
            ) from error
        raise OSError(f"{where} cannot be reached: {why}") from error


def _arrivals(options: argparse.Namespace) -> Arrivals:
    return Arrivals(
        request_rate=options.request_rate,
        burstiness=options.burstiness,
        ramp_up=options.ramp_up_strategy,
        start_rps=options.ramp_up_start_rps or 0.0,
        end_rps=options.ramp_up_end_rps or 0.0,
    )


def _request(options: argparse.Namespace, text: str, tokens: int) -> bytes:
    """Return the complete HTTP request, encoded before the load starts."""
    body: dict[str, Any] = {
        "model": options.served_model_name or options.model,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if options.ignore_eos:
        body["ignore_eos"] = True
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if options.backend == CHAT:
        body["messages"] = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        body["max_completion_tokens"] = tokens
    else:
        body["prompt"] = text
        body["max_tokens"] = tokens
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


def _load_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of vLLM's result file that describe the load."""
    rate = options.request_rate
    fields = {
        "endpoint_type": options.backend,
        "backend": options.backend,
        "label": None,
        "model_id": options.model,
        "tokenizer_id": options.tokenizer or options.model,
        "num_prompts": options.num_prompts,
        "request_rate": "inf" if math.isinf(rate) else rate,
        "burstiness": options.burstiness,
        "max_concurrency": options.max_concurrency,
    }
    if options.ramp_up_strategy is not None:
        fields |= {
            "ramp_up_strategy": options.ramp_up_strategy,
            "ramp_up_start_rps": options.ramp_up_start_rps,
            "ramp_up_end_rps": options.ramp_up_end_rps,
        }
    return fields


def write(path: Path, text: str) -> None:
    """Write a file atomically, also if this process gets a signal meanwhile."""
    part = path.with_name(f"{path.name}.part")
    with _uninterrupted():
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


if __name__ == "__main__":
    # Ctrl-C ends it as SIGTERM does: at once, with nothing written.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
