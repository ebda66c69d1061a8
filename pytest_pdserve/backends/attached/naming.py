"""Parses the options that name an endpoint: its URL, instances, model and API key."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from urllib.parse import urlsplit

from pytest_pdserve.backends.allocation import NamedInstance
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.roles import ROLES

API_KEY_VARIABLE = "PDSERVE_API_KEY"
"""Environment variable with the endpoint's key, which no file or argument may contain."""


def read_api_key() -> str:
    """Return the endpoint's key; empty if none is set.

    :raises ConfigError: if it is invalid in an HTTP header; its value is not shown.
    """
    key = os.environ.get(API_KEY_VARIABLE, "")
    if fault := next(_key_faults(key), None):
        raise ConfigError(
            f"{API_KEY_VARIABLE} {fault}; expected visible ASCII characters, as an HTTP header "
            f'carries them: set it anew, e.g. {API_KEY_VARIABLE}="$(cat FILE)"'
        )
    return key


def _key_faults(key: str) -> Iterator[str]:
    """Yield what is wrong with a key, without showing any part of it."""
    of = f"of {len(key)}"
    for position, character in enumerate(key, start=1):
        if character in "\r\n":
            yield f"holds a newline (character {position} {of})"
        elif not character.isascii():
            yield f"holds a character that is not ASCII (character {position} {of})"
        elif not character.isprintable():
            yield f"holds a control character (character {position} {of})"
    if key != key.strip():
        yield "begins or ends with a space"


def parse_base_url(text: str, source: str) -> str:
    """Return the base URL in *text*, without trailing ``/v1`` and slashes.

    :param source: option or key, with which the message begins.
    :raises ConfigError: if it is not a URL; a password in it is not shown.
    """
    _check_password(text, source)
    if "?" in text or "#" in text:
        raise ConfigError(
            f"{source} holds a query or a fragment ('?' or '#'); expected a URL like "
            "http://10.0.0.1:8010"
        )
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    # urlsplit silently drops tabs and newlines
    if not usable or not text.isprintable() or " " in text:
        raise ConfigError(f"{source} {text!r} is not a URL like http://10.0.0.1:8010")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def parse_instances(texts: Sequence[str], source: str) -> tuple[NamedInstance, ...]:
    """Return the instances that *texts* name, each as ``role=URL``.

    :param source: option or key, with which the message begins.
    :raises ConfigError: if one has no role or no URL, or is given twice.
    """
    instances = tuple(_parse_instance(text, source) for text in texts)
    for url, count in Counter(instance.url for instance in instances).items():
        if count > 1:
            raise ConfigError(f"{source} names {url} {count} times; expected each instance once")
    return instances


def _parse_instance(text: str, source: str) -> NamedInstance:
    _check_password(text, source)
    role, equals, url = text.partition("=")
    if not equals or role not in ROLES:
        raise ConfigError(
            f"{source} {text!r} does not begin with a role; expected one of {', '.join(ROLES)}, "
            "then '=' and a URL, e.g. prefill=http://10.0.0.1:8000"
        )
    return NamedInstance(role=role, url=parse_base_url(url, f"{source} {role}="))


def _check_password(text: str, source: str) -> None:
    if "@" in text:
        raise ConfigError(f"{source} holds a password; put the key into {API_KEY_VARIABLE}")


def parse_model(text: str, source: str) -> str:
    """Return the name of a model.

    :param source: option or key, with which the message begins.
    :raises ConfigError: if it is empty, or not a possible name of a served model.
    """
    if not text or text != text.strip() or not text.isprintable():
        raise ConfigError(f"{source} {text!r} is not a model name as /v1/models lists it")
    return text
