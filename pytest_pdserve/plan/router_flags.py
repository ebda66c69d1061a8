"""Flags of ``vllm-router``: those that the plan sets, and those of each release."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.plan.serve_flags import WrittenFlag
from pytest_pdserve.plan.serve_flags import flag_name

RouterFlags = Mapping[str, tuple[str, ...]]
"""Allowed values by flag; empty if any value is allowed."""

_TOPOLOGY = "the topology says it"
_PORTS = "[ports] http says it"
_BIND_HOST = "[cluster] bind_host says it"
WRITTEN: tuple[WrittenFlag, ...] = (
    WrittenFlag(flag="--host", instead=_BIND_HOST),
    WrittenFlag(flag="--port", instead=_PORTS),
    WrittenFlag(flag="--prometheus-host", instead=_BIND_HOST),
    WrittenFlag(flag="--prometheus-port", instead=_PORTS),
    WrittenFlag(
        flag="--vllm-pd-disaggregation", aliases=("--pd-disaggregation",), instead=_TOPOLOGY
    ),
    WrittenFlag(flag="--prefill", instead=_TOPOLOGY),
    WrittenFlag(flag="--decode", instead=_TOPOLOGY),
    WrittenFlag(flag="--worker-urls", instead=_TOPOLOGY),
    WrittenFlag(flag="--intra-node-data-parallel-size", instead=_TOPOLOGY),
    WrittenFlag(flag="--api-key", instead="the session makes a key of its own"),
)
"""Flags that the plan sets; ``--policy`` is set too, but may be replaced."""

_ADDED: Mapping[str, str] = {
    "0.1.9": """
        --balance-abs-threshold --balance-rel-threshold --cache-threshold --cb-failure-threshold
        --cb-success-threshold --cb-timeout-duration-secs --cb-window-duration-secs
        --cors-allowed-origins --decode-policy --decode-selector --disable-circuit-breaker
        --disable-retries --enable-igw --eviction-interval-secs --health-check-endpoint
        --health-check-interval-secs --health-check-timeout-secs --health-failure-threshold
        --health-success-threshold --log-dir --log-level --max-concurrent-requests
        --max-payload-size --max-tree-size --mini-lb --model-path --policy --prefill-policy
        --prefill-selector --queue-size --queue-timeout-secs --rate-limit-tokens-per-second
        --request-id-headers --request-timeout-secs --retry-backoff-multiplier
        --retry-initial-backoff-ms --retry-jitter-factor --retry-max-backoff-ms
        --retry-max-retries --selector --service-discovery --service-discovery-namespace
        --service-discovery-port --tokenizer-path --worker-startup-check-interval
        --worker-startup-timeout-secs
    """,
    "0.1.10": "",
    "0.1.12": "",
    "0.1.13": "",
    "0.1.14": "--kv-connector",
    "0.1.15": "--vllm-discovery-address",
    "0.1.16": """
        --enable-program-scheduling --program-scheduling-config-json --wasm-middleware
        --wasm-middleware-route --wasm-middleware-sha256
    """,
    "0.1.17": """
        --kv-aware-session-affinity-ttl-secs --kv-event-block-size --kv-event-model
        --kv-event-replay-source --kv-event-source --kv-penalty-disk --kv-penalty-external
        --kv-penalty-host --pd-kv-events --router-temperature
    """,
}
"""Flags added by each release, oldest first, without those that the plan sets."""
_REMOVED: Mapping[str, str] = {"0.1.15": "--model-path --tokenizer-path"}
_POLICIES: Mapping[str, str] = {
    "0.1.9": "cache_aware power_of_two random round_robin",
    "0.1.12": "consistent_hash",
    "0.1.17": "kv_aware sticky_least_loaded",
}
_POLICY_FLAGS = ("--policy", "--prefill-policy", "--decode-policy")
RELEASES = tuple(_ADDED)
"""Releases whose flags are known, oldest first."""


def flags_of_release(release: str) -> RouterFlags:
    """Return the flags of one of :data:`RELEASES` that a system file may set."""
    flags: dict[str, None] = {}
    policies: list[str] = []
    for each in RELEASES[: RELEASES.index(release) + 1]:
        flags |= dict.fromkeys(_ADDED[each].split())
        for flag in _REMOVED.get(each, "").split():
            del flags[flag]
        policies += _POLICIES.get(each, "").split()
    return {flag: tuple(policies) if flag in _POLICY_FLAGS else () for flag in flags}


def flags_of_all_releases() -> RouterFlags:
    """Return the flags of all known releases, with the values of the newest."""
    merged: dict[str, tuple[str, ...]] = {}
    for release in RELEASES:
        merged |= flags_of_release(release)
    return merged


def flags_in_help(text: str) -> RouterFlags:
    """Return the flags in *text*, the output of ``vllm-router --help``."""
    flags: dict[str, tuple[str, ...]] = {}
    for line in re.findall(r"^  (-.*)$", text, re.MULTILINE):
        option, *_ = re.split(r" {2,}", line)
        for flag, values in re.findall(r"(--[a-z][a-z0-9-]*)(?: \{([^}]*)\})?", option):
            flags.setdefault(flag, tuple(values.split(",")) if values else ())
    return flags


def repeated_router_args(args: Sequence[str]) -> Iterator[tuple[int, str, WrittenFlag]]:
    """Yield position and name of every flag in *args* that the plan sets, and that flag."""
    for position, word in enumerate(args):
        name = flag_name(word)
        written = next((flag for flag in WRITTEN if name and flag.matches(name)), None)
        if written is not None:
            yield position, name, written


def unknown_router_args(
    args: Sequence[str], known: RouterFlags, router: str
) -> Iterator[tuple[int, str]]:
    """Yield position and a sentence for every flag in *args* with an unknown name or value.

    Abbreviations are unknown, since they may be ambiguous in the next release.

    :param known: flags of the router.
    :param router: name of the router, for messages.
    """
    for position, word in enumerate(args):
        if not re.match(r"--?[A-Za-z]", word):
            continue
        flag, equals, value = word.partition("=")
        following = args[position + 1] if position + 1 < len(args) else ""
        values, given = known.get(flag), value if equals else following
        if values is None:
            yield (
                position,
                f"{flag} is not a flag of {router}; correct it, or name it in router.extra_flags "
                "if your router has it",
            )
        elif values and given not in values:
            yield position, f"{flag} {given!r}: {router} takes {', '.join(values)}"
