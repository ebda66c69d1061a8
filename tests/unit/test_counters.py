"""Counters of vLLM by version: one table, held against the names that releases expose.

Texts in ``tests/data/metrics``: ``seen_`` was shown by a server or in a public report, ``built_``
is put together from the names of a release, with invented values.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from pytest_pdserve.serving.scrape import parse_counters
from pytest_pdserve.serving.stalls import read_work
from pytest_pdserve.values.counters import BY_NAME
from pytest_pdserve.values.counters import COUNTERS
from pytest_pdserve.values.counters import Counter
from pytest_pdserve.values.counters import Missing
from pytest_pdserve.values.counters import diagnose_missing
from pytest_pdserve.values.counters import release_of
from pytest_pdserve.values.counters import version_has_counter
from pytest_pdserve.values.record import ServedCounts

DATA = Path(__file__).parents[1] / "data" / "metrics"
KINDS = {"histogram": ("_count", "_sum"), "counter": ("",), "gauge": ("",)}


def exposed() -> dict[str, set[str]]:
    """Sample names of each release."""
    found: dict[str, set[str]] = defaultdict(set)
    with (DATA / "names_by_version.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["version"]] |= {row["metric"] + end for end in KINDS[row["type"]]}
    return found


EXPOSED = exposed()


@pytest.mark.parametrize("version", EXPOSED)
@pytest.mark.parametrize("counter", COUNTERS, ids=lambda counter: counter.name)
def test_a_release_shows_a_counter_from_its_first_version_on(
    counter: Counter, version: str
) -> None:
    shown = any(sample in EXPOSED[version] for sample in counter.samples)
    assert shown is version_has_counter(counter.name, version)


@pytest.mark.parametrize("version", EXPOSED)
def test_the_text_of_every_release_is_read(version: str) -> None:
    lines = [f'{name}{{engine="0",model_name="m"}} 7' for name in EXPOSED[version]]
    text = "\n".join([*lines, ""])
    shown = {c.name for c in COUNTERS if version_has_counter(c.name, version)}
    found = parse_counters(text).counts
    assert set(found) == shown
    assert read_work(text)["0"].requests == 14


def test_every_counter_is_a_field_of_a_record() -> None:
    assert set(BY_NAME) <= set(ServedCounts.__slots__)


def counts_of(name: str) -> dict[str, float]:
    return dict(parse_counters((DATA / name).read_text()).counts)


def test_what_a_decode_instance_showed_is_read() -> None:
    found = counts_of("seen_0.32_cpu_1p1d_decode.txt")
    assert (found["requests"], found["ended_abnormally"], found["kv_transfers"]) == (23, 0, 23)
    assert (
        found["prompt_tokens"],
        found["prompt_tokens_computed"],
        found["prompt_tokens_received"],
    ) == (*(660, 0, 660),)
    assert (found["kv_descriptors"], found["kv_read_late"]) == (184, 0)
    prefill = counts_of("seen_0.32_cpu_1p1d_prefill.txt")
    assert (prefill["prompt_tokens_computed"], prefill["generation_tokens"]) == (660, 23)
    assert prefill["prefix_cache_hits"] == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "built_0.33_decode_after.txt",
            {"prompt_tokens_computed": 10, "prompt_tokens_received": 8438},
        ),
        ("built_0.33_decode_after_failed_transfers.txt", {"kv_failed": 3}),
        ("built_0.33_prefill_after_expiry.txt", {"kv_expired": 2, "kv_read_late": 1}),
        ("built_0.33_no_nixl.txt", {"kv_transfers": None, "kv_failed": None}),
        ("seen_vllm_0.10_excerpt.txt", {"prefix_cache_hits": 0, "kv_transfers": None}),
        # NaN is no count, two engines are one instance, and a label may hold anything.
        ("seen_edge_lines.txt", {"kv_failed": 3, "kv_bytes": None, "prompt_tokens_received": 9}),
        ("seen_instance_without_nixl_excerpt.txt", {"kv_transfers": None}),
        ("seen_nixl_counters_all_zero.txt", {"kv_failed": 0}),
        ("seen_python_and_process_lines_only.txt", dict.fromkeys(BY_NAME)),
    ],
)
def test_texts_of_other_releases_are_read(name: str, expected: dict[str, float | None]) -> None:
    found = counts_of(name)
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize("path", sorted(DATA.glob("*.txt")), ids=lambda path: path.name)
def test_no_text_is_too_strange(path: Path) -> None:
    if "headers" not in path.name:
        parse_counters(path.read_text())
        read_work(path.read_text())


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.32.0", (0, 32)),
        ("0.32.0+cpu", (0, 32)),
        ("0.15.1rc2", (0, 15)),
        ("1.0.0", (1, 0)),
        ("0.1.dev7+g12ab", None),
        ("main", None),
        (None, None),
    ],
)
def test_a_release_is_read_from_a_version(
    version: str | None, release: tuple[int, int] | None
) -> None:
    assert release_of(version) == release


NO_STATS = "perhaps started with --disable-log-stats"


@pytest.mark.parametrize(
    ("name", "version", "counting", "why", "proves"),
    [
        ("requests", "0.32.0", False, NO_STATS, False),
        ("requests", None, False, NO_STATS, False),
        ("kv_transfers", "0.32.0", False, NO_STATS, False),
        (
            *("kv_transfers", "0.11.2", True),
            *("vLLM 0.11.2 does not count it, 0.12 and later do", False),
        ),
        (
            *("kv_transfers", "0.12.0", True),
            *("the KV connector is off or is not NixlConnector", True),
        ),
        (
            *("prompt_tokens_computed", None, True),
            "the vLLM version is unknown (counted since 0.16), or perhaps started with "
            "--disable-log-stats",
            False,
        ),
        ("prompt_tokens_computed", "0.25.0", True, NO_STATS, False),
    ],
)
def test_what_a_missing_counter_means(
    name: str, version: str | None, why: str, *, counting: bool, proves: bool
) -> None:
    assert diagnose_missing(name, version, counts_requests=counting) == Missing(
        why=why, proves_no_transfer=proves
    )
