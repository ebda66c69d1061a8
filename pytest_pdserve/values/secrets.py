"""Find secrets by name or form, and redact them in text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import is_dataclass
from dataclasses import replace
from typing import Any
from typing import TypeVar
from urllib.parse import quote
from urllib.parse import quote_plus

T = TypeVar("T")

SECRET_ENDINGS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE")
"""Endings of names of variables and flags whose value is a secret."""
SESSION_KEY_PREFIX = "pdserve_key_"
"""Prefix of the API key of a session, by which it is found in any text."""
REDACTED = "<redacted>"
"""Replacement of a secret whose variable is not known."""
_MIN_LENGTH = 8
"""Minimum length of values to redact, since shorter ones occur in texts by chance."""
_NUMBERS = {float, int}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretForm:
    """A form of secrets that is recognizable by a prefix."""

    issuer: str
    """Issuer of the secrets."""
    prefix: str
    """Prefix of each secret."""
    rest: str
    """Regular expression for the rest, long enough not to match a word."""

    @property
    def pattern(self) -> str:
        """Regular expression for a whole secret."""
        return rf"(?<![A-Za-z0-9]){re.escape(self.prefix)}{self.rest}"


_FORMS = (
    SecretForm(issuer="pytest-pdserve", prefix=SESSION_KEY_PREFIX, rest=r"[\w-]{16,}"),
    SecretForm(issuer="Hugging Face", prefix="hf_", rest=r"[A-Za-z0-9]{20,}"),
    SecretForm(issuer="OpenAI or Anthropic", prefix="sk-", rest=r"(?=[\w-]*\d)[\w-]{16,}"),
    *(
        SecretForm(issuer="GitHub", prefix=prefix, rest=r"\w{20,}")
        for prefix in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")
    ),
    SecretForm(issuer="GitLab", prefix="glpat-", rest=r"[\w-]{16,}"),
    SecretForm(issuer="NVIDIA", prefix="nvapi-", rest=r"[\w-]{16,}"),
    SecretForm(issuer="AWS", prefix="AKIA", rest=r"[A-Z0-9]{16}\b"),
    SecretForm(issuer="AWS", prefix="ASIA", rest=r"[A-Z0-9]{16}\b"),
    SecretForm(issuer="Google", prefix="AIza", rest=r"[\w-]{30,}"),
    *(
        SecretForm(issuer="Slack", prefix=f"xox{letter}-", rest=r"[\w-]{10,}")
        for letter in "abeprs"
    ),
    SecretForm(issuer="PyPI", prefix="pypi-", rest=r"[\w-]{40,}"),
)
_PEM, _JWT = "-----BEGIN ", r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"
_PATTERNS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    *((form.prefix, re.compile(form.pattern), REDACTED) for form in _FORMS),
    ("eyJ", re.compile(_JWT), REDACTED),
    (
        _PEM,
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
        ),
        REDACTED,
    ),
    ("earer ", re.compile(r"\b([Bb]earer) +[\w.~+/=-]{16,}"), rf"\1 {REDACTED}"),
    (
        "uthorization",
        re.compile(r"([Aa]uthorization\W{1,6}(?:[Bb]earer|[Bb]asic) +)[^\s\"',;}\])]+"),
        rf"\1{REDACTED}",
    ),
    ("://", re.compile(r"(?<=://)[^\s/@:'\"]*:[^\s/@'\"]+(?=@)"), REDACTED),
)
"""Text that occurs in every such secret, regular expression of the secret, and replacement."""
_ASSIGNED = re.compile(r"(?:^-e|\b)([A-Z_][A-Z0-9_]*)=(?=[^\s,])")


def is_secret_name(name: str) -> bool:
    """Return whether the value of a variable or flag with that name is a secret."""
    return name.upper().endswith(SECRET_ENDINGS)


def known_issuer(value: str) -> str | None:
    """Return the issuer of secrets with the prefix of *value*; None if unknown."""
    return next((form.issuer for form in _FORMS if value.startswith(form.prefix)), None)


def holds_secret(text: str) -> bool:
    """Return whether *text* contains a secret of a known form, e.g. a password in a URL."""
    return Redactor().text(text) != text


def assigned_secrets(text: str) -> tuple[str, ...]:
    """Return the names of secrets that *text* sets, as in ``--env HF_TOKEN=...``."""
    return tuple(name for name in _ASSIGNED.findall(text) if is_secret_name(name))


def secret_flags(args: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield position and name of every flag in *args* whose value is a secret.

    Flags without a value are left out: ``--hf-token`` alone uses the token of the last login.
    """
    for position, word in enumerate(args):
        flag, equals, value = word.partition("=")
        following = args[position + 1] if position + 1 < len(args) else "-"
        given = bool(value) if equals else not following.startswith("-")
        if flag.startswith("--") and is_secret_name(flag) and given:
            yield position, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Redactor:
    """Redacts secrets in text: given values, and secrets of known forms."""

    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name of the variable by value of the secret, in every notation of the value."""

    @classmethod
    def of(cls, environment: Mapping[str, str], passed: Iterable[str] = ()) -> Redactor:
        """Return a redactor for the secrets of *environment*.

        :param passed: names of further variables that are secret.
        """
        wanted = {*passed, *filter(is_secret_name, environment)}
        written = {
            text: name
            for name in sorted(wanted & environment.keys())
            for text in _ways_to_write(environment[name])
        }
        return cls(names=dict(sorted(written.items(), key=lambda item: -len(item[0]))))

    def text(self, text: str) -> str:
        """Return *text* with each secret replaced by the name of its variable, or by a mark."""
        for secret, name in self.names.items():
            if secret in text:
                text = text.replace(secret, f"<{name}>")
        for sign, pattern, mark in _PATTERNS:
            if sign in text:
                text = pattern.sub(mark, text)
        return text

    def value(self, value: T) -> T:
        """Return *value* with all texts in it redacted; the same object if there is no secret."""
        redacted: Any = self._redact(value)
        return redacted  # type: ignore[no-any-return]

    def _redact(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            changed = {key: self._redact(each) for key, each in value.items()}
            return value if _same(changed.values(), value.values()) else changed
        if isinstance(value, tuple | list):
            if _NUMBERS.issuperset(map(type, value)):
                return value
            entries = [self._redact(each) for each in value]
            return value if _same(entries, value) else type(value)(entries)
        if is_dataclass(value) and not isinstance(value, type):
            own = {each.name: getattr(value, each.name) for each in fields(value)}
            new = {name: self._redact(each) for name, each in own.items()}
            differing = {name: each for name, each in new.items() if each is not own[name]}
            return replace(value, **differing) if differing else value
        return value


def _same(new: Iterable[Any], old: Iterable[Any]) -> bool:
    return all(a is b or a == b for a, b in zip(new, old, strict=True))


def _ways_to_write(value: str) -> Iterator[str]:
    """Yield a secret in the notations of text, JSON, Python and URLs; nothing if too short."""
    lines = value.splitlines()
    for line in (each.strip() for each in lines):
        if len(line) >= _MIN_LENGTH * min(len(lines), 2) and not line.isdecimal():
            yield from (line, repr(line)[1:-1], json.dumps(line)[1:-1])
            yield from (json.dumps(line, ensure_ascii=False)[1:-1], quote(line, safe=""))
            yield from (quote(line), quote_plus(line))
