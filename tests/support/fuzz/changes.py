"""Changes of files and texts: what a person, a disk or another program may do to them."""

from __future__ import annotations

import json
import random
import re
from typing import Any

HUGE = "9" * 400
NUMBERS = (
    *("0", "-1", "1", "2", "3", "1.5", "-0.0", "1e308", "1e999", "-1e308", "5e-324", "1e-9"),
    *("inf", "-inf", "nan", "1000000", str(10**18), str(2**63 - 1), str(2**63), str(10**30)),
    *(HUGE, "9" * 5000, "0x10", "1_000", "01", "1e", "--1", "٣"),
)
TEXTS = (
    *("", " ", "a", "x" * 300, "x" * 5000, "..", ".", "/", "../../x", "/etc/passwd", "a/b", "~"),
    *("a\0b", "\0", "a\nb", "a\r\nb", "\t", "\x1b[31m", "\x07", "\u2028", "\u202e", "\ufeff"),
    *("é", "世界", "\U0001f600", "\ud800", "\udcff", "…", "ﬀ", "İ"),
    *("true", "null", "None", "nan", "-", "--", "--help", "-x", "=", ",", ",,", ";", "|", "$(id)"),
    *("%s", "{}", "{0}", "{node0.address}", "%", "\\", "'", '"', "`", "*", "?", "[", "]", "#"),
    *("dp", "1p3d", "mine", "simulated", "unknown", "http://h:1", "http://[", "2026-12-31"),
)
_LITERALS = (
    *("true", "false", "null", "[]", "{}", "[[]]", "[1, 'a']", '[""]', "{a = 1}", '{"a": 1}'),
    *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", '"""', "'''", '"unclosed', "[", "{"),
    *("[" * 2000, "[" * 50 + "]" * 50, '{"a":' * 2000, ".".join("a" * 500) + " = 1"),
    *("= 1", "a = 1", "[table]", "[[table]]", "a.b.c = 1", '"" = 1'),
)
_JUNK = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n\n",
        b"\x1f\x8b",
        b"PK\x03\x04",
    ),
    *(b"\xc3\x28", b"\xed\xa0\x80", b"<<<<<<< HEAD\n", b"# ", b"//", b"{", b"}", b"[", b"]", b'"'),
)
_ENCODINGS = ("utf-16", "utf-8-sig", "utf-32", "latin-1", "utf-7", "utf-16-le")
_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[A-Za-z_]\w*')


def quoted(text: str) -> str:
    """Return *text* as a string of TOML and JSON; a lone surrogate stays an escape."""
    return json.dumps(text)


def literal(rng: random.Random) -> str:
    """Return something that may stand where a value stands."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(NUMBERS)
    return quoted(rng.choice(TEXTS)) if kind < 0.85 else rng.choice(_LITERALS)


def value(rng: random.Random) -> Any:
    """Return a value of JSON."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice((0, -1, 1, 2, 1.5, 1e308, -1e-300, 10**18, 2**63, 10**30, True, None))
    if kind < 0.75:
        return rng.choice(TEXTS)
    if kind < 0.85:
        return [value(rng) for _ in range(rng.randrange(3))]
    return {rng.choice(TEXTS): value(rng) for _ in range(rng.randrange(3))}


def changed(rng: random.Random, content: bytes) -> bytes:
    """Return *content* with one to three changes."""
    changes = [_other_token] * 6 + [_bytes, _lines, _whole]
    if content[:1] in b"{[":
        changes += [_other_value] * 6
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(changes)(rng, content)
    return content


def _other_token(rng: random.Random, content: bytes) -> bytes:
    """Put something else in the place of a number, a string or a name."""
    tokens = list(_TOKEN.finditer(content))
    if not tokens:
        return content
    token = rng.choice(tokens)
    own = rng.choice(tokens)[0] if rng.random() < 0.2 else literal(rng).encode("utf-8", "replace")
    return content[: token.start()] + own + content[token.end() :]


def _bytes(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content) + 1)
    length = rng.choice((0, 1, 1, 3, 50, 5000))
    kind = rng.random()
    if kind < 0.3:
        return content[:place]
    if kind < 0.6:
        return content[:place] + content[place + length :]
    if kind < 0.7:
        return content[:place] + content[place : place + length] * 2 + content[place + length :]
    return content[:place] + rng.choice(_JUNK) + content[place + rng.choice((0, 1)) :]


def _lines(rng: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.random()
    if kind < 0.3:
        del lines[one]
    elif kind < 0.5:
        lines.insert(other, lines[one])
    elif kind < 0.7:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines.insert(one, literal(rng).encode("utf-8", "replace"))
    return b"\n".join(lines)


def _whole(rng: random.Random, content: bytes) -> bytes:
    """Change all of it: its encoding, its line ends, its size."""
    kind = rng.random()
    if kind < 0.4:
        text = content.decode("utf-8", "replace")
        return text.encode(rng.choice(_ENCODINGS), "replace")
    if kind < 0.6:
        return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"")))
    if kind < 0.8:
        return rng.choice(
            (b"", b" ", b"\0" * 100, b"[" * 20_000, b"{}", b"[]", b"null", content * 2)
        )
    return bytes(rng.randrange(256) for _ in range(rng.randrange(200)))


def _other_value(rng: random.Random, content: bytes) -> bytes:
    """Change one value or name of a JSON document."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return content
    holders = list(_holders(data))
    if not holders:
        return content
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    kind = rng.random()
    if kind < 0.2:
        del holder[key]
    elif kind < 0.3 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)
    elif kind < 0.4:
        other = rng.choice(holders)
        holder[key] = json.loads(json.dumps(other))
    elif kind < 0.5 and isinstance(holder, list):
        holder.append(json.loads(json.dumps(holder[key])))
    else:
        holder[key] = value(rng)
    return json.dumps(data).encode("utf-8", "replace")


def _holders(data: Any) -> list[Any]:
    """Return every object and list that is not empty."""
    found, left = [], [data]
    while left:
        each = left.pop()
        if isinstance(each, dict | list) and each:
            found.append(each)
            left += each.values() if isinstance(each, dict) else each[:50]
    return found
