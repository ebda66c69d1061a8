"""Tries that change what servers answer, what a cluster's commands print, and what logs say."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import socket
import threading
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec

from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.allocation import log_cause
from pytest_pdserve.backends.allocation import log_tail
from pytest_pdserve.backends.hosts.inventory import Inventory
from pytest_pdserve.backends.hosts.inventory import MalformedInventoryError
from pytest_pdserve.backends.hosts.inventory import ProcessId
from pytest_pdserve.backends.hosts.inventory import StartedGroup
from pytest_pdserve.backends.hosts.inventory import inventory_folder
from pytest_pdserve.backends.hosts.inventory import parse_inventory
from pytest_pdserve.backends.hosts.inventory import this_host
from pytest_pdserve.backends.images import last_object
from pytest_pdserve.backends.slurm.holder import NODES
from pytest_pdserve.backends.slurm.holder import read_reports
from pytest_pdserve.backends.slurm.job_log import cause_in_log
from pytest_pdserve.backends.slurm.job_state import parse_state
from pytest_pdserve.backends.slurm.node_states import nodes_text
from pytest_pdserve.backends.slurm.node_states import parse_nodes
from pytest_pdserve.backends.slurm.options import NodeFacts
from pytest_pdserve.backends.slurm.reasons import explain
from pytest_pdserve.backends.slurm.submitting import is_refusal
from pytest_pdserve.backends.slurm.submitting import parse_answer
from pytest_pdserve.backends.slurm.submitting import refusal_text
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.placement import place
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.building import RunFacts
from pytest_pdserve.results.building import build_record
from pytest_pdserve.results.store import create_run
from pytest_pdserve.results.store import load_bench_result
from pytest_pdserve.results.store import load_record
from pytest_pdserve.serving.endpoint import check_answers
from pytest_pdserve.serving.endpoint import find_model
from pytest_pdserve.serving.provenance import endpoint_versions
from pytest_pdserve.serving.provenance import longest_model_len
from pytest_pdserve.serving.scrape import difference
from pytest_pdserve.serving.scrape import parse_counters
from pytest_pdserve.serving.scrape import reset_prefix_cache
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.serving.scrape import scrape_router
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.simulation.deployment import SimulatedDeployment
from pytest_pdserve.simulation.deployment import observation_of
from pytest_pdserve.simulation.model import simulate
from pytest_pdserve.values.handshakes import engine_facts
from pytest_pdserve.values.handshakes import refused_engine
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import ServedCounts
from pytest_pdserve.values.topology import Topology
from tests.support.fuzz.changes import changed
from tests.support.fuzz.changes import value
from tests.support.fuzz.seeds import DATA
from tests.support.fuzz.seeds import UNIT
from tests.support.fuzz.world import Outcome
from tests.support.fuzz.world import World

NOW = "2026-11-27T12:00:00.000Z"
_COMPLETION = json.dumps(
    {
        "id": "cmpl-1",
        "choices": [{"index": 0, "text": "bado", "finish_reason": "length", "logprobs": None}],
        "usage": {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": 7},
        "kv_transfer_params": {"remote_engine_id": "a", "remote_block_ids": [1], "do_remote": True},
    }
)
_STREAM = (
    f"data: {_COMPLETION}\n\n: ping\n\n"
    'data: {"choices": [], "usage": {"completion_tokens": 1}}\n\ndata: [DONE]\n\n'
)
_MODELS = json.dumps(
    {"object": "list", "data": [{"id": "house/model", "root": "model", "max_model_len": 8192}]}
)
_SYSTEM = "att"


class _Server:
    """Answers every request with the same bytes, and hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5.0)
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(65536) or b"\r\n\r\n"
                head, _, body = asked.partition(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                while len(body) < length:
                    body += connection.recv(65536) or b" " * length
                connection.sendall(self.answer)


@functools.cache
def _server() -> _Server:
    return _Server()


def served(rng: random.Random, world: World) -> Outcome:
    """Have a server answer with what is changed, and ask it all that a session asks."""
    system = load_system(_SYSTEM, [world.project / "baselines"])
    server = _server()
    endpoint = Endpoint(url=server.url, api_key="", model=None, instances=())
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        completions = Completions(client, "house/model", 3.0)
        asked: dict[str, tuple[str, Callable[[], object]]] = {
            "model": (_MODELS, lambda: find_model(client, endpoint, system)),
            "longest": (_MODELS, lambda: longest_model_len(client, server.url)),
            "version": ('{"version": "0.15.1"}', lambda: endpoint_versions(client, server.url)),
            "answers": (_COMPLETION, lambda: check_answers(completions, endpoint, system)),
            "one": (_COMPLETION, lambda: completions.text(server.url, "a", tokens=1)),
            "stream": (_STREAM, lambda: completions.stream(server.url, "a", tokens=1)),
            "count": (
                '{"count": 3, "tokens": [1]}',
                lambda: completions.count_tokens(server.url, "a"),
            ),
            "metrics": (_metrics(rng), lambda: scrape(client, server.url)),
            "router": (_metrics(rng), lambda: scrape_router(client, server.url)),
            "reset": ('{"success": true}', lambda: reset_prefix_cache(client, server.url)),
        }
        body, ask = asked[rng.choice(sorted(asked))]
        server.answer = _answer(rng, body.encode())
        return world.library(ask)


def _answer(rng: random.Random, body: bytes) -> bytes:
    if rng.random() < 0.8:
        body = changed(rng, body)
    status = rng.choice(
        (b"200 OK",) * 8 + (b"404 Not Found", b"500 x", b"301 Moved", b"204 No", b"999")
    )
    kind = rng.choice(
        (b"application/json", b"text/event-stream", b"text/html; charset=klingon", b"")
    )
    headers = b"Content-Type: %s\r\nContent-Length: %d\r\n" % (kind, len(body))
    whole = b"HTTP/1.1 %s\r\n%sConnection: close\r\n\r\n%s" % (status, headers, body)
    return changed(rng, whole) if rng.random() < 0.2 else whole


def _metrics(rng: random.Random) -> str:
    return rng.choice(_texts("metrics")).read_text()


@functools.cache
def _texts(folder: str) -> tuple[Path, ...]:
    return tuple(sorted((DATA / folder).glob("*.txt")))


def printed(rng: random.Random, world: World) -> Outcome:
    """Change what Slurm prints or a log holds, and read it."""
    source = rng.choice((*_texts("slurm"), *_texts("logs"), *_texts("metrics")))
    content = changed(rng, source.read_bytes())
    text = content.decode("utf-8", "replace")
    log = world.project / "a.log"
    log.write_bytes(content)
    readers: tuple[Callable[[], object], ...] = (
        lambda: _state(text),
        lambda: nodes_text(parse_nodes(text)),
        lambda: explain(text).text,
        lambda: parse_answer(text),
        lambda: (is_refusal(text), refusal_text(text, "[slurm]")),
        lambda: cause_in_log(text),
        lambda: log_cause(log),
        lambda: log_tail(log),
        lambda: (engine_facts(text.split("\n")), refused_engine(text.split("\n"))),
        lambda: last_object(log),
    )
    return world.library(rng.choice(readers))


def _state(text: str) -> None:
    state = parse_state(text)
    print(state.trouble("7"), state.why.text, state.pending, state.over, state.ending)


def reported(rng: random.Random, world: World) -> Outcome:
    """Change what nodes and killed sessions wrote down of themselves."""
    if rng.random() < 0.4:
        folder = world.project / "allocation"
        facts = NodeFacts(
            node="h0",
            address="10.0.0.1",
            interface="eth0",
            interfaces=("eth0",),
            gpus=8,
            devices=("/dev/a",),
            memory_available_gib=9.0,
            host={"cpu": "Xeon"},
            versions={"kernel": "6"},
        )
        (folder / NODES).mkdir(parents=True)
        (folder / NODES / "h0.json").write_bytes(changed(rng, msgspec.json.encode(facts)))
        return world.library(lambda: read_reports(folder, ["h0", "h1"]))
    content = changed(rng, msgspec.json.encode(_inventory()))
    if rng.random() < 0.5:

        def read() -> None:
            with contextlib.suppress(MalformedInventoryError):
                parse_inventory(content)

        return world.library(read)
    inventory_folder().mkdir(parents=True)
    (inventory_folder() / "a.json").write_bytes(content)
    return world.pdserve("clean", "--dry-run")


def _inventory() -> Inventory:
    group = StartedGroup(
        name="decode[1]", leader=ProcessId(pid=4_000_000, started=1), program="vllm", since=NOW
    )
    return Inventory(
        schema_version=1,
        host=this_host(),
        session=ProcessId(pid=4_000_001, started=1),
        guard=None,
        since=NOW,
        run_folder="/nowhere/run",
        temporary_folder="/nowhere/tmp",
        stop_s=1.0,
        groups=(group,),
        locks=("/nowhere/lock",),
    )


def measured(rng: random.Random, world: World) -> Outcome:
    """Change the client's result and the counters of a run, and make its record and its verdict."""
    path = world.project / "result.json"
    path.write_bytes(rng.choice(_results()).read_bytes())
    if rng.random() < 0.8:
        path.write_bytes(changed(rng, path.read_bytes()))

    def record() -> None:
        seen = replace(_seen(world), result=load_bench_result(path), served=tuple(_counts(rng)))
        store = create_run(world.project / "runs", "mine")
        facts = RunFacts(
            system="mine",
            repeat=0,
            start=0,
            started_at=NOW,
            finished_at=NOW,
            endpoint="http://h:1",
            timings_s={"bench": 1.0},
            simulated=True,
        )
        provenance = Provenance(versions={}, host={}, fingerprint="0123456789ab")
        _, written = build_record(seen, facts, provenance, store)
        print(load_record(written).findings)

    return world.library(record)


@functools.cache
def _results() -> tuple[Path, ...]:
    return tuple(sorted((UNIT / "bench").glob("*.json")))


def _seen(world: World) -> Observation:
    system = load_system("mine", [world.project / "baselines"])
    topology = Topology.parse("1p1d")
    placement = place(topology, ("node0", "node1"), 8)
    deployment = SimulatedDeployment(topology=topology, system=system, placement=placement)
    load = system.sweep.workloads()[0]
    return observation_of(deployment, load, simulate(placement, load, system))


def _counts(rng: random.Random) -> Iterator[ServedCounts]:
    for role in ("prefill", "decode"):
        before, after = (parse_counters(_changed_metrics(rng)) for _ in range(2))
        counts = difference(f"{role}[0]", role, before, after)
        if rng.random() < 0.3:
            number = value(rng)
            odd = float(number) if isinstance(number, int | float) and abs(number) < 1e300 else 0.0
            changes: dict[str, Any] = {rng.choice(("requests", "kv_bytes", "preemptions")): odd}
            counts = replace(counts, **changes)
        yield counts


def _changed_metrics(rng: random.Random) -> str:
    """Return counters that can be read, changed where that is so."""
    text = _metrics(rng)
    odd = changed(rng, text.encode()).decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        parse_counters(odd)
        return odd
    return ""
