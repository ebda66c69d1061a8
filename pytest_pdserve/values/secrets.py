"""Secrets: which names and values are secret, and text without them."""

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
"""How the name of a variable or a flag ends whose value is a secret."""
SESSION_KEY_PREFIX = "pdserve_key_"
"""How every key begins that a session makes, so that it is found in any text."""
REDACTED = "<redacted>"
"""What stands in place of a secret whose variable is not known."""
_MIN_LENGTH = 8
"""Shorter values are not looked for: they stand in many texts by chance."""
_NUMBERS = {float, int}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownForm:
    """A form of secrets that their issuer made recognizable."""

    issuer: str
    """Who issues them."""
    prefix: str
    """What each begins with."""
    rest: str
    """Regular expression of what follows; long enough not to be a word."""

    @property
    def pattern(self) -> str:
        """Regular expression of a whole secret."""
        return rf"(?<![A-Za-z0-9]){re.escape(self.prefix)}{self.rest}"


_FORMS = (
    KnownForm(issuer="pytest-pdserve", prefix=SESSION_KEY_PREFIX, rest=r"[\w-]{16,}"),
    KnownForm(issuer="Hugging Face", prefix="hf_", rest=r"[A-Za-z0-9]{20,}"),
    KnownForm(issuer="OpenAI or Anthropic", prefix="sk-", rest=r"(?=[\w-]*\d)[\w-]{16,}"),
    *(
        KnownForm(issuer="GitHub", prefix=prefix, rest=r"\w{20,}")
        for prefix in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")
    ),
    KnownForm(issuer="GitLab", prefix="glpat-", rest=r"[\w-]{16,}"),
    KnownForm(issuer="NVIDIA", prefix="nvapi-", rest=r"[\w-]{16,}"),
    KnownForm(issuer="AWS", prefix="AKIA", rest=r"[A-Z0-9]{16}\b"),
    KnownForm(issuer="AWS", prefix="ASIA", rest=r"[A-Z0-9]{16}\b"),
    KnownForm(issuer="Google", prefix="AIza", rest=r"[\w-]{30,}"),
    *(KnownForm(issuer="Slack", prefix=f"xox{letter}-", rest=r"[\w-]{10,}") for letter in "abeprs"),
    KnownForm(issuer="PyPI", prefix="pypi-", rest=r"[\w-]{40,}"),
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
"""What a text holds where there may be a secret, the secret's form, and what replaces it."""
_ASSIGNED = re.compile(r"(?:^-e|\b)([A-Z_][A-Z0-9_]*)=(?=[^\s,])")


def is_secret_name(name: str) -> bool:
    """Tell whether a variable or a flag of that name has a secret as its value."""
    return name.upper().endswith(SECRET_ENDINGS)


def known_issuer(value: str) -> str | None:
    """Return who issues secrets that begin as *value* does; None if nobody is known."""
    return next((form.issuer for form in _FORMS if value.startswith(form.prefix)), None)


def holds_secret(text: str) -> bool:
    """Tell whether there is a secret of a known form in *text*, e.g. a password in a URL."""
    return Redactor().text(text) != text


def assigned_secrets(text: str) -> tuple[str, ...]:
    """Return the names of secrets that *text* gives a value, as ``--env HF_TOKEN=...`` does."""
    return tuple(name for name in _ASSIGNED.findall(text) if is_secret_name(name))


def secret_flags(args: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield position and name of every flag of *args* that has a secret as its value.

    A flag without a value is none: ``--hf-token`` alone means the token of the last login.
    """
    for position, word in enumerate(args):
        flag, equals, value = word.partition("=")
        following = args[position + 1] if position + 1 < len(args) else "-"
        given = bool(value) if equals else not following.startswith("-")
        if flag.startswith("--") and is_secret_name(flag) and given:
            yield position, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Redactor:
    """Takes secrets out of text: those whose values are known, and those of known forms."""

    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By every way to write a secret: the name of its variable."""

    @classmethod
    def of(cls, environment: Mapping[str, str], passed: Iterable[str] = ()) -> Redactor:
        """Return what redacts the secrets of *environment*.

        :param passed: names of variables that are secret whatever they are called.
        """
        wanted = {*passed, *filter(is_secret_name, environment)}
        written = {
            text: name
            for name in sorted(wanted & environment.keys())
            for text in _ways_to_write(environment[name])
        }
        return cls(names=dict(sorted(written.items(), key=lambda item: -len(item[0]))))

    def text(self, text: str) -> str:
        """Return *text* with the name of its variable, or a mark, in place of each secret."""
        for secret, name in self.names.items():
            if secret in text:
                text = text.replace(secret, f"<{name}>")
        for sign, pattern, mark in _PATTERNS:
            if sign in text:
                text = pattern.sub(mark, text)
        return text

    def value(self, value: T) -> T:
        """Return *value* with every text in it redacted; the very same where there is no secret."""
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
    """Yield a secret as it stands in text, JSON, Python and URLs; nothing if it is too common."""
    lines = value.splitlines()
    for line in (each.strip() for each in lines):
        if len(line) >= _MIN_LENGTH * min(len(lines), 2) and not line.isdecimal():
            yield from (line, repr(line)[1:-1], json.dumps(line)[1:-1])
            yield from (json.dumps(line, ensure_ascii=False)[1:-1], quote(line, safe=""))
            yield from (quote(line), quote_plus(line))
