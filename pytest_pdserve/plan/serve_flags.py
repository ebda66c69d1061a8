"""Flags of ``vllm serve`` that the plan sets; a system file must not repeat them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_pdserve.values.roles import ROLES

_TOPOLOGY = "the topology and [cluster] say it"
_TRANSFER = "--kv-transfer-config"
_MIN_ABBREVIATION = len("--xx")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFlag:
    """A flag that the plan sets."""

    flag: str
    """Name, as the plan writes it."""
    aliases: tuple[str, ...] = ()
    """Other flags for the same setting, or contradicting ones."""
    instead: str
    """What sets it in a system file, as a phrase for messages."""

    def matches(self, name: str) -> bool:
        """Return whether *name* is this flag, an alias, an abbreviation, or a parent or child key.

        ``argparse`` accepts any unambiguous prefix of a flag.
        """
        flag, _, own = self.flag.partition(".")
        head, _, path = name.partition(".")
        long = head.startswith("--") and len(head) >= _MIN_ABBREVIATION
        names = (flag, *self.aliases)
        same = head in names or (long and any(each.startswith(head) for each in names))
        return same and (not path or not own or f"{path}.".startswith(f"{own}."))


WRITTEN: tuple[WrittenFlag, ...] = (
    WrittenFlag(flag="--model", instead="[model] path says it"),
    WrittenFlag(flag="--host", aliases=("--uds",), instead="[cluster] bind_host says it"),
    WrittenFlag(flag="--port", instead="[ports] http says it"),
    WrittenFlag(flag="--api-key", instead="the session makes a key of its own"),
    WrittenFlag(flag="--headless", instead=_TOPOLOGY),
    WrittenFlag(
        flag="--tensor-parallel-size",
        aliases=("-tp",),
        instead="tensor_parallel or the topology's name says it, e.g. 1p3d-tp4",
    ),
    WrittenFlag(flag="--data-parallel-size", aliases=("-dp",), instead=_TOPOLOGY),
    WrittenFlag(flag="--data-parallel-size-local", aliases=("-dpl",), instead=_TOPOLOGY),
    WrittenFlag(flag="--data-parallel-start-rank", aliases=("-dpr",), instead=_TOPOLOGY),
    WrittenFlag(flag="--data-parallel-address", aliases=("-dpa",), instead=_TOPOLOGY),
    WrittenFlag(flag="--data-parallel-rpc-port", aliases=("-dpp",), instead="[ports] rpc says it"),
)
"""Flags set for instances of every role."""
WRITTEN_FOR_TRANSFER: tuple[WrittenFlag, ...] = tuple(
    WrittenFlag(flag=f"{_TRANSFER}.{field}", instead=instead)
    for field, instead in (
        ("kv_connector", "[kv_transfer] connector says it"),
        ("kv_role", "the role of the instance says it"),
        ("kv_load_failure_policy", "[kv_transfer] load_failure_policy says it"),
        ("kv_buffer_device", "[kv_transfer] buffer_device says it"),
        ("kv_connector_extra_config", "[kv_transfer] backend and extra_config say it"),
    )
)
"""Further flags set for instances that move KV caches."""


def repeated_serve_args(
    args: Sequence[str], role: str | None = None
) -> Iterator[tuple[int, str, WrittenFlag]]:
    """Yield position and name of every flag in *args* that the plan sets, and that flag.

    :param role: role whose arguments they are; None for all instances.
    """
    moves_kv = role is None or ROLES[role].kv_role is not None
    written = (*WRITTEN, *(WRITTEN_FOR_TRANSFER if moves_kv else ()))
    for position, word in enumerate(args):
        name = flag_name(word)
        match = next((flag for flag in written if name and flag.matches(name)), None)
        if match is not None:
            yield position, name, match


def flag_name(word: str) -> str:
    """Return the name of the flag in *word*, as vLLM parses it; empty if *word* is a value.

    A value after ``=`` and a ``+``, which appends to a list, are removed; underscores before the
    first dot become dashes.
    """
    if not re.match(r"--?[A-Za-z]", word):
        return ""
    name = re.split(r"[=\s]", word, maxsplit=1)[0].removesuffix("+")
    flag, dot, rest = name.partition(".")
    return flag.replace("_", "-") + dot + rest
