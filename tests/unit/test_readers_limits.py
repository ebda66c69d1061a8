"""Files from elsewhere that are no results, or too much of one: each is one sentence."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.imported import read_results
from pytest_pdserve.values.errors import ConfigError
from tests.support.foreign import RESULT
from tests.support.foreign import result_file

TEXT = json.dumps(RESULT)
OPEN = TEXT[:-1]
YAML = "version: '0.2'\nrun: {uid: x}\nresults: {request_performance: {aggregate: {latency: "
NOT_JSON = "FILE is not valid JSON: "


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 * 10**6)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def said_of(paths: list[Path]) -> str:
    with pytest.raises(ConfigError) as refused:
        read_results(paths, None)
    message = str(refused.value)
    assert "\n" not in message
    assert message.isprintable()
    for path in paths:
        message = message.replace(str(path), "FILE")
    return message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "FILE is empty: expected a result in JSON or YAML"),
        (" \n\t", "FILE is empty: expected a result in JSON or YAML"),
        (bytes(range(256)), "FILE is not UTF-8 text: byte 128"),
        ('{"label": "é"}'.encode("latin-1"), "FILE is not UTF-8 text: byte 11"),
        (TEXT.encode("utf-16"), "FILE is not UTF-8 text: byte 0"),
        (
            b"\xef\xbb\xbf" + TEXT.encode(),
            "FILE begins with a byte order mark: save it as UTF-8 without one",
        ),
        (gzip.compress(TEXT.encode()), "FILE is compressed (gzip): decompress it first"),
        (b"PK\x03\x04...", "FILE is compressed (zip): decompress it first"),
        (bytes(1000), f"{NOT_JSON}Expecting value: line 1 column 1 (char 0)"),
        (OPEN[:20], f"{NOT_JSON}Unterminated string starting at: line 1 column 10 (char 9)"),
        ("[" * 100_000, f"{NOT_JSON}nested too deeply"),
        (
            f'{OPEN}, "a": {"[" * 60}{"]" * 60}}}',
            "FILE: more than 40 nested objects and lists",
        ),
        (f'{OPEN}, "completed": 4}}', "FILE has the key 'completed' twice in one object"),
        ("[]", "FILE has no result: its list is empty"),
        ("[1, 2]", "FILE row 1: is a number, expected an object of names and values"),
        ("null", "FILE: is null, expected an object of names and values"),
        ("{}\n" * 10**6, "FILE has more than 1000 results, expected at most that many in one file"),
        (
            f"[{','.join(['{}'] * 10**6)}]",
            "FILE has more than 1000 results, expected at most that many in one file",
        ),
        (
            f'{OPEN}, "{"n" * 300}": 1}}',
            f"FILE: /{'n' * 60}: expected a name of at most 200 characters that can be shown",
        ),
        (
            f'{OPEN}, "a\\u0000\\u001b[31mb": 1}}',
            r"FILE: /a\x00\x1b[31mb: expected a name of at most 200 characters that can be shown",
        ),
        (
            f'{OPEN}, "label": "\\ud800"}}',
            "FILE: /label: text that is not UTF-8: a lone surrogate",
        ),
        (
            f'{OPEN}, "x": {10**30}}}',
            "FILE: /x: an integer of 100 bits, expected at most 64",
        ),
        (f'{OPEN}, "x": 1e999}}', "FILE: /x: a number too large to hold"),
        (
            f'{OPEN}, "x": {"9" * 6000}}}',
            f"{NOT_JSON}Exceeds the limit (4300 digits) for integer string conversion: value has "
            "6000 digits; use sys.set_int_max_str_digits() to increase the limit",
        ),
    ],
    ids=[
        *("empty", "space", "binary", "latin-1", "utf-16", "byte order mark", "gzip", "zip"),
        *("zeros", "cut", "deep", "deep in a result", "key twice", "empty list", "numbers"),
        *("null", "a million lines", "a million rows", "long name", "name that steers"),
        *("surrogate", "huge integer", "infinite", "too many digits"),
    ],
)
def test_what_is_no_result_file_is_refused(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said_of([path]) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sparse, "FILE has 190.7 MiB: expected at most 128 MiB"),
        (fifo, "FILE is a pipe: expected a file"),
        (
            Path.mkdir,
            "FILE is a folder without a result of vllm bench sweep (run=0.json, at most 3 levels "
            "down): name a file",
        ),
        (lambda path: path.symlink_to("/dev/zero"), "FILE is a device: expected a file"),
        (lambda path: None, "FILE cannot be read: No such file or directory"),
        (
            lambda path: path.symlink_to(path),
            "FILE cannot be read: Too many levels of symbolic links",
        ),
    ],
    ids=["200 MB", "pipe", "folder", "device", "missing", "link to itself"],
)
def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "r.json"
    make(path)
    assert said_of([path]) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a: &a [x, x]\nb: [*a, *a]\n",
            "FILE has the alias *a: write out what it stands for",
        ),
        (
            "!!python/object/apply:os.system ['true']\n",
            "FILE is not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.system' in \"<unicode string>\", line 1, "
            "column 1",
        ),
        (f"a: {'[' * 5000}", "FILE: more than 40 nested objects and lists"),
        ("a: 1\na: 2\n", "FILE has the key 'a' twice in one object"),
        ("a: 1\n---\nb: 2\n", "FILE has several documents: expected one"),
        ("a: !!binary aGVsbG8=\n", "FILE holds bytes: expected names, numbers and text only"),
        ("just text", "FILE: is text, expected an object of names and values"),
        ("x" * (2**20 + 1), "FILE has 1.0 MiB: expected at most 1 MiB"),
        (
            f"{YAML}{{time_to_first_token: {{units: s, mean: .nan}}}}}}}}}}",
            "FILE: results.request_performance.aggregate.latency.time_to_first_token.mean = 'nan': "
            "expected a number from 0",
        ),
    ],
    ids=[
        *("alias", "python", "deep", "key twice", "two documents", "bytes", "text", "large"),
        "NaN",
    ],
)
def test_what_is_no_plain_yaml_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(content)
    assert said_of([path]) == message


@pytest.mark.parametrize(
    "name",
    [
        *("mean_ttft_ms", "p99_e2el_ms", "output_throughput", "duration", "completed"),
        *("total_output_tokens", "failed"),
    ],
)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, True, "12", -1, [1.0], {}], ids=repr
)
def test_what_is_no_number_from_0_is_named(tmp_path: Path, name: str, value: Any) -> None:
    odd = {"nan": "'NaN'", "inf": "'Infinity'", "-inf": "'-Infinity'"}
    said = odd.get(str(value), repr(value))
    path = result_file(tmp_path, **{name: value})
    assert said_of([path]) == f"FILE: {name} = {said}: expected a number from 0"


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"ttfts": [0.1, True]}, "FILE: ttfts[1] is True, not what it should be"),
        ({"ttfts": [0.1, "0.2"]}, "FILE: ttfts[1] is '0.2', not what it should be"),
        ({"itls": [[0.1], [False]]}, "FILE: itls[1] is [False], not what it should be"),
        ({"output_lens": [512, "512"]}, "FILE: output_lens[1] is '512', not what it should be"),
        ({"output_lens": [512, 1.5]}, "FILE: output_lens[1] is 1.5, not what it should be"),
        ({"input_lens": [True, 2]}, "FILE: input_lens[0] is True, not what it should be"),
        ({"ttfts": [0.1, math.inf]}, "FILE: ttfts[1] is 'Infinity', not what it should be"),
        ({"start_times": [1e300, 1.0]}, "FILE: start_times[0] is 1e+300, not what it should be"),
        (
            {"ttfts": [0.1]},
            "FILE: lists of one entry per request differ in length: ttfts 1, output_lens 2",
        ),
    ],
    ids=[
        *("true for a time", "text for a time", "false for a gap", "text for a length"),
        *("half a token", "true for a length", "infinite", "huge", "too few"),
    ],
)
def test_entries_of_requests_that_cannot_be_are_refused(
    tmp_path: Path, lists: dict[str, Any], message: str
) -> None:
    assert said_of([result_file(tmp_path, **{"output_lens": [512, 512], **lists})]) == message


def test_many_files_are_together_no_more_than_one_may_hold(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.write_text(f"{TEXT}\n" * 600)
    assert said_of(paths) == "FILE: more than 1000 results: import them in parts"
