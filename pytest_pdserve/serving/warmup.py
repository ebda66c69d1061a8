"""Warm up every prefill-decode pair, and prove that requests take the topology's path."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import httpx

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import Response
from pytest_pdserve.serving.answers import printable
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.serving.provenance import endpoint_versions
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.serving.server_logs import ServerLogs
from pytest_pdserve.serving.streams import Completion
from pytest_pdserve.serving.streams import read_stream
from pytest_pdserve.values.counters import BY_NAME
from pytest_pdserve.values.counters import counted_per_rank
from pytest_pdserve.values.counters import diagnose_missing
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.roles import AGGREGATED
from pytest_pdserve.values.roles import ROLES
from pytest_pdserve.values.roles import Role

Engine = tuple[Server, int]
"""A server and the data-parallel rank of one of its engines."""
WARM_TOKENS = 8
PROOF_REQUESTS = 64
"""Most requests that are sent through the router until every instance has served one."""
COUNTER_S = 15.0
"""Longest wait, seconds, for a decode instance to count the transfer of an answered request."""

REMOTE_DECODE: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
"""Makes a prefill instance keep the KV cache for another (vLLM's NixlConnector usage guide)."""


def prompts() -> Iterator[str]:
    """Yield short prompts that differ from the first token on."""
    number = 0
    while True:
        number += 1
        yield " ".join(str(number * step % 9973) for step in (7, 11, 13, 17, 19, 23))


class Completions:
    """Sends completion requests for one model."""

    def __init__(
        self,
        client: httpx.Client,
        model: str,
        timeout_s: float,
        *,
        logs: ServerLogs | None = None,
    ) -> None:
        self._client = client
        self._model = model
        self._timeout_s = timeout_s
        self._logs = logs or ServerLogs(servers=())

    def ask(
        self,
        url: str,
        prompt: str | Sequence[int],
        *,
        tokens: int,
        rank: int | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Return the server's JSON for a greedy completion of exactly *tokens* tokens.

        :param prompt: text, or token ids.
        :param rank: data-parallel rank that must serve it.
        :raises PathError: if it fails.
        """
        headers = {} if rank is None else {"X-data-parallel-rank": str(rank)}
        body, limits = self._body(prompt, tokens, fields), AnswerLimits(time_s=self._timeout_s)
        with self._logs.explaining_errors(f"{url}/v1/completions"):
            response = self._post(url, body, limits, headers=headers).checked()
        answer = response.json()
        if not isinstance(answer, dict):
            raise AnswerError(response.url, f"{response.outcome}; expected a JSON object")
        return answer

    def _post(
        self,
        url: str,
        body: Mapping[str, Any],
        limits: AnswerLimits,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        target = f"{url}/v1/completions"
        return read_answer(self._client, "POST", target, limits=limits, data=body, headers=headers)

    def _body(
        self, prompt: str | Sequence[int], tokens: int, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the JSON of a greedy request for exactly *tokens* tokens."""
        return {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            **fields,
        }

    def stream(
        self, url: str, prompt: str | Sequence[int], *, tokens: int, **fields: Any
    ) -> Completion:
        """Return a greedy completion, streamed and read to its end.

        :raises RefusedError: if the server rejects the request.
        :raises PathError: if it fails otherwise.
        """
        streamed = {"stream": True, "stream_options": {"include_usage": True}, **fields}
        limits = AnswerLimits(time_s=self._timeout_s, size_mib=1)  # some KB for few tokens
        with self._logs.explaining_errors(f"{url}/v1/completions"):
            response = self._post(url, self._body(prompt, tokens, streamed), limits).checked()
            return read_stream(response.lines, url)

    def text(self, url: str, prompt: str, *, tokens: int, **fields: Any) -> str:
        """Return the text of a greedy completion.

        :raises PathError: if it fails or has no text.
        """
        answer = self.ask(url, prompt, tokens=tokens, **fields)
        try:
            return str(answer["choices"][0]["text"])
        except (KeyError, IndexError, TypeError) as error:
            shown = printable(str(answer))
            raise PathError(f"{url} answered a completion without text: {shown}") from error

    def count_tokens(self, url: str, text: str) -> int | None:
        """Return the server's token count of *text*, sent as a prompt; None if not reported."""
        try:
            usage = self.ask(url, text, tokens=1).get("usage")
        except PathError:
            return None
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return tokens if isinstance(tokens, int) else None

    def ask_engine(
        self, engine: Engine, prompt: str | Sequence[int], *, tokens: int, **fields: Any
    ) -> dict[str, Any]:
        """Return the server's JSON for a completion of exactly *tokens* tokens by one engine.

        :raises PathError: if it fails.
        """
        server, rank = engine
        pinned = rank if server.engines > 1 else None
        return self.ask(_url(server), prompt, tokens=tokens, rank=pinned, **fields)

    def transfer(
        self,
        first_engine: Engine,
        other: Engine,
        prompt: str | Sequence[int],
        *,
        tokens: int = WARM_TOKENS,
    ) -> None:
        """Prefill *prompt* on one engine and decode it on *other*, as the router would.

        :param tokens: tokens that the decode engine generates.
        :raises PathError: if either request fails.
        """
        params = dict(REMOTE_DECODE)
        prefill, _ = first_engine
        first = self.ask_engine(first_engine, prompt, tokens=1, kv_transfer_params=params)
        if not first.get("kv_transfer_params"):
            raise PathError(
                f"{prefill.name} kept no KV cache for another instance (kv_transfer_params)"
            )
        params = first["kv_transfer_params"]
        self.ask_engine(other, prompt, tokens=tokens, kv_transfer_params=params)


def pairs_of(servers: Sequence[Server]) -> tuple[list[tuple[Engine, Engine]], list[Engine]]:
    """Return all pairs of prefill and decode engines, and all aggregated engines."""
    decodes = [s for s in servers if _role(s).warmed_with and s.url is not None]
    pairs = [
        (prefill, (decode, rank))
        for decode in decodes
        for rank in range(decode.engines)
        for name in _role(decode).warmed_with
        for prefill in _engines(servers, name)
    ]
    return pairs, _engines(servers, AGGREGATED)


def warm_pairs(
    servers: Sequence[Server], completions: Completions, client: httpx.Client, progress: Progress
) -> int:
    """Move one KV cache between every pair of prefill and decode engines.

    The first transfer of a pair sets up its connection, and would otherwise be measured.

    :returns: number of pairs.
    :raises PathError: if a decode instance does not count its transfers.
    """
    prompt = prompts()
    pairs = 0
    for decode in (s for s in servers if _role(s).warmed_with and s.url is not None):
        assert decode.url is not None
        prefills = [e for name in _role(decode).warmed_with for e in _engines(servers, name)]
        before = scrape(client, decode.url)
        for rank in range(decode.engines):
            for prefill in prefills:
                completions.transfer(prefill, (decode, rank), next(prompt))
                pairs += 1
        expected = decode.engines * len(prefills)
        ranks = max(server.ranks for server in (decode, *(s for s, _ in prefills)))
        if (silent := why_not_shown("kv_transfers", decode, before, client)) is not None:
            progress(f"{decode.name}: {expected} of its pairs warm, not proven: {silent}")
            continue
        counted = _transfers_after(client, decode.url, before, expected)
        if not counted_per_rank(counted, expected, ranks):
            raise PathError(
                f"{decode.name} counted {counted:g} NIXL transfers for {expected} warm-up requests"
            )
        progress(f"{decode.name}: {expected} of its pairs warm")
    return pairs


def why_not_shown(
    name: str, server: Server, counters: Counters, client: httpx.Client
) -> str | None:
    """Return a sentence about why *server* lacks the counter *name*; None if it has it.

    :raises PathError: if its vLLM would have that counter if it moved KV caches.
    """
    if name in counters.counts:
        return None
    version = endpoint_versions(client, _url(server)).get("vllm")
    cause = diagnose_missing(name, version, counts_requests="requests" in counters.counts)
    sentence = f"{server.name} shows no {BY_NAME[name].samples[0]}: {cause.why}"
    if cause.proves_no_transfer:
        raise PathError(f"{sentence}, so no KV cache is moved")
    return sentence


def warm_instances(servers: Sequence[Server], completions: Completions) -> None:
    """Send one request to every aggregated engine.

    :raises PathError: if one fails.
    """
    prompt = prompts()
    for engine in _engines(servers, AGGREGATED):
        completions.ask_engine(engine, next(prompt), tokens=WARM_TOKENS)


def prove_path(
    url: str,
    servers: Sequence[Server],
    completions: Completions,
    client: httpx.Client,
    progress: Progress,
) -> int:
    """Send requests to *url* until every instance has served one.

    Instances without the counters are not proven; the reason is a progress message.

    :returns: number of requests sent.
    :raises PathError: if an instance stays idle, or for prefill and decode: if transfers are not
        one per request, or one failed.
    """
    instances = [server for server in servers if server.url is not None and server.role in ROLES]
    before = {server.name: scrape(client, _url(server)) for server in instances}
    sent, counting = 0, []
    for server in instances:
        if (silent := why_not_shown("requests", server, before[server.name], client)) is None:
            counting.append(server)
        else:
            progress(f"path not proven: {silent}")
    idle: Sequence[Server] = counting
    for prompt in prompts():
        completions.ask(url, f"path {prompt}", tokens=2)
        sent += 1
        if sent >= len(instances):
            idle = [s for s in idle if not _served(client, s, before[s.name])]
        if not idle or sent >= PROOF_REQUESTS:
            break
    if idle:
        names = ", ".join(server.name for server in idle)
        raise PathError(f"{sent} requests to {url}, and none reached {names}")
    moved = _prove_transfers(client, instances, before, sent, progress)
    if moved and len(counting) == len(instances):
        progress(f"path proven with {sent} requests: {url}")
    return sent


def _prove_transfers(
    client: httpx.Client,
    servers: Sequence[Server],
    before: Mapping[str, Counters],
    sent: int,
    progress: Progress,
) -> bool:
    """Return whether it is proven that each request made one transfer, if it must.

    :returns: False if an instance does not count transfers.
    :raises PathError: if transfers are not one per request, or one failed.
    """
    decodes = [server for server in servers if _role(server).pulls_kv]
    for server in decodes:
        if silent := why_not_shown("kv_transfers", server, before[server.name], client):
            progress(f"path not proven: {silent}")
            return False
    if not decodes:
        return True
    moved = failed = 0.0
    deadline = time.monotonic() + COUNTER_S
    while time.monotonic() < deadline:
        after = {server.name: scrape(client, _url(server)) for server in decodes}
        moved = sum(_delta(before[n], after[n], "kv_transfers") for n in after)
        failed = sum(_delta(before[n], after[n], "kv_failed") for n in after)
        if moved >= sent:
            break
        time.sleep(0.1)
    ranks = max(server.ranks for server in servers)
    if not counted_per_rank(moved, sent, ranks) or failed:
        raise PathError(
            f"{sent} requests through prefill and decode moved {moved:g} KV caches over NIXL, "
            f"{failed:g} failed; expected one each and none"
        )
    return True


def _engines(servers: Sequence[Server], role: str) -> list[Engine]:
    return [
        (server, rank)
        for server in servers
        if server.role == role and server.url is not None
        for rank in range(server.engines)
    ]


def _role(server: Server) -> Role:
    """Return the role of a server; for the router an empty one."""
    return ROLES.get(server.role, Role(name=server.role))


def _url(server: Server) -> str:
    assert server.url is not None
    return server.url


def _delta(before: Counters, after: Counters, name: str) -> float:
    return (after.get(name) or 0.0) - (before.get(name) or 0.0)


def _served(client: httpx.Client, server: Server, before: Counters) -> bool:
    return _delta(before, scrape(client, _url(server)), "requests") > 0


def _transfers_after(
    client: httpx.Client,
    url: str,
    before: Counters,
    expected: int,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    deadline = clock() + COUNTER_S
    while True:
        counted = _delta(before, scrape(client, url), "kv_transfers")
        if counted >= expected or clock() > deadline:
            return counted
        time.sleep(0.1)
