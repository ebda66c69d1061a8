"""``pdserve compare``: what its two arguments may be, what it prints, and what it ends with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.report.compare import markdown
from pytest_pdserve.results.kinds import COMPARISON
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.workload import Workload
from tests.support.foreign import FORMATS
from tests.support.foreign import result_file
from tests.support.said import said_by
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import write_record

RULE = "─"
ARTICLE = Workload(input_len=512, output_len=256, num_prompts=1024)
LATE = Finding(check="client", severity="invalid", message="sent late")
CHUNKS = Finding(check="chunks", severity="note", message="chunks", voids=("mean_itl_ms",))
Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., Record]
) -> Shelf:
    """A project in which commands run."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    return Shelf(folder=tmp_path, make_record=make_record)


@pytest.fixture
def compared(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> Compare:
    """A function from arguments to the comparison as JSON, which keeps its schema."""

    def run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
        assert main(["compare", "--format", "json", *map(str, arguments)]) == code
        said: dict[str, Any] = json.loads(said_by(capsys).out)
        COMPARISON.check(said, "printed")
        return said

    return run


def metric(comparison: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = (m for m in comparison["cells"][0]["metrics"] if m["metric"] == name)
    return found


def test_two_sessions_are_compared_start_by_start(shelf: Shelf, compared: Compare) -> None:
    a, b = (shelf.session(day, repeats=3, slower=slow) for day, slow in ((1, 0.0), (2, 0.2)))
    said = compared(a, b)
    assert [cell["topologies"] for cell in said["cells"]] == [["1p3d", "1p3d"], ["dp", "dp"]]
    ttft = metric(said, "mean_ttft_ms")
    assert ttft["says"] == "worse"
    assert ttft["a"]["counted"] == ttft["b"]["counted"] == 3
    low, high = ttft["interval"]
    assert low < ttft["change"] < high
    assert (said["unlike"], said["unsure"], said["exit_code"]) == ([], [], 0)


def test_runs_on_servers_that_stayed_up_count_once(shelf: Shelf, compared: Compare) -> None:
    a, b = (shelf.session(day, repeats=3, restarts=False) for day in (1, 2))
    ttft = metric(compared(a, b), "mean_ttft_ms")
    assert ttft["a"]["counted"] == 1
    assert ttft["interval"] is None


def side_of(kind: str, shelf: Shelf) -> Path | str:
    """Make something that can be compared, and return its argument."""
    if kind == "system":
        shelf.baseline(5)
        return "p5-efa"
    if kind == "baseline file":
        return shelf.baseline(5)
    if kind == "system folder":
        return shelf.baseline(5).parent
    run_id = shelf.session(3)
    found: dict[str, Path | str] = {
        "session": run_id,
        "session folder": shelf.runs / run_id,
        "folder of sessions": shelf.runs,
        "record": shelf.runs / run_id / "1p3d" / "random-512-256-n4.0.record.json",
    }
    return found[kind]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("session", "1 session"),
        ("session folder", "1 session"),
        ("folder of sessions", "2 sessions"),
        ("record", "record"),
        ("system", "baseline of p5-efa, 5 nights"),
        ("system folder", "baseline of p5-efa, 5 nights"),
        ("baseline file", "baseline of p5-efa, 5 nights"),
    ],
)
def test_either_argument_may_be_anything_that_was_stored(
    kind: str, what: str, shelf: Shelf, compared: Compare
) -> None:
    session = shelf.session(20)
    other = side_of(kind, shelf)
    for arguments, place in (((other, session), "a"), ((session, other), "b")):
        said = compared(*arguments)
        assert said[place]["what"] == what
        assert metric(said, "mean_ttft_ms")["says"] in ("worse", "better", "unclear", "equal")


