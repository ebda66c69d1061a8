"""Results of other people's runs, made into records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.history import session_folders
from pytest_pdserve.results.history import stored_session
from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.record import Record
from tests.support.foreign import RESULT
from tests.support.foreign import import_files
from tests.support.foreign import result_file


def imported(folder: Path, dataset: str | None = None, **changes: Any) -> Record:
    """Import one result; returns its record as it was stored."""
    (made,) = import_files(result_file(folder, **changes), runs=folder / "runs", dataset=dataset)
    assert made.record == load_record(made.path)
    return load_record(made.path)


def test_a_result_becomes_a_record_of_what_it_says(tmp_path: Path) -> None:
    record = imported(tmp_path)
    assert (record.topology, record.system) == ("1p3d", "p5-efa")
    assert record.metrics["mean_ttft_ms"] == 90.0
    assert record.metrics["failed"] == 0
    assert (record.started_at, record.start) == ("2026-03-10T10:15:00.000Z", None)
    assert record.host == {"model": "org/m"}
    assert record.cluster["source"] == str(tmp_path / "result.json")


def test_what_only_a_live_server_shows_is_unproven_and_not_judged(tmp_path: Path) -> None:
    record = imported(tmp_path)
    assert [f.check for f in record.unproven] == ["tokens", "chunks", "served", "client"]
    assert {"mean_itl_ms", "kv_transfers"} <= record.voided
    assert record.invalid == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"total_output_tokens": 0, "output_throughput": None},
            "4 requests completed and none generated a token",
        ),
        (
            {"output_throughput": 600.0},
            "output_throughput = 600, but 1024 output tokens in 2 s are 512 per second",
        ),
        (
            {"total_token_throughput": 1024.0},
            "total_token_throughput = 1024, but 3072 tokens in 2 s are 1536 per second",
        ),
        (
            {"request_throughput": 4.0},
            "request_throughput = 4, but 4 requests in 2 s are 2 per second",
        ),
        (
            {"p99_e2el_ms": 9000.0},
            "p99_e2el_ms = 9000, longer than the whole run of 2 s",
        ),
        ({"duration": 0}, "mean_ttft_ms = 90, longer than the whole run of 0 s"),
        ({"output_lens": [256]}, "entries of 1 requests, but 4 completed"),
        ({"num_prompts": 5}, "4 of 5 requests completed, 1 failed"),
    ],
    ids=[
        *("no tokens", "output rate", "total rate", "request rate", "longer than the run"),
        *("no time", "entries missing", "one failed"),
    ],
)
def test_figures_that_contradict_each_other_are_invalid(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert [finding.message for finding in imported(tmp_path, **changes).invalid] == [message]


@pytest.mark.parametrize(
    "changes",
    [{"output_throughput": 511.9}, {"request_throughput": 1.99}, {"p99_e2el_ms": 1999.0}],
    ids=["tokens", "requests", "as long as the run"],
)
def test_figures_that_are_rounded_are_not_invalid(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert imported(tmp_path, **changes).invalid == ()


ASKED = {"input_len": 512, "output_len": 300}
ENDED = "outputs ended early, and whether --ignore-eos was given is unknown"
OPTIONS = "the options that could explain it are unknown"


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (ASKED, [f"1024 output tokens, expected 1200: {ENDED}"]),
        ({**ASKED, "num_prompts": None}, [f"1024 output tokens, expected 1200: {ENDED}"]),
        ({**ASKED, "output_len": 200}, [f"1024 output tokens, expected 800: {OPTIONS}"]),
        (
            {"input_len": 513, "output_len": 256},
            [f"2048 input tokens, expected 2052: {OPTIONS}"],
        ),
        ({"input_len": 512, "output_len": 256}, []),
    ],
    ids=[
        "short outputs",
        "short outputs of completed",
        "long outputs",
        "short prompts",
        "as asked",
    ],
)
def test_other_lengths_than_asked_are_named_and_not_held_against_the_run(
    tmp_path: Path, changes: dict[str, Any], messages: list[str]
) -> None:
    record = imported(tmp_path, **changes)
    assert [f.message for f in record.unproven if f.check == "tokens"] == messages


def test_an_error_that_steers_a_terminal_is_shown_as_text(tmp_path: Path) -> None:
    record = imported(
        tmp_path, completed=3, output_lens=[1, 1, 1, 0], errors=["", "", "", "\x1b[31mred"]
    )
    assert record.invalid[0].message.endswith(r"first error: \x1b[31mred")


@pytest.mark.parametrize(
    ("topology", "said", "message"),
    [
        (
            "1p3d",
            {"prefill_replicas": "0", "decode_replicas": "4"},
            ["the file has no separate prefill instances, unlike 1p3d"],
        ),
        (
            "1p3d",
            {"prefill_replicas": "2", "decode_replicas": "3"},
            ["the file has 2 prefill and 3 decode instances, unlike 1p3d"],
        ),
        ("1p3d", {"prefill_replicas": "1", "decode_replicas": "3"}, []),
        ("2x1p3d", {"prefill_replicas": "2", "decode_replicas": "6"}, []),
        ("dp", {"prefill_replicas": "0", "decode_replicas": "4"}, []),
        (
            "dp",
            {"prefill_replicas": "1", "decode_replicas": "3"},
            ["the file has 1 prefill and 3 decode instances, unlike dp"],
        ),
    ],
)
def test_another_topology_than_the_files_is_unproven(
    tmp_path: Path, topology: str, said: dict[str, str], message: list[str]
) -> None:
    path = result_file(tmp_path, **said)
    (made,) = import_files(path, runs=tmp_path / "runs", topology=topology)
    record = load_record(made.path)
    assert [f.message for f in record.unproven if f.check == "topology"] == message


def test_names_that_are_not_understood_are_listed(tmp_path: Path) -> None:
    record = imported(tmp_path, gpu="4xGPU", mean_frobs_ms=1.0, nested={"a": [1]})
    notes = [finding.message for finding in record.findings if finding.is_note]
    assert notes == ["not understood: gpu, mean_frobs_ms, nested"]


def nights(runs: Path) -> list[tuple[str, str, int]]:
    """Return folder, night and number of records of each session, newest first."""
    found = []
    for folder, ref in session_folders(runs):
        session = stored_session(folder, system=ref.system, unreadable=[])
        assert session is not None
        found.append((folder.name, session.night, len(session.records)))
    return found


def test_the_night_is_the_files_own_date(tmp_path: Path) -> None:
    dates = ("20260310-231500", "20260311-021500", "20260312-101500")
    paths = [result_file(tmp_path, f"{date}.json", date=date) for date in dates]
    import_files(*paths, runs=tmp_path / "runs")
    assert nights(tmp_path / "runs") == [
        ("20260312T101500-p5-efa-imported", "2026-03-12", 1),
        ("20260310T231500-p5-efa-imported", "2026-03-10", 2),
    ]


@pytest.mark.parametrize(
    ("date", "night"),
    [
        ("2026-03-10T23:15:00+02:00", "2026-03-10"),
        ("2026-03-10 23:15:00-05:00", "2026-03-11"),
        ("2026-03-10T23:15:00", "2026-03-10"),
    ],
)
def test_a_date_of_iso_8601_is_understood(tmp_path: Path, date: str, night: str) -> None:
    imported(tmp_path, date=date)
    assert [each[1] for each in nights(tmp_path / "runs")] == [night]


@pytest.mark.parametrize("date", ["yesterday", "20261341-101500", "00010101-000000", 20260310])
def test_a_result_of_no_known_date_is_a_night_of_its_own(tmp_path: Path, date: Any) -> None:
    record = imported(tmp_path, date=date)
    notes = [finding.message for finding in record.findings if finding.is_note]
    assert notes == [
        "the file has no date: this is a night of its own",
        f"date = {date!r} is not a date in a known form",
    ]
    assert record.session.started_at is None
    assert [each[1] for each in nights(tmp_path / "runs")] == [record.session.id]


def test_results_of_other_servers_are_other_sessions_of_other_fingerprints(tmp_path: Path) -> None:
    paths = [result_file(tmp_path, f"{name}.json", model_id=name) for name in ("a", "b", "c")]
    records = [made.record for made in import_files(*paths, runs=tmp_path / "runs")]
    assert len({record.fingerprint for record in records if record}) == 3
    assert [count for _, _, count in nights(tmp_path / "runs")] == [1, 1, 1]


def test_a_result_of_unknown_servers_has_an_unknown_fingerprint(tmp_path: Path) -> None:
    assert imported(tmp_path, model_id=None).fingerprint == "unknown"


def test_two_results_of_one_load_are_repeats(tmp_path: Path) -> None:
    paths = [result_file(tmp_path, f"{n}.json", mean_ttft_ms=90.0 + n) for n in range(2)]
    made = import_files(*paths, runs=tmp_path / "runs")
    assert [each.record.repeat for each in made if each.record] == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RESULT),
        json.dumps(RESULT, indent=4, sort_keys=True),
        f"[{json.dumps(RESULT)}]",
        f"{json.dumps(RESULT)}\n{json.dumps(RESULT)}",
    ],
    ids=["copied", "printed otherwise", "in a list", "twice in one file"],
)
@pytest.mark.parametrize("topology", ["1p3d", "dp"])
def test_the_same_result_twice_is_one_record(tmp_path: Path, text: str, topology: str) -> None:
    runs = tmp_path / "runs"
    first = imported(tmp_path)
    before = sorted(runs.rglob("*"))
    again = tmp_path / "again.json"
    again.write_text(text)
    for made in import_files(again, runs=runs, topology=topology):
        assert made.record is None
        assert load_record(made.path) == first
    assert sorted(runs.rglob("*")) == before


def test_the_same_result_twice_in_one_command_is_one_record(tmp_path: Path) -> None:
    path = result_file(tmp_path)
    first, second = import_files(path, path, runs=tmp_path / "runs")
    assert first.record is not None
    assert (second.record, second.path) == (None, first.path)


def test_nothing_is_written_outside_of_the_runs_folder(tmp_path: Path) -> None:
    imported(tmp_path, model_id="../../../outside", label="/etc/passwd", tokenizer_id="../x")
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "runs"}
