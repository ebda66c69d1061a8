#!/usr/bin/env python3
"""A stand-in for ``vllm-router``: round robin, or prefill then decode; faults on demand.

``PDSTUB_FAULTS`` holds a JSON object with this process's faults under ``router``: ``exit_at_start``
(exit code), ``exit_after`` (die within the N-th request), ``only_first`` (use no other worker),
``skip_prefill`` (let decode instances do all), ``delay_ms`` (wait before each request).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REMOTE_DECODE = {"do_remote_decode": True, "do_remote_prefill": False}


class Routes:
    """Which workers the next request goes to."""

    def __init__(self, options: argparse.Namespace, faults: Mapping[str, Any]) -> None:
        self.faults = faults
        self.prefills: list[str] = options.prefill
        self.decodes: list[str] = options.decode or options.worker_urls
        self._number = 0
        self._lock = threading.Lock()

    def next(self) -> tuple[str | None, str]:
        """Prefill worker, if there are any, and the one that generates."""
        with self._lock:
            self._number += 1
            number = 0 if self.faults.get("only_first") else self._number
        if self._number == self.faults.get("exit_after"):
            print("stub: router died", flush=True)
            os._exit(4)
        if not self.prefills or self.faults.get("skip_prefill"):
            return None, self.decodes[number % len(self.decodes)]
        turn, first = divmod(number, len(self.prefills))
        return self.prefills[first], self.decodes[turn % len(self.decodes)]


class Handler(BaseHTTPRequestHandler):
    """Forwards completions."""

    protocol_version = "HTTP/1.1"
    routes: Routes

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.routes.faults.get("delay_ms", 0.0) / 1000)
        prefill, worker = self.routes.next()
        key = str(self.headers.get("Authorization", ""))
        if self.routes.prefills:
            key = f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"
        if prefill is not None:
            first = {**body, "max_tokens": 1, "stream": False, "kv_transfer_params": REMOTE_DECODE}
            response = ask(prefill, first, key)
            if response.status != 200:
                self.forward(response)
                return
            body["kv_transfer_params"] = json.loads(response.read())["kv_transfer_params"]
        self.forward(ask(worker, body, key))

    def forward(self, response: http.client.HTTPResponse) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", str(response.headers["Content-Type"]))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while data := response.read1(65536):
            self.wfile.write(data)
            self.wfile.flush()


def ask(url: str, body: Mapping[str, Any], key: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": key}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    return connection.getresponse()


class Server(ThreadingHTTPServer):
    """Room for all requests at once; a worker that is gone is the client's trouble."""

    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what went wrong with a request."""
        print(f"stub: {sys.exc_info()[1]!r}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--vllm-pd-disaggregation", action="store_true")
    parser.add_argument("--prefill", action="append", default=[])
    parser.add_argument("--decode", action="append", default=[])
    parser.add_argument("--worker-urls", nargs="+", default=[])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options, _ = parser.parse_known_args()
    faults = json.loads(os.environ.get("PDSTUB_FAULTS", "{}")).get("router", {})
    print("stub: router starts", flush=True)
    if faults.get("exit_at_start") is not None:
        print("stub: no route", flush=True)
        sys.exit(faults["exit_at_start"])
    Handler.routes = Routes(options, faults)
    Server((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