def test_a_session_is_found_from_its_own_folder(
    shelf: Shelf, compared: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = shelf.session(1), shelf.session(2)
    monkeypatch.chdir(shelf.runs / a)
    assert len(compared(".", f"../{b}")["cells"]) == 2


def test_a_session_is_compared_with_the_articles_figures(shelf: Shelf, compared: Compare) -> None:
    session = shelf.session(1, cells=("1p3d",), workloads=(ARTICLE,))
    said = compared("article", session)
    assert said["a"]["what"].startswith("figures: Is Disaggregated")
    (cell,) = said["cells"]
    assert {m["metric"] for m in cell["metrics"] if m["change"] is not None} == {
        "mean_ttft_ms",
        "mean_itl_ms",
        "output_throughput",
    }
    assert len(said["only_a"]) == 39
    differences = {each["name"]: (each["a"], each["b"]) for each in said["differences"]}
    assert differences["system"] == (["article"], ["p5-efa"])


@pytest.mark.parametrize(
    "name",
    [
        "inferencex_agg_bmk_measured_rows.json",
        "sglang_bench_serving_row.jsonl",
        "vllm_bench_serve_2026-07_plain.json",
        "vllm_bench_serve_appended.json",
    ],
)
def test_a_result_of_any_origin_equals_itself(name: str, compared: Compare) -> None:
    said = compared(FORMATS / name, FORMATS / name)
    says = {m["says"] for cell in said["cells"] for m in cell["metrics"]}
    assert "equal" in says
    assert says <= {"equal", "not compared"}
    assert any(phrase.startswith("topology: unknown") for phrase in said["unsure"])


def test_a_result_whose_figures_contradict_each_other_is_named_and_ends_with_6(
    compared: Compare,
) -> None:
    file = FORMATS / "llmd_benchmark_report_v0_2_1.yaml"
    said = compared(file, file, code=6)
    (cell,) = said["cells"]
    assert cell["metrics"] == []
    assert cell["why"].startswith("every run of A is invalid: figures: output_throughput")


def test_a_result_from_elsewhere_is_compared_with_a_session(
    shelf: Shelf, compared: Compare
) -> None:
    file = result_file(shelf.folder, burstiness=1.0, input_len=512, output_len=256)
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_concurrency": None}))
    session = shelf.session(1, cells=("1p3d",))
    said = compared("--topology", "1p3d", "--dataset", "random", file, session)
    assert said["unsure"] == ["options: unknown | none"]
    assert metric(said, "mean_ttft_ms")["says"] == "worse"
    assert "flags of A" in said["not_known"]


def test_what_differs_is_printed_before_any_number(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    process = ProcessRecord(
        name="decode[0]",
        node="node1",
        argv=("vllm", "serve", "m", "--port", "8001", "--max-num-seqs", "128"),
        env={},
        log="x",
    )
    other = replace(process, argv=(*process.argv[:-3], "9000", "--max-num-seqs", "256"))
    a = shelf.session(2, cells=("1p3d",), versions={"vllm": "0.15.1"}, processes=(process,))
    b = shelf.session(3, cells=("1p3d",), versions={"vllm": "0.15.2"}, processes=(other,))
    assert main(["compare", a, b]) == 0
    lines = [line for line in said_by(capsys).out.splitlines() if RULE not in line]
    begin = lines.index("what differs (6 facts the same):")
    assert [line.split() for line in lines[begin + 2 : begin + 4]] == [
        ["versions", "vllm", "0.15.1", "0.15.2"],
        ["flags", "decode", "--max-num-seqs", "128", "256"],
    ]
    (first,) = (n for n, line in enumerate(lines) if line.lstrip().startswith("mean_ttft_ms"))
    assert begin < first


def test_unlike_loads_are_said_before_any_number_and_end_with_6(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    loads = (Workload(input_len=512, output_len=256, num_prompts=n) for n in (4, 8))
    a, b = (
        shelf.session(day, cells=("dp",), workloads=(load,)) for day, load in enumerate(loads, 1)
    )
    assert main(["compare", a, b]) == 6
    lines = said_by(capsys).out.splitlines()
    assert lines[2] == (
        "UNLIKE LOADS, these numbers compare loads, not servers: prompts: 4 | 8 (A | B)"
    )


def test_a_simulated_side_says_so(shelf: Shelf, compared: Compare) -> None:
    a, b = shelf.session(1, simulated=True), shelf.session(2)
    said = compared(a, b)
    assert said["a"]["what"] == "1 session, SIMULATED, no server ran"
    assert said["b"]["what"] == "1 session"
    assert [each["a"] for each in said["differences"]] == [["simulated"]]


def test_what_is_invalid_or_void_is_named_and_never_a_number(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    a = shelf.session(1)
    b = shelf.session(2, cells=("1p3d",), findings=(CHUNKS,))
    bad = shelf.make_record({"mean_ttft_ms": 777.0}, topology="dp", findings=(LATE,), requests=None)
    session = json.loads((shelf.runs / b / "session.json").read_text())["session"]
    bad = replace(bad, session=replace(bad.session, id=b, started_at=session["started_at"]))
    write_record(shelf.runs / b, bad)
    assert main(["compare", a, b]) == 0
    out = said_by(capsys).out
    assert "777" not in out
    assert "void in B, 1 cell: mean_itl_ms: chunks" in out
    assert "not compared: dp random-512-256-n4: every run of B is invalid: client: sent late" in out
    (row,) = (line.split() for line in out.splitlines() if line.startswith(" mean_itl_ms"))
    assert row[3:] == ["void", "-", "-", "not", "compared"]


def test_two_stacks_in_one_folder_are_told_apart_by_a_version(
    shelf: Shelf, compared: Compare
) -> None:
    for day, version in ((1, "0.15.1"), (2, "0.15.2"), (3, "0.15.2")):
        shelf.session(day, versions={"vllm": version})
    said = compared("runs", "runs", "--a", "vllm=0.15.1", "--b", "vllm=0.15.2")
    assert (said["a"]["runs"], said["b"]["runs"]) == (2, 4)
    assert [d["name"] for d in said["differences"]] == ["vllm"]


def test_a_limit_fails_what_is_worse(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = shelf.session(1), shelf.session(2, slower=0.3)
    assert main(["compare", a, b, "--fail-worse", "5"]) == 1
    worse = [line for line in said_by(capsys).out.splitlines() if line.startswith("WORSE: ")]
    assert len(worse) == 8
    assert main(["compare", b, a, "--fail-worse", "5"]) == 0
    assert main(["compare", a, b, "--fail-worse", "50"]) == 0


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", "runs"), "'' is not a side of a comparison"),
        (("a\0b", "runs"), "is not a file, a folder, a session in"),
        (("..\\x", "runs"), "is not a file, a folder, a session in"),
        (("nowhere", "runs"), "'nowhere' is not a file, a folder, a session in"),
        (("runs", "empty"), "is a folder without a result of vllm bench sweep"),
        (("runs", "broken.json"), "broken.json"),
        (("runs", "other.json"), "is not a result that can be imported"),
        (("runs", "local-cpu"), "system 'local-cpu' has no baseline"),
        (("runs", "runs", "--a", "vllm"), "--a 'vllm': expected COMPONENT=VERSION"),
        (("runs", "runs", "--b", "vllm=7"), "no run with vllm = '7': expected one of 0.15.1"),
        (("runs", "runs", "--b", "x=7"), "no run with x = '7': none of its runs records one"),
        (("runs", "runs", "--fail-worse", "-1"), "--fail-worse '-1': expected per cent"),
        (("runs", "runs", "--fail-worse", "nan"), "--fail-worse 'nan': expected per cent"),
        (("runs", "runs", "--partial"), "--partial without --fail-worse"),
        (("runs", "runs", "--topology", "9"), "topology '9' is not of the form"),
        (("torn", "runs"), "has no readable record"),
    ],
)
def test_bad_input_is_one_sentence_and_4(
    arguments: tuple[str, ...], said: str, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = shelf.session(1)
    (shelf.folder / "empty").mkdir()
    (shelf.folder / "broken.json").write_text("{")
    (shelf.folder / "other.json").write_text('{"a": 1}')
    (shelf.folder / "torn").mkdir()
    shutil.copy(shelf.runs / run_id / "session.json", shelf.folder / "torn")
    text = (shelf.folder / "torn" / "session.json").read_text()
    (shelf.folder / "torn" / "session.json").write_text(text.replace(run_id, "torn"))
    assert main(["compare", *arguments]) == 4
    (line,) = said_by(capsys).err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("fields", "option", "value"),
    [
        ({"client_kind": "vllm"}, "client", "vllm-command"),
        ({"system": "other"}, "system", "p5-efa"),
    ],
)
def test_a_side_of_several_clients_or_systems_needs_a_choice(
    fields: dict[str, Any],
    option: str,
    value: str,
    shelf: Shelf,
    compared: Compare,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = shelf.session(1)
    shelf.session(2, **fields)
    assert main(["compare", one, "runs"]) == 4
    assert said_by(capsys).err.endswith(f"choose one with --{option}\n")
    said = compared(one, "runs", f"--{option}", value)
    assert said["b"]["runs"] == 2


def test_nothing_that_a_record_holds_breaks_the_markdown(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "|`<script>\n</details>\u202e**x**"
    given: dict[str, Any] = {"cells": ("dp",), "metrics": {"p50_ttft_ms": 90.0}}
    a = shelf.session(1, versions={"vllm": evil, "n" * 300: "1"}, **given)
    b = shelf.session(2, versions={"vllm": "0.15.2"}, **given)
    assert main(["compare", a, b, "--format", "md"]) == 0
    out = said_by(capsys).out
    assert "<script>" not in out
    assert "\u202e" not in out
    assert out.count("</details>") == out.count("<details>") == 1
    table: list[int] = []
    for line in out.splitlines():
        if line.startswith("|"):
            table.append(line.replace("\\|", "").count("|"))
        elif table:
            assert len(set(table)) == 1
            table.clear()


def test_markdown_of_many_cells_has_at_most_60000_characters(
    shelf: Shelf, compared: Compare
) -> None:
    few = COMPARISON.parse(compared(shelf.session(1), shelf.session(2)), "printed")
    out = markdown(replace(few, cells=few.cells * 5000))
    assert 50_000 < len(out) <= 60_000
    assert "more, with --format json |" in out


def test_the_text_shows_control_characters_as_escapes(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    a = shelf.session(1, versions={"vllm": "0\x1b[31m"}, cells=("dp",))
    b = shelf.session(2, versions={"vllm": "1"}, cells=("dp",))
    assert main(["compare", a, b]) == 0
    assert "\x1b" not in said_by(capsys).out


def test_a_comparison_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="/schema_version: 2, expected 1"):
        COMPARISON.parse({"schema_version": 2}, "file.json")
