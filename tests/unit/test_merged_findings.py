"""Findings that differ only in numbers are one line, with the ranges of these numbers."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_pdserve.report.findings import merged
from pytest_pdserve.values.report import FindingReport


def note(message: str, *cells: str, **changes: Any) -> FindingReport:
    values = {"severity": "note", "check": "chunks", "message": message, "cells": cells or ("a",)}
    return FindingReport(**{**values, **changes})


def messages(*given: str) -> list[str]:
    return [each.message for each in merged(map(note, given))]


CHUNKS = "{} chunks for {} tokens ({} per token, at least 0.98); ITL is not judged, TPOT is"


def test_one_check_in_several_cells_is_one_finding_with_ranges_and_cells() -> None:
    found = merged(
        [
            note(CHUNKS.format(62678, 65536, 0.956), "1p3d 512-256"),
            note("another", "1p3d 512-256", check="client_node"),
            note(CHUNKS.format(41897, 65536, 0.639), "2p2d 512-256"),
            note(CHUNKS.format(126063, 131072, 0.962), "1p3d 512-512", "1p3d 512-256"),
        ]
    )
    assert [(each.message, each.cells) for each in found] == [
        (
            CHUNKS.format("41897 to 126063", "65536 to 131072", "0.639 to 0.962"),
            ("1p3d 512-256", "2p2d 512-256", "1p3d 512-512"),
        ),
        ("another", ("1p3d 512-256",)),
    ]


@pytest.mark.parametrize(
    ("given", "one"),
    [
        (("busy: 2% (load 4.9)", "busy: 12% (load 10.1)"), "busy: 2 to 12% (load 4.9 to 10.1)"),
        (("lost +1,200,000 packets", "lost +3 packets"), "lost +3 to +1,200,000 packets"),
        (("once in 1e+06 runs", "once in 2.5e+07 runs"), "once in 1e+06 to 2.5e+07 runs"),
        (("off by -3.5 ms.", "off by +0.2 ms."), "off by -3.5 to +0.2 ms."),
        (("3 of 3, expected 3: no", "3 of 5, expected 3: no"), "3 of 3 to 5, expected 3: no"),
        (("the same 5", "the same 5"), "the same 5"),
        (("as 5", "as 5.0"), "as 5"),
    ],
    ids=["decimals", "thousands", "exponents", "signs", "some differ", "none", "equal values"],
)
def test_numbers_that_differ_become_a_range(given: tuple[str, str], one: str) -> None:
    assert messages(*given) == [one]


@pytest.mark.parametrize(
    "given",
    [
        ("decode[0] made no token for 5 s", "decode[1] made no token for 5 s"),
        ("GPU 0 (NVIDIA H200) of h04 was shared", "GPU 1 (NVIDIA H200) of h04 was shared"),
        ("used by process 4711", "used by process 4712"),
        ("2 of 8 (rows 1, 4) differ", "2 of 8 (rows 1, 5) differ"),
        ("vLLM 0.15.1 has no counter", "vLLM 0.15.2 has no counter"),
        ("h04:8000 is gone", "h04:8001 is gone"),
        ("interfaces of h04", "interfaces of h05"),
        ("seen on 2026-11-28", "seen on 2026-11-29"),
        ("2 tokens", "2 tokens of text"),
    ],
    ids=["instance", "GPU", "process", "rows", "version", "port", "node", "date", "other words"],
)
def test_findings_about_different_things_stay_apart(given: tuple[str, str]) -> None:
    assert messages(*given) == list(given)


@pytest.mark.parametrize("changes", [{"check": "tokens"}, {"severity": "unproven"}])
def test_findings_of_another_check_or_severity_stay_apart(changes: dict[str, str]) -> None:
    found = merged([note("5 tokens"), note("7 tokens", **changes)])
    assert [each.message for each in found] == ["5 tokens", "7 tokens"]


def test_a_finding_alone_is_unchanged() -> None:
    given = note("1,024 of 2.0 (rows 1, 2) at 0.98e-3; +5%", "x", "y", severity="invalid")
    assert merged([given]) == (given,)
    assert merged([]) == ()
