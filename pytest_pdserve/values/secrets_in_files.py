"""Find secrets in a system file, and say what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from pytest_pdserve.values.secrets import assigned_secrets
from pytest_pdserve.values.secrets import holds_secret
from pytest_pdserve.values.secrets import is_secret_name
from pytest_pdserve.values.secrets import known_issuer
from pytest_pdserve.values.secrets import secret_flags

Pointer = tuple[str | int, ...]
SESSION_KEYS = ("VLLM_API_KEY", "OPENAI_API_KEY")
"""Variables of the endpoint's API key, which a session sets itself."""
_VARIABLES = ("env", "pd_env")
_FLAGS = {"--hf-token": "HF_TOKEN"}
"""Flags whose value vLLM also reads from a variable, with its name."""


def secrets_in(data: Any, pointer: Pointer = ()) -> Iterator[tuple[Pointer, str]]:
    """Yield the pointer of every secret in *data*, and a sentence that does not repeat it.

    :param data: content of a system file, or a part of it.
    :param pointer: pointer of *data* in the file.
    """
    if isinstance(data, Mapping):
        for key, value in data.items():
            own = (*pointer, key)
            if pointer and pointer[-1] in _VARIABLES and is_secret_name(key):
                yield own, f"is a secret: {_advice(key)}"
            elif pointer[-1:] == ("options",) and is_secret_name(key) and value:
                yield own, f"gives the secret --{key} a value: {_advice()}"
            else:
                yield from secrets_in(value, own)
    elif isinstance(data, list):
        words = [word if isinstance(word, str) else "" for word in data]
        for position, flag in secret_flags(words):
            yield (*pointer, position), f"gives the secret {flag} a value: {_advice_for(flag)}"
        for position, value in enumerate(data):
            yield from secrets_in(value, (*pointer, position))
    elif isinstance(data, str):
        yield from ((pointer, fault) for fault in _faults_of(data, pointer))


def _faults_of(text: str, pointer: Pointer) -> Iterator[str]:
    """Yield at most one sentence about a secret in one text."""
    variable = len(pointer) > 1 and pointer[-2] in _VARIABLES
    if "@" in text and any(str(key).endswith(("url", "urls")) for key in pointer[-2:]):
        yield "holds a password: remove it, and put the key into PDSERVE_API_KEY"
        return
    if names := assigned_secrets(text):
        yield f"gives the secret {names[0]} a value: {_advice(names[0])}"
    elif issuer := known_issuer(text) if variable else None:
        yield f"begins like a secret of {issuer}: {_advice(str(pointer[-1]))}"
    elif holds_secret(text):
        yield f"holds a secret: {_advice(str(pointer[-1]) if variable else '')}"


def _advice_for(flag: str) -> str:
    if flag.replace("_", "-") == "--api-key":
        return "remove it, the session makes a key of its own"
    return _advice(_FLAGS.get(flag.replace("_", "-"), ""))


def _advice(name: str = "") -> str:
    """Return how to pass a secret to servers: by the name of its variable."""
    if name in SESSION_KEYS:
        return "remove it, the session makes a key of its own"
    variable = f'"{name}"' if name else "the name of a variable that has it"
    return (
        "this file goes into records, and arguments are seen by everyone on a node; write "
        f"pass_env = [{variable}] at the top of the file instead, and set the variable where "
        "pytest runs"
    )
