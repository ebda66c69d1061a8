#!/usr/bin/env python3
"""A stand-in for ``vllm serve`` and ``vllm bench serve``: no model, and faults on demand.

``PDSTUB_FAULTS`` holds a JSON object: process name (``decode-1``, as its log is called, ``bench``,
or ``*`` for all) to faults. What each is, stands beside its default in ``FAULTS``.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

EXITS = "stub: no such device"

FAULTS: dict[str, Any] = {
    "exit_at_start": None,  # exit code, before anything is answered
    "exit_after": None,  # name of the log of a server that says first that it exits
    "log_at_start": None,  # file whose text is logged at once, before anything else
    "exit_after_streams": None,  # die within the N-th streamed request
    "never_ready": False,  # /health answers 503
    "tell_environment": False,  # print all variables
    "tell_key": False,  # answer streamed requests with 500 and the key that they showed
    "hang_after_streams": None,  # answer so many streamed requests, and no more
    "refuse_handshake": None,  # file whose text is logged instead of a transfer; answer 500
    "fail_streams": False,  # answer every streamed request with 500; a file's text is logged
    "first_ms": 10.0,  # to the first token
    "token_ms": 3.0,  # from token to token
    "fetch_ms": 0.0,  # to fetch a KV cache
    "chunk_tokens": 1,  # tokens per streamed chunk
    "text": "",  # salt of the generated text
    "wrong_transfer": False,  # other words where the KV cache came over a transfer
    "no_transfer": False,  # decode without fetching the KV cache
    "failed_transfers": 0,  # count so many failed transfers per request
    "failed_after_expiry": 0,  # count so many late reads per request
    "preempted": 0,  # count so many preemptions per request
    "prefill_again": False,  # compute the prompt although it came over a transfer
    "foreign": 0,  # count so many requests of others per streamed request
    "under_load": None,  # the one text of every streamed answer to a long prompt, the first time
    "start_time": True,  # show when the process started: several API servers do not
    "log_stats": True,  # show what vLLM shows without --disable-log-stats
    "nixl_counters": True,  # show what the NIXL connector shows
    "transfer_ms": 4.0,  # count this time for each transfer
    "version": "0.32.0+stub",
    "ignore_term": False,  # stay through SIGTERM
    "child": False,  # have a child that stays through SIGTERM
    "hang": False,  # bench: never end
    "exit_bench": None,  # bench: exit code, without a result
    "kill_once": None,  # bench: SIGKILL itself where this file is not there yet
    "no_result": False,  # bench: end well without a result
}
BLOCK_SIZE = 16
BENCH_REST_S = 0.6
"""The client rests before it ends, so that its use of CPU is sampled while it waits."""
VOWELS, CONSONANTS = "aeiou", "bdfgklmnprstvz"


def name_of_process() -> str:
    """The name of the log that standard output goes to, e.g. ``decode-1``."""
    return Path(os.readlink("/proc/self/fd/1")).stem


def faults_of(name: str) -> dict[str, Any]:
    asked = json.loads(os.environ.get("PDSTUB_FAULTS", "{}"))
    return {**FAULTS, **asked.get("*", {}), **asked.get(name, {})}


def word(seed: str) -> str:
    digest = hashlib.sha256(seed.encode()).digest()
    return "".join(
        CONSONANTS[digest[i] % len(CONSONANTS)] + VOWELS[digest[i + 1] % len(VOWELS)]
        for i in range(0, 6, 2)
    )


def greedy(prompt: str, tokens: int, salt: str) -> list[str]:
    """Words that depend on every word of the prompt."""
    state = hashlib.sha256(f"{salt}{prompt}".encode()).hexdigest()
    return [f" {word(f'{state}{position}')}" for position in range(tokens)]


def bytes_per_token(model: str) -> int:
    config = json.loads((Path(model) / "config.json").read_text())
    heads, size = config["num_key_value_heads"], config["head_dim"]
    return int(config["num_hidden_layers"]) * 2 * int(heads) * int(size) * 4


def regions(model: str) -> int:
    config = json.loads((Path(model) / "config.json").read_text())
    return int(config["num_hidden_layers"]) * 2


class Engine:
    """What an instance counts, and what it answers."""

    def __init__(self, model: str, kv_role: str | None, faults: dict[str, Any]) -> None:
        self.faults = faults
        self.model = model
        self.started = time.time()
        self.streams = 0
        self.running = 0
        self.asked: set[str] = set()
        self._kv_role = kv_role
        self._kv_bytes = bytes_per_token(model)
        self._regions = regions(model)
        self._lock = threading.Lock()
        names = ("request_success", "prompt_tokens", "generation_tokens", "num_preemptions")
        kv = ("transfers", "bytes", "pieces", "failed", "late", "computed", "received")
        self._counts = dict.fromkeys((*names, "prefix_cache_hits", *kv), 0.0)

    def metrics(self) -> str:
        with self._lock:
            counts = dict(self._counts)
        lines = [
            f"process_start_time_seconds {self.started}",
            f'vllm:cache_config_info{{block_size="{BLOCK_SIZE}",engine="0"}} 1.0',
        ]
        if not self.faults["log_stats"]:
            return "\n".join(lines[:1]) + "\n"
        if not self.faults["start_time"]:
            del lines[0]
        lines += [
            f'vllm:num_requests_running{{engine="0",model_name="stub"}} {self.running}',
            'vllm:num_requests_waiting{engine="0",model_name="stub"} 0',
        ]
        transfers, moved, pieces, failed, late, computed, received = (
            counts.pop(name)
            for name in ("transfers", "bytes", "pieces", "failed", "late", "computed", "received")
        )
        took_s = self.faults["transfer_ms"] / 1e3
        source = 'vllm:prompt_tokens_by_source_total{engine="0",source='
        lines += [
            f'{source}"local_compute"}} {computed}',
            f'{source}"external_kv_transfer"}} {received}',
        ]
        for name, value in counts.items():
            lines += [
                f"# TYPE vllm:{name}_total counter",
                f'vllm:{name}_total{{engine="0",model_name="stub"}} {value}',
            ]
        if self._kv_role is not None and self.faults["nixl_counters"]:
            lines += [
                f'vllm:nixl_xfer_time_seconds_count{{engine="0"}} {transfers}',
                f'vllm:nixl_xfer_time_seconds_sum{{engine="0"}} {transfers * took_s}',
                f'vllm:nixl_post_time_seconds_sum{{engine="0"}} {transfers * took_s / 4}',
                f'vllm:nixl_num_descriptors_sum{{engine="0"}} {pieces}',
                f'vllm:nixl_bytes_transferred_count{{engine="0"}} {transfers}',
                f'vllm:nixl_bytes_transferred_sum{{engine="0"}} {moved}',
                f'vllm:nixl_num_failed_transfers_total{{engine="0"}} {failed}',
                'vllm:nixl_num_kv_expired_reqs_total{engine="0"} 0.0',
                f'vllm:nixl_num_notifications_after_expiry_total{{engine="0"}} {late}',
            ]
        return "\n".join(lines) + "\n"

    def refuses(self, body: dict[str, Any]) -> bool:
        """Whether it is asked for a transfer that it refuses."""
        asked = body.get("kv_transfer_params") or {}
        return bool(self.faults["refuse_handshake"] and asked.get("do_remote_prefill"))

    def take(
        self, body: dict[str, Any], *, streamed: bool = False
    ) -> tuple[list[str], dict[str, Any] | None]:
        """Serve a request: its words, and parameters for the instance that decodes them."""
        prompt, tokens = str(body["prompt"]), int(body.get("max_tokens", 16))
        asked = body.get("kv_transfer_params") or {}
        count = len(prompt.split())
        offer = None
        if self._kv_role in ("kv_producer", "kv_both") and asked.get("do_remote_decode"):
            offer = {"do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": [1]}
        fetched = self._kv_role in ("kv_consumer", "kv_both") and bool(
            asked.get("do_remote_prefill")
        )
        with self._lock:
            self._counts["request_success"] += 1 + (self.faults["foreign"] if streamed else 0)
            self._counts["num_preemptions"] += self.faults["preempted"]
            self._counts["late"] += self.faults["failed_after_expiry"]
            self._counts["prompt_tokens"] += count
            local = not fetched or self.faults["prefill_again"]
            self._counts["computed" if local else "received"] += count
            self._counts["generation_tokens"] += tokens
            if fetched and not self.faults["no_transfer"]:
                self._counts["transfers"] += 1
                blocks = math.ceil(count / BLOCK_SIZE)
                self._counts["bytes"] += blocks * BLOCK_SIZE * self._kv_bytes
                self._counts["pieces"] += blocks * self._regions
                self._counts["failed"] += self.faults["failed_transfers"]
        if fetched:
            time.sleep(self.faults["fetch_ms"] / 1000)
        wrong = "wrong" if fetched and self.faults["wrong_transfer"] else ""
        return greedy(prompt, tokens, self.faults["text"] + wrong), offer


class Handler(BaseHTTPRequestHandler):
    """vLLM's endpoints, as far as they are asked."""

    protocol_version = "HTTP/1.1"
    engine: Engine

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/health":
            self.reply(503 if self.engine.faults["never_ready"] else 200, b"")
        elif path == "/version":
            self.reply(200, json.dumps({"version": self.engine.faults["version"]}).encode())
        elif path == "/v1/models" and self.refused():
            self.reply(401, b'{"error": "Unauthorized"}')
        elif path == "/v1/models":
            models = [{"id": self.engine.model, "root": self.engine.model}]
            self.reply(200, json.dumps({"object": "list", "data": models}).encode())
        elif path == "/metrics":
            self.reply(200, self.engine.metrics().encode(), "text/plain; version=0.0.4")
        else:
            self.reply(404, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
        if urlsplit(self.path).path == "/reset_prefix_cache":
            offered = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
            self.reply(200 if offered else 404, b'{"success": true}' if offered else b"{}")
            return
        if self.refused():
            self.reply(401, b'{"error": "Unauthorized"}')
        elif body.get("stream"):
            self.stream(body)
        elif self.engine.refuses(body):
            print(Path(self.engine.faults["refuse_handshake"]).read_text(), flush=True)
            self.reply(500, b'{"error": {"message": "Internal server error"}}')
        else:
            words, offer = self.engine.take(body)
            self.pause(len(words))
            answer = {
                "choices": [{"index": 0, "text": "".join(words), "finish_reason": "length"}],
                "usage": usage(body, words),
                "kv_transfer_params": offer,
            }
            self.reply(200, json.dumps(answer).encode())

    def refused(self) -> bool:
        key = os.environ.get("VLLM_API_KEY")
        return bool(key) and self.headers.get("Authorization") != f"Bearer {key}"

    def stream(self, body: dict[str, Any]) -> None:
        faults = self.engine.faults
        self.engine.streams += 1
        if self.engine.streams == faults["exit_after_streams"]:
            print("stub: engine core died", flush=True)
            os._exit(3)
        if faults["tell_key"]:
            said = f"no: {self.headers['Authorization']} {os.environ.get('MY_LOGIN')}"
            self.reply(500, json.dumps({"error": said}).encode())
            return
        hang = faults["hang_after_streams"]
        if hang is not None and self.engine.streams > hang:
            self.engine.running += 1
            time.sleep(3600)
        if faults["fail_streams"]:
            if isinstance(faults["fail_streams"], str):
                print(Path(faults["fail_streams"]).read_text(), flush=True)
            self.reply(500, b'{"error": "stub: asked to fail"}')
            return
        words, _ = self.engine.take(body, streamed=True)
        prompt = str(body["prompt"])
        if faults["under_load"] is not None and len(prompt.split()) > 20:
            if prompt not in self.engine.asked:
                words = [faults["under_load"]] * len(words)
            self.engine.asked.add(prompt)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        step = int(faults["chunk_tokens"])
        self.engine.running += 1
        time.sleep(faults["first_ms"] / 1000)
        for start in range(0, len(words), step):
            if start:
                time.sleep(step * faults["token_ms"] / 1000)
            text = "".join(words[start : start + step])
            reason = "length" if start + step >= len(words) else None
            self.event({"choices": [{"index": 0, "text": text, "finish_reason": reason}]})
        self.engine.running -= 1
        self.event({"choices": [], "usage": usage(body, words)})
        self.wfile.write(b"data: [DONE]\n\n")

    def pause(self, tokens: int) -> None:
        faults = self.engine.faults
        time.sleep((faults["first_ms"] + (tokens - 1) * faults["token_ms"]) / 1000)

    def event(self, data: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def reply(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def usage(body: dict[str, Any], words: list[str]) -> dict[str, int]:
    return {"prompt_tokens": len(str(body["prompt"]).split()), "completion_tokens": len(words)}


class Server(ThreadingHTTPServer):
    """Room for all requests at once."""

    request_queue_size = 128
    daemon_threads = True


def wait_for_exit(other: str) -> None:
    """Wait until a log beside that of this process says that its server exits."""
    log = Path(os.readlink("/proc/self/fd/1")).with_name(other)
    while not (log.exists() and EXITS in log.read_text()):
        time.sleep(0.01)


def serve(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--kv-transfer-config.kv_role", dest="kv_role")
    options, _ = parser.parse_known_args(argv)
    faults = faults_of(name_of_process())
    print(f"stub: {name_of_process()} starts", flush=True)
    if faults["tell_environment"]:
        print(dict(os.environ), json.dumps(dict(os.environ)), flush=True)
    if faults["log_at_start"]:
        print(Path(faults["log_at_start"]).read_text(), flush=True)
    if faults["ignore_term"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if faults["child"]:
        sleeper = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-I", "-S", "-c", sleeper])
    if faults["exit_at_start"] is not None:
        if faults["exit_after"]:
            wait_for_exit(faults["exit_after"])
        print(EXITS, flush=True)
        sys.exit(faults["exit_at_start"])
    if options.headless:
        signal.pause()
    Handler.engine = Engine(options.model, options.kv_role, faults)
    Server((options.host, options.port), Handler).serve_forever()


def send(url: str, body: dict[str, Any], due: float) -> dict[str, Any]:
    """One streamed request, no earlier than due, as the client's result tells of it."""
    time.sleep(max(0.0, due - time.perf_counter()))
    began = time.perf_counter()
    times: list[float] = []
    tokens, text, error = 0, "", ""
    try:
        for at, data in events(url, body):
            if data.get("choices"):
                times.append(at)
                text += data["choices"][0]["text"]
            tokens = data.get("usage", {}).get("completion_tokens", tokens)
    except (OSError, http.client.HTTPException, ValueError) as trouble:
        error = f"Traceback\n{type(trouble).__name__}: {trouble}"
    failed = bool(error) or not times
    return {
        "ttft": 0.0 if failed else times[0] - began,
        "itl": [] if failed else [b - a for a, b in pairwise(times)],
        "e2el": 0.0 if failed else times[-1] - began,
        "tokens": 0 if failed else tokens,
        "text": text,
        "start": began,
        "queue": began - due,
        "error": error or ("" if times else "no chunk"),
    }


def events(url: str, body: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise ValueError(f"{response.status} {response.reason} {response.read().decode()}")
    while line := response.readline():
        if line.startswith(b"data: {"):
            yield time.perf_counter(), json.loads(line[6:])
    connection.close()


def bench(argv: list[str]) -> None:
    options = read(argv)
    save(options, load(options, made_for(options)))


def read(argv: list[str]) -> argparse.Namespace:
    """The client's options; it ends here if it is told to."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("base-url", "model", "result-dir", "result-filename"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("random-input-len", "random-output-len", "num-prompts", "seed"):
        parser.add_argument(f"--{name}", required=True, type=int)
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--request-rate", type=float, default=math.inf)
    options, _ = parser.parse_known_args(argv)
    faults = faults_of("bench")
    print("stub: bench starts", flush=True)
    if faults["tell_environment"]:
        print(dict(os.environ), flush=True)
    if faults["hang"]:
        time.sleep(3600)
    if faults["kill_once"] and not os.path.exists(faults["kill_once"]):
        Path(faults["kill_once"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if faults["exit_bench"] is not None:
        print("stub: bench cannot", flush=True)
        sys.exit(faults["exit_bench"])
    return options


def made_for(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The requests of a load."""
    chance = random.Random(options.seed)
    return [
        {
            "model": options.model,
            "prompt": " ".join(word(str(chance.random())) for _ in range(options.random_input_len)),
            "max_tokens": options.random_output_len,
            "stream": True,
        }
        for _ in range(options.num_prompts)
    ]


def load(options: argparse.Namespace, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """Send requests; return the result."""
    began = time.perf_counter()
    with ThreadPoolExecutor(options.max_concurrency or len(bodies)) as pool:
        due = [began + number / options.request_rate for number in range(len(bodies))]
        answers = list(pool.map(lambda *each: send(options.base_url, *each), bodies, due))
    return summary(options, answers, time.perf_counter() - began)


def save(options: argparse.Namespace, result: dict[str, Any]) -> None:
    time.sleep(BENCH_REST_S)
    if not faults_of("bench")["no_result"]:
        path = Path(options.result_dir) / options.result_filename
        # Tenths of a microsecond: digits more would make the file's size a matter of luck.
        short = json.loads(json.dumps(result), parse_float=lambda digits: round(float(digits), 7))
        path.write_text(json.dumps(short))


def summary(
    options: argparse.Namespace, answers: list[dict[str, Any]], duration: float
) -> dict[str, Any]:
    """A result of the shape that vLLM 0.32 writes."""
    done = [answer for answer in answers if not answer["error"]]
    outputs = [answer["tokens"] for answer in answers]
    prompts = options.random_input_len * len(done)
    quantities: dict[str, Callable[[dict[str, Any]], list[float]]] = {
        "ttft": lambda a: [a["ttft"]],
        "tpot": lambda a: [(a["e2el"] - a["ttft"]) / (a["tokens"] - 1)] if a["tokens"] > 1 else [],
        "itl": lambda a: list(a["itl"]),
        "e2el": lambda a: [a["e2el"]],
    }
    result: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": "openai",
        "backend": "openai",
        "label": None,
        "model_id": options.model,
        "tokenizer_id": options.model,
        "num_prompts": options.num_prompts,
        "request_rate": "inf" if math.isinf(options.request_rate) else options.request_rate,
        "burstiness": 1.0,
        "max_concurrency": options.max_concurrency,
        "duration": duration,
        "completed": len(done),
        "failed": len(answers) - len(done),
        "total_input_tokens": prompts,
        "total_output_tokens": sum(outputs),
        "request_throughput": len(done) / duration,
        "request_goodput": None,
        "output_throughput": sum(outputs) / duration,
        "total_token_throughput": (prompts + sum(outputs)) / duration,
        "input_lens": [options.random_input_len for _ in answers],
        "output_lens": outputs,
        "ttfts": [answer["ttft"] for answer in answers],
        "itls": [answer["itl"] for answer in answers],
        "latencies": [answer["e2el"] for answer in answers],
        "start_times": [answer["start"] for answer in answers],
        "queue_times": [answer["queue"] for answer in answers],
        "generated_texts": [answer["text"] for answer in answers],
        "errors": [answer["error"] for answer in answers],
        "rtfx": 0.0,
    }
    for name, pick in quantities.items():
        values = sorted(1000 * value for answer in done for value in pick(answer)) or [0.0]
        result[f"mean_{name}_ms"] = statistics.fmean(values)
        result[f"median_{name}_ms"] = statistics.median(values)
        result[f"std_{name}_ms"] = statistics.pstdev(values)
        for percent in (50, 90, 99):
            result[f"p{percent}_{name}_ms"] = values[round((len(values) - 1) * percent / 100)]
    return result


if __name__ == "__main__":
    if sys.argv[1:3] == ["bench", "serve"]:
        bench(sys.argv[3:])
    elif sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2:])
    else:
        sys.exit("usage: vllm_stub.py serve MODEL … | bench serve …")
