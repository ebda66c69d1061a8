"""Corrupt baseline files: each is refused in one line that every terminal can show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.kinds import BASELINE
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System
from tests.support.baseline_files import CELL
from tests.support.baseline_files import SESSIONS
from tests.support.baseline_files import SOUND
from tests.support.baseline_files import TEXT
from tests.support.baseline_files import at
from tests.support.baseline_files import changed
from tests.support.baseline_files import of_version_1
from tests.support.baseline_files import of_version_2

NIGHT = f"{CELL}/nights/3"
VALUES, COUNTS = f"{NIGHT}/values", f"{CELL}/counts"
ITL = f"{VALUES}/mean_itl_ms"
NIGHTS = at(SOUND, f"{CELL}/nights")
Wrong = dict[str, tuple[str | bytes, str]]
"""Name -> content of the file, and what is said of it."""


def literal(pointer: str, text: str) -> str:
    """The sound file with *text*, as it is, in place of a value."""
    return changed((pointer, "?here?")).replace('"?here?"', text)


def renamed(pointer: str, name: str) -> str:
    above = pointer.rpartition("/")[0]
    return changed((f"{above}/{name}", at(SOUND, pointer)), (pointer, ...))


FILES: Wrong = {
    "empty": ("", "is not valid JSON"),
    "spaces": (" \n\n ", "is not valid JSON"),
    "truncated": (TEXT[: len(TEXT) // 2], "is not valid JSON"),
    "last brace lacks": (TEXT[:-1], "is not valid JSON"),
    "more behind": (f"{TEXT}{{}}", "Extra data"),
    "BOM": (b"\xef\xbb\xbf" + TEXT.encode(), "begins with a byte order mark"),
    "UTF-16": (TEXT.encode("utf-16"), "is not UTF-8 text: byte 0"),
    "binary": (bytes(range(256)), "is not UTF-8 text: byte 128"),
    "NUL bytes": (b"\0" * 99, "is not valid JSON"),
    "gzip": (b"\x1f\x8b\x08\0\0", "is not UTF-8 text"),
    "merge conflict": (f"<<<<<<< HEAD\n{TEXT}", "is not valid JSON"),
    "comment": (f"// by hand\n{TEXT}", "is not valid JSON"),
    "trailing comma": (f"{TEXT[:-1]},}}", "is not valid JSON"),
    "single quotes": (TEXT.replace('"', "'"), "is not valid JSON"),
    "deep list": ("[" * 99_999, "nested too deeply"),
    "deep object": ('{"a":' * 99_999 + "1" + "}" * 99_999, "nested too deeply"),
    "a list": (f"[{TEXT}]", ": /: "),
    "a string": ('"baseline"', ": /: 'baseline' is not of type 'object'"),
    "null": ("null", ": /: None is not of type 'object'"),
    "true": ("true", ": /: True is not of type 'object'"),
    "NaN": (literal(ITL, "NaN"), "holds NaN"),
    "Infinity": (literal(ITL, "Infinity"), "holds Infinity"),
    "-Infinity": (literal(ITL, "-Infinity"), "holds -Infinity"),
    "1e400": (literal(ITL, "1e400"), "holds 1e400"),
    "-1e400": (literal(ITL, "-1e400"), "holds -1e400"),
    "hexadecimal": (literal(ITL, "0x10"), "is not valid JSON"),
    "leading zero": (literal(ITL, "010.0"), "is not valid JSON"),
    "5000 digits": (literal(ITL, "9" * 5000), "is not valid JSON"),
    "metric twice": (
        TEXT.replace('"mean_ttft_ms"', '"mean_itl_ms"', 1),
        "has the key 'mean_itl_ms' twice",
    ),
    "system twice": ('{"system": "x",' + TEXT[1:], "has the key 'system' twice"),
    "topology twice": (TEXT.replace('"dp": {', '"1p3d": {'), "has the key '1p3d' twice"),
}
ELSEWHERE = "expected 1 or 2 or 3; use the pytest-pdserve that wrote it, or move it away"
FORM = ": does not have the form of a baseline of schema version"
VERSIONS: Wrong = {
    **{
        f"schema_version {value!r}": (
            changed(("/schema_version", value)),
            f": /schema_version: {value!r}, {ELSEWHERE}",
        )
        for value in (0, 4, -1, "1", "3", 1.5, None, True, [1], {"": 1}, 10**30)
    },
    **{
        f"schema_version {text}": (literal("/schema_version", text), f": {text}, {ELSEWHERE}")
        for text in ("1.0", "2.0", "3.0")
    },
    "schema_version lacks": (
        changed(("/schema_version", ...)),
        ": /: 'schema_version' is a required property; expected 3",
    ),
    "version 1 of what is not": (changed(("/schema_version", 1)), f"{FORM} 1; "),
    "version 2 of what is not": (changed(("/schema_version", 2)), f"{FORM} 2; "),
    **{
        f"version 2 with one value {what}": (
            changed((f"{CELL}/mean_itl_ms/values", values), of=of_version_2(SOUND)),
            f"{FORM} 2; ",
        )
        for what, values in (("less", [10.0] * 19), ("more", [10.0] * 21))
    },
}
OF_ANY_TYPE: dict[str, tuple[Any, ...]] = {
    "/system": (None, 7, "", [], {}, True, "p5\n", "\ud800", "a\x1b[31m", "\u2028"),
    "/suite": (None, 7, "", [], True, "swe\tep"),
    "/fingerprint": (7, [], True, "", "a\nb"),
    "/host": (None, [], 1, {"cpu": 7}, {"cpu": None}, {"cpu": "\udfff"}),
    "/approver": (7, [], "", "a\nb", "\ud800"),
    "/accepted_on": (
        *(20260814, "", "14.08.2026", "2026-08-14\n", "2026-13-01"),
        "\uff12\uff10\uff12\uff16-08-14",
    ),
    "/note": (7, [], True, "a\nb", "\ud800"),
    "/sessions": (None, [], {}, "run", [1], [None], ["run"], [*SESSIONS[:-1], SESSIONS[0]]),
    "/sessions/0": (None, 7, "run", [], {}, {**SESSIONS[0], "id": SESSIONS[1]["id"]}),
    "/sessions/0/id": (None, 7, "", [], "a\nb", "\ud800", "another"),
    "/sessions/0/started_at": (
        *(7, "", [], "yesterday", "2026-08-01", "2026-08-01T10:15:00", "2026-08-01T10:15:00+01:00"),
        *("2026-13-01T10:15:00Z", "2026-02-30T10:15:00Z", "2026-08-01T25:15:00Z"),
        *("2026-08-01T10:15:00Z\n", "\uff12\uff10\uff12\uff16-08-01T10:15:00Z"),
    ),
    "/sessions/0/simulated_night": ("1", 1.5, True, [], 10**300),
    "/sessions/0/versions": (None, [], "0.15.1", {"vllm": 0.15}, {"a\nb": "1"}, {"v": "\udfff"}),
    "/sessions/0/nodes": (None, {}, "node0", [1], [""], ["a\nb"]),
    "/cells": (None, [], "1p3d", 1, True),
    "/cells/1p3d": (None, [], 1, "x"),
    CELL: (None, [], 1, "x", {}),
    COUNTS: (None, [], 1, "x", {"mean_itl_ms": 10.0}, {"done": 1}, {"": 1}),
    f"{COUNTS}/failed": (None, "0", True, [], -1, -1e-300, 1e19, 10**300),
    f"{CELL}/nights": (None, {}, [], 1, "x", [None], [1], [{}], [*NIGHTS, NIGHTS[0]]),
    NIGHT: (None, [], 1, "x", {}, NIGHTS[4]),
    f"{NIGHT}/session": (None, 7, "", [], "another", NIGHTS[4]["session"]),
    f"{NIGHT}/starts": (None, "3", True, 0, -1, 2.5, 1001, 10**300, []),
    VALUES: (None, [], 1, "x", {}, {"failed": 0.0}, {"done": 1.0}),
    ITL: (None, "10", [10.0], {}, True, False, -1.0, 0, 0.0, -0.0, 1e19, 10**300),
}
PLACES: Wrong = {
    **{
        f"{pointer} = {value!r:.30}": (changed((pointer, value)), ": /")
        for pointer, values in OF_ANY_TYPE.items()
        for value in values
    },
    **{
        f"{pointer} lacks": (
            changed((pointer, ...)),
            f"{pointer.rpartition('/')[0] or '/'}: '{pointer.rpartition('/')[2]}' is a required",
        )
        for pointer in ("/system", "/suite", "/sessions/0/id", f"{CELL}/nights", VALUES)
    },
    **{
        f"{pointer}/{key!r} is one too many": (
            changed((f"{pointer}/{key}", 1)),
            f": {pointer or '/'}",
        )
        for pointer in ("", "/sessions/0", CELL, NIGHT)
        for key in ("", "atol", "Values", "schema_version ", "\ud800", "a\nb")
    },
    **{
        f"metric {name!r}": (renamed(ITL, name), VALUES)
        for name in (
            "mean_itl",
            "MEAN_ITL_MS",
            "mean_itl_ms ",
            "",
            "mean_itl_ms\n",
            "\uff4dean_itl_ms",
            "kv_transfers",
        )
    },
    "topology with a line end": (renamed("/cells/dp", "dp\n"), ": /cells: "),
    "topology of a surrogate": (renamed("/cells/dp", "\ud800"), ": /cells: "),
    "workload with a line end": (renamed(CELL, "random\n512"), ": /cells/1p3d: "),
    "empty topology name": (renamed("/cells/dp", ""), ": /cells: "),
    "two mistakes": (changed((ITL, None), (f"{NIGHT}/starts", 0)), f": {NIGHT}/"),
}
WRONG = {**FILES, **VERSIONS, **PLACES}


@pytest.mark.quick_cases(15)
@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=map(ascii, WRONG))
def test_a_corrupt_baseline_is_refused_in_a_line(
    content: str | bytes, said: str, tmp_path: Path, p5_efa: System
) -> None:
    path = tmp_path / "sweep.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as refused:
        load_baseline(path, system=p5_efa)
    text = str(refused.value)
    assert text.startswith(str(path))
    assert said in text
    assert len(text.splitlines()) == 1
    assert len(text) < 1500
    text.encode()


def test_the_file_that_is_corrupted_is_sound(tmp_path: Path, p5_efa: System) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(TEXT)
    baseline = load_baseline(path, system=p5_efa)
    assert baseline is not None
    assert BASELINE.dump(baseline, path) == SOUND


@pytest.mark.parametrize("older", [of_version_1, of_version_2], ids=["version 1", "version 2"])
def test_a_file_of_an_older_version_says_the_same(
    older: Any, tmp_path: Path, p5_efa: System
) -> None:
    small = replace(p5_efa, sweep=replace(p5_efa.sweep, num_prompts=4))
    path = tmp_path / "sweep.json"
    path.write_text(changed(of=older(SOUND)))
    baseline = load_baseline(path, system=small)
    assert baseline is not None
    assert BASELINE.dump(baseline, path) == SOUND


@pytest.mark.parametrize("key", ["fingerprint", "approver", "accepted_on", "note"])
def test_null_says_the_same_as_a_key_that_lacks(key: str, tmp_path: Path, p5_efa: System) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(changed((f"/{key}", None)))
    read = load_baseline(path, system=p5_efa)
    path.write_text(TEXT)
    assert read == load_baseline(path, system=p5_efa)
