"""Refused KV handshakes in the logs of instances: between which instances, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

_REFUSED = re.compile(r"handshake(?:_setup)?_failed\b.*'remote_engine_id': '(?P<engine>[\w.-]+)'")
"""Log line of vLLM's NIXL connector for a failed handshake (``base_worker.py``, 0.32)."""
_ENGINE = re.compile(r"\bengine_id: (?P<engine>[\w-]+)")
"""Log line of vLLM for the engine id of a KV connector."""
_RANK = re.compile(r"_dp\d+$")
"""Suffix of the engine id of a data-parallel rank."""
_FACTS = {
    "vLLM version": r"Initializing a V1 LLM engine \(v(?P<value>[^)]+)\)",
    "model": r"LLM engine .*\bmodel='(?P<value>[^']+)'",
    "dtype": r"LLM engine .*\bdtype=(?:torch\.)?(?P<value>\w+)",
    "quantization": r"LLM engine .*\bquantization=(?P<value>\w+)",
    "KV cache dtype": r"LLM engine .*\bkv_cache_dtype=(?P<value>\w+)",
    "speculative decoding": r"LLM engine .*\bspeculative_config=(?P<value>.+?), tokenizer=",
    "attention backend": r"Detected attention backend\(s\) \[(?P<value>[^\]]*)\]",
    "KV cache layout": r"Using (?P<value>\w+) KV cache layout",
    "block size": r"non-default args: .*'block_size': (?P<value>\d+)",
    "KV connector": r"Creating v1 connector with name: (?P<value>\w+)",
}
"""Facts that must be equal in a handshake, with their log lines in vLLM."""
_PATTERNS = {name: re.compile(pattern) for name, pattern in _FACTS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A fact in which two instances differ."""

    fact: str
    """Name of the fact, e.g. ``dtype``."""
    here: str
    """Value in the log of one instance; ``not set`` without any."""
    there: str
    """Value in the log of the other, likewise."""


def refused_engine(lines: Iterable[str]) -> str | None:
    """Return the remote engine's id of the first failed handshake; None if none failed."""
    for line in lines:
        if match := _REFUSED.search(line):
            return match["engine"]
    return None


def is_engine(engine: str, lines: Iterable[str]) -> bool:
    """Return whether *engine* is an engine of the instance with the log *lines*."""
    plain = _RANK.sub("", engine)
    return any(
        _RANK.sub("", match["engine"]) == plain
        for line in lines
        for match in _ENGINE.finditer(line)
    )


def engine_facts(lines: Iterable[str]) -> dict[str, str]:
    """Return the facts for a handshake in the log of an instance, by name."""
    facts: dict[str, str] = {}
    for line in lines:
        for name, pattern in _PATTERNS.items():
            if name not in facts and (match := pattern.search(line)):
                facts[name] = match["value"].replace("'", "")
    return facts


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> Sequence[Difference]:
    """Return the facts in which two instances differ."""
    return [
        Difference(fact=name, here=here.get(name, "not set"), there=there.get(name, "not set"))
        for name in _FACTS
        if here.get(name) != there.get(name)
    ]
