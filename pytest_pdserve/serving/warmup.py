"""Warm-up of every prefill-decode pair, and proof that requests take the topology's path."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import httpx

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.serving.answers import Answered
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import printable
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.serving.provenance import endpoint_versions
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.scrape import Counters
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.serving.server_logs import ServerLogs
from pytest_pdserve.serving.streams import Answer
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
"""Requests that are sent through the router at most until every instance has served one."""
COUNTER_S = 15.0
"""Longest wait for a decode instance to count a transfer that it has answered with."""

REMOTE_DECODE: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
"""Asks a prefill instance to keep the KV cache for another (vLLM's NixlConnector usage guide)."""


def prompts() -> Iterator[str]:
    """Short prompts, each different from its first token on."""
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
        """One greedy completion of exactly *tokens* tokens, as the server's JSON.

        :param prompt: text, or token ids.
        :param rank: data-parallel rank that must serve it.
        :raises PathError: if it fails.
        """
        headers = {} if rank is None else {"X-data-parallel-rank": str(rank)}
        body, limits = self._body(prompt, tokens, fields), AnswerLimits(time_s=self._timeout_s)
        with self._logs.telling(f"{url}/v1/completions"):
            answered = self._post(url, body, limits, headers=headers).checked()
        answer = answered.json()
        if not isinstance(answer, dict):
            raise AnswerError(answered.url, f"{answered.said}; expected a JSON object")
        return answer

    def _post(
        self,
        url: str,
        body: Mapping[str, Any],
        limits: AnswerLimits,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        target = f"{url}/v1/completions"
        return read_answer(self._client, "POST", target, limits=limits, data=body, headers=headers)

    def _body(
        self, prompt: str | Sequence[int], tokens: int, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A greedy request of exactly *tokens* tokens."""
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
    ) -> Answer:
        """One greedy completion, streamed and read to its end.

        :raises RefusedError: if the server rejects the request.
        :raises PathError: if it is no answer.
        """
        streamed = {"stream": True, "stream_options": {"include_usage": True}, **fields}
        limits = AnswerLimits(time_s=self._timeout_s, size_mib=1)  # some KB for few tokens
        with self._logs.telling(f"{url}/v1/completions"):
            answered = self._post(url, self._body(prompt, tokens, streamed), limits).checked()
            return read_stream(answered.lines, url)

    def text(self, url: str, prompt: str, *, tokens: int, **fields: Any) -> str:
        """Text of one greedy completion.

        :raises PathError: if it fails or holds no text.
        """
        answer = self.ask(url, prompt, tokens=tokens, **fields)
        try:
            return str(answer["choices"][0]["text"])
        except (KeyError, IndexError, TypeError) as error:
            said = printable(str(answer))
            raise PathError(f"{url} answered a completion without text: {said}") from error

    def count_tokens(self, url: str, text: str) -> int | None:
        """Tokens that the server counts in *text*, sent as a prompt; None if it does not say."""
        try:
            usage = self.ask(url, text, tokens=1).get("usage")
        except PathError:
            return None
        said = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return said if isinstance(said, int) else None

    def ask_engine(
        self, engine: Engine, prompt: str | Sequence[int], *, tokens: int, **fields: Any
    ) -> dict[str, Any]:
        """One completion of exactly *tokens* tokens by one engine.

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

        :param tokens: that the decode engine is asked for.
        :raises PathError: if either fails.
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
    """Return every pair of engines that a request takes, and the engines that answer alone."""
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
    """Move one KV cache over every pair of prefill and decode engines.

    The first transfer of a pair sets its connection up, and would otherwise be measured.

    :returns: pairs.
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
    """Return why *server* does not show the counter *name*; None if it does.

    :raises PathError: if its vLLM is known to show that counter wherever KV is moved.
    """
    if name in counters.counts:
        return None
    version = endpoint_versions(client, _url(server)).get("vllm")
    cause = diagnose_missing(name, version, counts_requests="requests" in counters.counts)
    said = f"{server.name} shows no {BY_NAME[name].samples[0]}: {cause.why}"
    if cause.proves_no_transfer:
        raise PathError(f"{said}, so no KV cache is moved")
    return said


def warm_instances(servers: Sequence[Server], completions: Completions) -> None:
    """Let every engine that answers by itself do one request.

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

    What instances do not count is not proven, and *progress* is told why.

    :returns: requests sent.
    :raises PathError: if an instance stays idle, or for prefill and decode: if transfers are not
        one per request, or one failed.
    """
    asked = [server for server in servers if server.url is not None and server.role in ROLES]
    before = {server.name: scrape(client, _url(server)) for server in asked}
    sent, counting = 0, []
    for server in asked:
        if (silent := why_not_shown("requests", server, before[server.name], client)) is None:
            counting.append(server)
        else:
            progress(f"path not proven: {silent}")
    idle: Sequence[Server] = counting
    for prompt in prompts():
        completions.ask(url, f"path {prompt}", tokens=2)
        sent += 1
        if sent >= len(asked):
            idle = [s for s in idle if not _served(client, s, before[s.name])]
        if not idle or sent >= PROOF_REQUESTS:
            break
    if idle:
        names = ", ".join(server.name for server in idle)
        raise PathError(f"{sent} requests to {url}, and none reached {names}")
    moved = _prove_transfers(client, asked, before, sent, progress)
    if moved and len(counting) == len(asked):
        progress(f"path proven with {sent} requests: {url}")
    return sent


def _prove_transfers(
    client: httpx.Client,
    servers: Sequence[Server],
    before: Mapping[str, Counters],
    sent: int,
    progress: Progress,
) -> bool:
    """Tell whether transfers were one per request, or need not be; False where nobody counts."""
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
    """The row of a server's role; the router's is one that does nothing."""
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
