"""Refused KV handshakes in the logs of instances: between whom, and in what the two differ."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

_REFUSED = re.compile(r"handshake(?:_setup)?_failed\b.*'remote_engine_id': '(?P<engine>[\w.-]+)'")
"""What vLLM's NIXL connector logs of a handshake that failed (``base_worker.py``, 0.32)."""
_ENGINE = re.compile(r"\bengine_id: (?P<engine>[\w-]+)")
"""What vLLM logs when it makes a KV connector."""
_RANK = re.compile(r"_dp\d+$")
"""Ends an engine's id where it is one of several data-parallel ones."""
_FACTS = {
    "vLLM version": r"Initializing a V1 LLM engine \(v(?P<said>[^)]+)\)",
    "model": r"LLM engine .*\bmodel='(?P<said>[^']+)'",
    "dtype": r"LLM engine .*\bdtype=(?:torch\.)?(?P<said>\w+)",
    "quantization": r"LLM engine .*\bquantization=(?P<said>\w+)",
    "KV cache dtype": r"LLM engine .*\bkv_cache_dtype=(?P<said>\w+)",
    "speculative decoding": r"LLM engine .*\bspeculative_config=(?P<said>.+?), tokenizer=",
    "attention backend": r"Detected attention backend\(s\) \[(?P<said>[^\]]*)\]",
    "KV cache layout": r"Using (?P<said>\w+) KV cache layout",
    "block size": r"non-default args: .*'block_size': (?P<said>\d+)",
    "KV connector": r"Creating v1 connector with name: (?P<said>\w+)",
}
"""What vLLM compares in a handshake, or needs to be equal in one, as its log tells it."""
_PATTERNS = {name: re.compile(pattern) for name, pattern in _FACTS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A fact in which two instances differ."""

    fact: str
    """What it is, e.g. ``dtype``."""
    here: str
    """Of the one, as it says itself; ``not set`` if it does not."""
    there: str
    """Of the other."""


def refused_engine(lines: Iterable[str]) -> str | None:
    """Return the id of the engine with which a handshake failed first; None if none failed."""
    for line in lines:
        if match := _REFUSED.search(line):
            return match["engine"]
    return None


def is_engine(engine: str, lines: Iterable[str]) -> bool:
    """Whether the log of an instance says that the engine *engine* is its own."""
    plain = _RANK.sub("", engine)
    return any(
        _RANK.sub("", match["engine"]) == plain
        for line in lines
        for match in _ENGINE.finditer(line)
    )


def engine_facts(lines: Iterable[str]) -> dict[str, str]:
    """Return what an instance said, when it started, of what a handshake depends on."""
    found: dict[str, str] = {}
    for line in lines:
        for name, pattern in _PATTERNS.items():
            if name not in found and (match := pattern.search(line)):
                found[name] = match["said"].replace("'", "")
    return found


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> Sequence[Difference]:
    """Return in what two instances differ, of what each of them said."""
    return [
        Difference(fact=name, here=here.get(name, "not set"), there=there.get(name, "not set"))
        for name in _FACTS
        if here.get(name) != there.get(name)
    ]
