"""The flags of ``vllm serve`` that the plan writes; a system file must not repeat them."""

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
    """A flag that the plan writes."""

    flag: str
    """As the plan writes it."""
    aliases: tuple[str, ...] = ()
    """Other flags that say the same, or contradict it."""
    instead: str
    """What says it in a system file."""

    def is_meant_by(self, name: str) -> bool:
        """Tell whether *name* is this flag, an alias or an abbreviation, or a part or all of it.

        ``argparse`` takes any beginning of a flag that is not ambiguous.
        """
        flag, _, own = self.flag.partition(".")
        head, _, path = name.partition(".")
        long = head.startswith("--") and len(head) >= _MIN_ABBREVIATION
        known = (flag, *self.aliases)
        same = head in known or (long and any(each.startswith(head) for each in known))
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
"""What is written for instances of every role."""
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
"""What is written besides for instances that move a KV cache."""


def repeated_serve_args(
    args: Sequence[str], role: str | None = None
) -> Iterator[tuple[int, str, WrittenFlag]]:
    """Yield position and name of every flag of *args* that the plan writes, and that flag.

    :param role: whose arguments they are; None for all instances.
    """
    moves_kv = role is None or ROLES[role].kv_role is not None
    written = (*WRITTEN, *(WRITTEN_FOR_TRANSFER if moves_kv else ()))
    for position, word in enumerate(args):
        name = flag_name(word)
        found = next((each for each in written if name and each.is_meant_by(name)), None)
        if found is not None:
            yield position, name, found


def flag_name(word: str) -> str:
    """Return the flag that *word* is, as vLLM reads it; the empty string for a value.

    A value after ``=`` is left out, underscores before the first dot become dashes, and a ``+``,
    which appends to a list, is dropped.
    """
    if not re.match(r"--?[A-Za-z]", word):
        return ""
    name = re.split(r"[=\s]", word, maxsplit=1)[0].removesuffix("+")
    flag, dot, rest = name.partition(".")
    return flag.replace("_", "-") + dot + rest
