"""The runs folder: whole files or none, and nothing overwritten."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any
from typing import NoReturn

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pytest_pdserve.results import store as store_module
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.results.kinds import SESSION as SESSION_KIND
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.results.store import check_runs_folder
from pytest_pdserve.results.store import create_run
from pytest_pdserve.results.store import load_record
from pytest_pdserve.results.store import new_run_id
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.workload import Workload
from tests.support.records import SESSION

MakeRecord = Callable[..., Record]
MakeResult = Callable[..., BenchResult]
WORKLOAD = Workload(input_len=512, output_len=256, num_prompts=4)
RUN = "1p3d/random-512-256-n4.0"
"""What all files of the run of ``make_record`` begin with."""


def store_in(folder: Path) -> RunStore:
    """The store of the session of ``make_record``."""
    return RunStore(folder=folder, session=SESSION)


def rows_of(folder: Path) -> pd.DataFrame:
    """What is stored of the requests of the run of ``make_record``."""
    return pd.read_parquet(folder / f"{RUN}.requests.parquet")


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"ä": 1})
    assert (tmp_path / "a" / "b.json").read_text("utf-8") == '{\n "ä": 1\n}\n'


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(StoreError) as refused:
        write_bytes(path, b"new")
    assert str(refused.value) == (
        f"{path} cannot be written: No space left on device; free space, or make {tmp_path} "
        "writable"
    )
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_cannot_be_written_names_both_options(
    tmp_path: Path, make_record: MakeRecord, make_result: MakeResult
) -> None:
    (tmp_path / f"{RUN}.record.json").mkdir(parents=True)
    with pytest.raises(StoreError) as refused:
        store_in(tmp_path).write(make_record(requests=None), make_result())
    assert str(refused.value).endswith(
        "free space, or choose another --pdserve-runs (of pytest) or --runs (of pdserve)"
    )


def test_a_file_below_a_file_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written: "):
        write_bytes(tmp_path / "file" / "r.json", b"")


def test_a_session_is_named_for_its_start_and_system() -> None:
    at = datetime(2026, 8, 22, 10, 15, tzinfo=UTC)
    assert new_run_id("p5-efa", at) == "20260822T101500-p5-efa"


def test_two_sessions_of_one_second_have_two_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "new_run_id", lambda system, now: f"t-{system}")
    stores = [create_run(tmp_path / "runs", "s") for _ in range(3)]
    assert [s.session.id for s in stores] == ["t-s", "t-s-2", "t-s-3"]
    assert [s.folder.name for s in stores] == ["t-s", "t-s-2", "t-s-3"]
    assert all(s.folder.is_dir() for s in stores)
    for n in range(4, 100):
        (tmp_path / "runs" / f"t-s-{n}").mkdir()
    with pytest.raises(StoreError, match="and 98 more of the same second exist already"):
        create_run(tmp_path / "runs", "s")


def test_a_session_says_in_its_folder_when_it_began_and_what_it_measures(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    store = create_run(tmp_path, "s", simulated_night=3)
    stored = SESSION_KIND.parse(load_json(store.folder / "session.json"), "session.json")
    assert (stored.session, stored.system) == (store.session, "s")
    assert (store.session.id, store.session.simulated_night) == (store.folder.name, 3)
    assert store.session.began is not None
    began = store.session.began
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= began
    assert began <= datetime.now(UTC)
    assert create_run(tmp_path, "s").session.simulated_night is None


def test_a_run_folder_that_cannot_be_made_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="cannot be made: Not a directory"):
        create_run(tmp_path / "runs", "s")


def test_a_runs_folder_may_still_have_to_be_made(tmp_path: Path) -> None:
    check_runs_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_is_no_runs_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=f"cannot be used: {tmp_path}/runs is a file"):
        check_runs_folder(tmp_path / "runs" / below)


def test_a_runs_folder_must_be_readable_and_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=f"{tmp_path} is not readable and writable"):
        check_runs_folder(tmp_path)


def test_a_name_too_long_for_a_folder_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used: File name too long"):
        check_runs_folder(tmp_path / ("x" * 5000))
    with pytest.raises(StoreError, match="cannot be made: File name too long"):
        create_run(tmp_path / ("x" * 5000), "s")


def test_a_record_is_written_with_one_row_per_request(
    tmp_path: Path, make_record: MakeRecord, make_result: MakeResult
) -> None:
    path = store_in(tmp_path).write(make_record(), make_result())
    assert path == tmp_path / f"{RUN}.record.json"
    assert load_record(path) == make_record()
    rows = rows_of(tmp_path)
    assert (len(rows), rows["ttft_us"].iloc[0], len(rows["itl_us"].iloc[0])) == (4, 100_000, 255)


def test_a_start_that_is_not_known_does_not_hide_the_others(
    tmp_path: Path, make_record: MakeRecord, make_result: MakeResult
) -> None:
    result = make_result(start_s=(math.nan, 1000.0, 1000.5, 1001.0))
    store_in(tmp_path).write(make_record(), result)
    table = pq.read_table(tmp_path / f"{RUN}.requests.parquet")
    assert table["start_us"].to_pylist() == [None, 0, 500_000, 1_000_000]


@pytest.mark.parametrize(
    ("changes", "column", "value"),
    [
        ({"ttft_s": (3600.0, 0.1, 0.1, 0.1)}, "ttft_us", 3_600_000_000),
        ({"itl_s": ((3600.0,), (), (), ())}, "itl_us", [3_600_000_000]),
        ({"queue_s": (3600.0, 0.0, 0.0, 0.0)}, "queue_us", 3_600_000_000),
        ({"start_s": (4600.0, 1000.0, 1000.0, 1000.0)}, "start_us", 3_600_000_000),
    ],
    ids=["first token", "gap", "wait", "start"],
)
def test_an_hour_of_waiting_is_stored(
    tmp_path: Path,
    make_record: MakeRecord,
    make_result: MakeResult,
    changes: dict[str, Any],
    column: str,
    value: object,
) -> None:
    store_in(tmp_path).write(make_record(), make_result(**changes))
    table = pq.read_table(tmp_path / f"{RUN}.requests.parquet")
    assert table[column].to_pylist()[0] == value


def test_lists_that_are_there_in_part_make_rows_all_the_same(
    tmp_path: Path, make_record: MakeRecord, make_result: MakeResult
) -> None:
    alone = make_result(ttft_s=(), itl_s=(), input_lens=(), start_s=(), errors=())
    store_in(tmp_path).write(make_record(), alone)
    rows = rows_of(tmp_path)
    assert rows["output_tokens"].tolist() == [256] * 4
    for missing in ("input_tokens", "start_us", "queue_us", "ttft_us", "itl_us", "error"):
        assert rows[missing].isna().all()


def test_a_record_without_lists_has_no_rows(
    tmp_path: Path, make_record: MakeRecord, make_result: MakeResult
) -> None:
    store_in(tmp_path).write(make_record(requests=None), make_result())
    names = [p.name for p in (tmp_path / "1p3d").iterdir()]
    assert names == ["random-512-256-n4.0.record.json"]


def test_a_repeat_is_counted_by_the_records_that_are_there(
    tmp_path: Path, make_record: MakeRecord, make_result: MakeResult
) -> None:
    store = store_in(tmp_path)
    assert store.next_repeat("1p3d", WORKLOAD) == 0
    store.write(make_record(), make_result())
    assert store.next_repeat("1p3d", WORKLOAD) == 1
    assert store.next_repeat("dp", WORKLOAD) == 0
    assert store.logs("1p3d") == tmp_path / "1p3d" / "logs"
    assert store.logs("1p3d", 2) == tmp_path / "1p3d" / "logs-3"


def test_another_load_of_the_same_lengths_is_another_cell(
    tmp_path: Path, make_record: MakeRecord, make_result: MakeResult
) -> None:
    store = store_in(tmp_path)
    store.write(make_record(), make_result())
    assert store.next_repeat("1p3d", replace(WORKLOAD, num_prompts=8)) == 0
    assert store.next_repeat("1p3d", replace(WORKLOAD, max_concurrency=2)) == 0


def test_loads_whose_ids_no_file_name_can_hold_have_files_of_their_own(
    tmp_path: Path, make_record: MakeRecord, make_result: MakeResult
) -> None:
    store = store_in(tmp_path)
    long = [replace(WORKLOAD, options={"goodput": "x" * 900 + end}) for end in ("", "1")]
    for workload in long:
        record = make_record(workload=workload, requests=None)
        path = store.write(record, make_result())
        assert load_record(path) == record
        assert path.name.startswith("random-512-256-n4+goodput=xxx")
        assert len(path.name) < 240
    assert len(list((tmp_path / "1p3d").iterdir())) == 2
    assert [store.next_repeat("1p3d", workload) for workload in long] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {"failed": 10**400}}, "/metrics/failed: 1000000"),
        ({"metrics": {"failed": 1e19}}, "/metrics/failed: 1e[+]19 is greater than the maximum"),
        ({"metrics": {"failed": -1e19}}, "/metrics/failed: -1e[+]19 is less than the minimum"),
        ({"client": {"seed": 2**64}}, "/client/seed: an integer of 65 bits, expected at most 64"),
        ({"client": {"note": "\ud800"}}, "/client/note: text that is not UTF-8: a lone surrogate"),
        ({"client": {"a\n\ud800": 1}}, r"/client/a\\n\\ud800: text that is not UTF-8"),
        ({"repeat": 0.0}, "/repeat: 0.0 is not of type 'integer'"),
        ({"start": 1.0}, "/start: 1.0 is not of type 'integer'"),
    ],
    ids=[
        *("huge", "large", "far below", "65 bits", "surrogate", "surrogate in a key"),
        *("half int", "half start"),
    ],
)
def test_a_record_of_what_cannot_be_is_refused(
    tmp_path: Path, make_record: MakeRecord, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**RECORD.dump(make_record(), path), **changes}))
    with pytest.raises(ConfigError, match=f"^{path}: {message}") as refused:
        load_record(path)
    assert "\n" not in str(refused.value)
    str(refused.value).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "/: '.*' is a required property"),
        ('{"metrics": NaN}', "holds NaN"),
    ],
    ids=["cut", "empty", "NaN"],
)
def test_a_bad_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{path}.*{message}"):
        load_record(path)
