"""What benchmark clients report of a server that says itself what it truly sent.

    python benchmarks/client/compare.py [--streams 1,64,256,1024] [--rounds 2] [--json FILE]

A server of known timing answers every request with a first chunk after 200 ms and further ones
every 25 ms, and tells when it sent them: the compiled one, or ``--server asyncio``, written apart
from it, to check it at up to 64 streams. Clients run in turn, in rounds, beside each other:

``vllm-command``  ``vllm bench serve``, a command per run
``vllm``          the same functions in one process (pytest_pdserve/clients/vllm_worker.py)
``precise``       pytest_pdserve/clients/precise.py
``guidellm``      in an environment of its own, which is made once
``aiperf``        likewise

Reported is the median over rounds of what a client says against what the server did; seconds
outside the load are wall time less the load's own duration. A client that had fewer requests in
flight at once than asked is marked, and so is one that did not end well.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import platformdirs
from contenders import CLIENTS
from contenders import Contender
from contenders import ContenderError
from contenders import versions
from table import markdown
from table import targets

from pytest_pdserve.serving.model import make_tiny_model
from pytest_pdserve.study.client_offset import TimedLoad
from pytest_pdserve.study.client_offset import TimedServer
from pytest_pdserve.study.client_offset import offset_of
from pytest_pdserve.study.client_offset import timed_server
from pytest_pdserve.values.errors import PdserveError


def run_all(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run every client at every number of streams, in rounds; yield a row per run."""
    asyncio = options.server == "asyncio"
    binary = None if options.server in ("compiled", "asyncio") else Path(options.server)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(
            timed_server(folder, kind="asyncio" if asyncio else "compiled", binary=binary)
        )
        make_tiny_model(folder / "model")
        contenders = []
        for name in options.clients:
            made = Contender(
                name,
                folder=folder,
                model=str(folder / "model"),
                environments=options.environments,
            )
            stack.callback(made.close)
            contenders.append(made)
        began = time.monotonic()
        for streams in options.streams:
            for number in range(options.rounds):
                for contender in contenders:
                    row = run_one(contender, server, streams, number)
                    if options.verbose:
                        sys.stderr.write(f"{time.monotonic() - began:.0f} s: {json.dumps(row)}\n")
                    yield row


def run_one(contender: Contender, server: TimedServer, streams: int, number: int) -> dict[str, Any]:
    """Run a client once."""
    row: dict[str, Any] = {"client": contender.name, "streams": streams}
    server.truth()
    try:
        report, watch, seconds = contender.run(
            TimedLoad(base_url=server.url, requests=streams, seed=number)
        )
        rows = server.truth()
        found = offset_of(report.metrics, rows, streams)
    except (ContenderError, PdserveError) as error:
        return row | {"error": str(error)}
    load = rows[-streams:]
    return row | {
        "reported": dict(found.reported),
        "true": dict(found.true),
        "reached": found.reached,
        "answered": found.answered,
        "failed": report.failed,
        "outside_s": seconds - report.duration_s,
        "cpu_s": watch.total_s,
        "cores": watch.cores(int(load[:, 0].min()), int(load[:, 2].max())),
    }


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="1,64,256,1024")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--server", default="compiled", help="compiled, asyncio, or timed_server, built elsewhere"
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=platformdirs.user_cache_path("pytest-pdserve") / "clients",
        help="Where guidellm and aiperf are installed (default: %(default)s)",
    )
    parser.add_argument("--verbose", action="store_true", help="A line per run")
    options = parser.parse_args()
    options.streams = [int(each) for each in options.streams.split(",")]
    options.clients = options.clients.split(",")
    options.environments = options.environments.absolute()
    if unknown := set(options.clients) - set(CLIENTS):
        parser.error(f"--clients {', '.join(unknown)}: expected {', '.join(CLIENTS)}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(run_all(options))
    except KeyboardInterrupt:
        sys.stdout.write("interrupted: the tables have what was measured until then\n")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    installed = versions(options.environments, options.clients)
    sys.stdout.write(
        f"{markdown(rows)}\n\n{targets(rows)}\n\n{os.cpu_count()} cores, {options.rounds} rounds, "
        f"server {options.server}, {', '.join(installed.values()) or 'no others'}, "
        f"{time.monotonic() - began:.0f} s in all\n"
    )


if __name__ == "__main__":
    main()
