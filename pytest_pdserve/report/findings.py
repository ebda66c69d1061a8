"""Findings that differ only in numbers, as one line with the ranges of these numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence

from pytest_pdserve.values.report import FindingReport

_IDENTITY = r"\b(?:GPU|process|port|row)s? \d+(?:, \d+)*\b"
"""Numbers that name something: findings about different ones are not merged."""
_QUANTITY = r"(?<![\w.\[/:-])[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?!\.?\w|[-:/]\w|\])"
"""Numbers with decimals, exponent or thousands separators; not parts of names and versions."""
_NUMBERS = re.compile(f"(?P<identity>{_IDENTITY})|(?P<quantity>{_QUANTITY})")


def merged(findings: Iterable[FindingReport]) -> tuple[FindingReport, ...]:
    """Merge findings of one check and severity whose messages differ only in numbers.

    A number that differs becomes a range, e.g. ``0.609 to 0.965``.

    :returns: in the order of the first finding of each kind, with all their cells.
    """
    kinds: dict[tuple[str, ...], list[FindingReport]] = {}
    for each in findings:
        kinds.setdefault((each.severity, each.check, *_words(each.message)), []).append(each)
    return tuple(_as_one(alike) for alike in kinds.values())


def _as_one(alike: Sequence[FindingReport]) -> FindingReport:
    first, *others = alike
    if not others:
        return first
    return FindingReport(
        severity=first.severity,
        check=first.check,
        message=_with_ranges([each.message for each in alike]),
        cells=tuple(dict.fromkeys(cell for each in alike for cell in each.cells)),
    )


def _words(message: str) -> tuple[str, ...]:
    """Return the parts of a message between its quantities."""
    ends = [0, *(end for match in _quantities(message) for end in match.span()), len(message)]
    return tuple(message[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True))


def _quantities(message: str) -> list[re.Match[str]]:
    return [match for match in _NUMBERS.finditer(message) if match["quantity"]]


def _with_ranges(messages: Sequence[str]) -> str:
    """Return messages that have equal :func:`_words` as one, with ranges of numbers."""
    columns = zip(
        *([match["quantity"] for match in _quantities(message)] for message in messages),
        strict=True,
    )
    ranges = [*map(_range, columns), ""]
    words = _words(messages[0])
    return "".join(f"{before}{number}" for before, number in zip(words, ranges, strict=True))


def _range(numbers: Sequence[str]) -> str:
    """Return numbers as a range from the least to the greatest, written as they were."""
    least, *_, greatest = sorted(dict.fromkeys(numbers), key=_value) * 2
    return least if _value(least) == _value(greatest) else f"{least} to {greatest}"


def _value(number: str) -> float:
    return float(number.replace(",", ""))
