"""``pdserve import`` as a command: what it asks for, prints, writes, and ends with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from tests.support.foreign import CASES
from tests.support.foreign import FORMATS
from tests.support.foreign import result_file
from tests.support.said import said_by

SERVED = ("--topology", "1p3d", "--system", "p5-efa")
COUNTERS = (
    "the counters of 1p3d's instances cannot be read here, so neither the path nor KV transfers "
    "are proven"
)
CHUNKS = (
    "no entry per request (--save-detailed), so chunks cannot be compared with tokens; ITL is not "
    "judged"
)
SENDING = "how late the client sent its requests is unknown"
UNPROVEN = [f"  unproven: {each}" for each in (CHUNKS, COUNTERS, SENDING)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without settings, in which commands run."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "missing", "keys"),
    [
        ((), "--topology and --system", "pdserve_topology and pdserve_system"),
        (SERVED[:2], "--system", "pdserve_system"),
        (SERVED[2:], "--topology", "pdserve_topology"),
    ],
    ids=["neither", "no system", "no topology"],
)
def test_what_served_must_be_said(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    missing: str,
    keys: str,
) -> None:
    assert main(["import", *flags, str(result_file(project))]) == 4
    assert said_by(capsys).err == (
        f"pdserve: pdserve import needs {missing}, which results do not contain; give {missing}, "
        f"or set {keys} in the ini file\n"
    )
    assert not (project / "runs").exists()


def test_ini_keys_say_it_too(project: Path) -> None:
    settings = "[pytest]\npdserve_topology = 1p3d\npdserve_system = p5-efa\n"
    (project / "pytest.ini").write_text(settings)
    assert main(["import", str(result_file(project))]) == 0
    assert len([*(project / "runs").glob("*/1p3d/*.record.json")]) == 1


def test_a_record_and_what_sanity_says_of_it_are_printed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", *SERVED, str(CASES / "sglang_one_line.jsonl")]) == 0
    (folder,) = (project / "runs").iterdir()
    name = "random-1-512-10000in-5120000out-n-unknown+unknown.0.record.json"
    assert said_by(capsys).out.splitlines() == [
        str(folder / "1p3d" / name),
        "  unproven: the expected number of requests is unknown",
        "  unproven: the client's result has no number of failed requests",
        *UNPROVEN,
        "  note: the file has no date: this is a night of its own",
    ]


def test_what_holds_of_all_records_is_printed_once(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", *SERVED, str(FORMATS / "vllm_bench_serve_appended.json")]) == 0
    stem = "-n200-rate1+unknown.0.record.json"
    tokens = "output tokens; the lengths of data set 'unknown' are unknown"
    assert [line.rpartition("/")[2] for line in said_by(capsys).out.splitlines()] == [
        f"unknown-40000in-25600out{stem}",
        f"  unproven: 40000 input and 25600 {tokens}",
        f"unknown-39800in-25472out{stem}",
        "  invalid: 199 of 200 requests completed, 1 failed",
        f"  unproven: 39800 input and 25472 {tokens}",
        " all records:",
        *UNPROVEN,
        "  unproven: requested 1 requests/s; the rate of sending is unknown".rpartition("/")[2],
    ]


def test_the_same_file_twice_is_one_record(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = result_file(project)
    assert main(["import", *SERVED, str(path)]) == 0
    record = said_by(capsys).out.splitlines()[0]
    before = sorted(project.rglob("*"))
    assert main(["import", *SERVED, str(path)]) == 0
    assert said_by(capsys).out == (f"{path} was imported before as {record}; nothing was written\n")
    assert sorted(project.rglob("*")) == before


def test_one_bad_file_among_good_ones_writes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = result_file(project), result_file(project, "bad.json", duration="2")
    assert main(["import", *SERVED, str(good), str(bad)]) == 4
    assert said_by(capsys).err == (f"pdserve: {bad}: duration = '2': expected a number from 0\n")
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Path.touch, "FILE is empty: expected a result in JSON or YAML"),
        (os.mkfifo, "FILE is a pipe: expected a file"),
        (
            Path.mkdir,
            "FILE is a folder without a result of vllm bench sweep (run=0.json, at most 3 levels "
            "down): name a file",
        ),
        (
            lambda path: path.write_bytes(b"\x1f\x8b"),
            "FILE is compressed (gzip): decompress it first",
        ),
        (
            lambda path: path.write_text("[" * 10**6),
            "FILE is not valid JSON: nested too deeply",
        ),
        (
            lambda path: path.write_text((CASES / "embeddings.json").read_text()),
            "FILE: backend 'openai-embeddings': an embeddings benchmark, or another without "
            "output, has no tokens to time",
        ),
    ],
    ids=["empty", "pipe", "folder", "gzip", "deep", "embeddings"],
)
def test_what_cannot_be_imported_is_one_sentence_and_code_4(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], object],
    said: str,
) -> None:
    path = project / "r.json"
    make(path)
    assert main(["import", *SERVED, str(path)]) == 4
    assert said_by(capsys).err == f"pdserve: {said.replace('FILE', str(path))}\n"
    assert not (project / "runs").exists()


@pytest.mark.parametrize("dataset", ["", "a/b", "../../x", "a\nb", "a b"])
def test_a_data_set_is_a_name_that_files_can_have(
    project: Path, capsys: pytest.CaptureFixture[str], dataset: str
) -> None:
    asked = ["import", *SERVED, "--dataset", dataset, str(result_file(project))]
    assert main(asked) == 4
    assert said_by(capsys).err.startswith(f"pdserve: --dataset {dataset!r} is not a name of ")
    assert not (project / "runs").exists()


def test_what_was_imported_is_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((CASES / "concurrency").iterdir())
    assert main(["import", *SERVED, "--vllm-version", "0.15.1", *map(str, files)]) == 0
    said_by(capsys)
    assert main(["show"]) == 0
    shown = [line for line in said_by(capsys).out.splitlines() if not line.startswith(" ─")]
    tokens = (
        "unproven: 655360 input and 655360 output tokens; the lengths of data set 'unknown' are"
    )
    assert shown[:7] == [
        "20260611T060400-p5-efa-imported, system p5-efa, 2026-06-11T06:04:00.000Z, vllm 0.15.1",
        "all workloads: unknown, 655360in-655360out, n640, unknown",
        "                         TTFT   p99 TTFT   ITL   TPOT   output   mean E2EL",
        " topology   workload       ms         ms    ms     ms    tok/s          ms   validity",
        " 1p3d       c16         423.0     1269.0     -   14.4   1109.0     14773.7   unproven",
        " 1p3d       c4          147.0      441.0     -    9.5    420.0      9752.4   unproven",
        " 1p3d       c64        1900.0     5700.0     -   22.1   2900.0     22598.6   unproven",
    ]
    assert shown[7] == f"{tokens} unknown [1p3d c16, 1p3d c4, 1p3d c64]"


def test_an_imported_night_is_judged_as_any_other(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", *SERVED, str(CASES / "concurrency" / "conc4.json")]) == 0
    said_by(capsys)
    assert main(["judge", "--system", "p5-efa", "--format", "json"]) == 6
    judged = json.loads(said_by(capsys).out)
    assert [cell["verdict"] for cell in judged["cells"].values()] == ["NOT JUDGED"]
