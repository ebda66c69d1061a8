"""``pdserve calibrate``: series of files and stored sessions, and what it prints."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.calibration import load_series
from pytest_pdserve.results.store import load_record
from pytest_pdserve.study.calibration import noise_of
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.workload import Workload
from tests.support.said import said_by
from tests.support.stored_nights import INVALID
from tests.support.stored_nights import Shelf
from tests.support.stored_nights import write_record

GPU = Path(__file__).parents[1] / "data" / "gpu_four_h200_five_starts.csv"
"""Four cells, five starts of one night; values of ITL and TPOT are rounded to 0.1 ms."""
ITL = "mean_itl_ms"

# Files.


def moments(values: Mapping[str, list[float]]) -> tuple[float, float]:
    """Standard deviation within and between starts, %, as gpu/README.md of the project has it."""
    own = statistics.mean(statistics.variance(there) for there in values.values())
    runs = statistics.mean(len(there) for there in values.values())
    means = statistics.variance(statistics.mean(there) for there in values.values())
    return 100 * math.sqrt(own), 100 * math.sqrt(max(0.0, means - own / runs))


README = {
    ("route4", 512): ((3.0, 2.4), (5.5, 3.7), (1.5, 2.2)),
    ("1p3d", 512): ((2.4, 0.0), (6.2, 0.0), (3.4, 0.0)),
    ("route4", 4096): ((4.8, 1.7), (4.6, 0.0), (1.9, 0.6)),
    ("1p3d", 4096): ((0.6, 0.6), (1.4, 0.6), (1.0, 0.9)),
}
"""Within and between starts, %, of throughput, mean TTFT and mean E2EL."""
OUTLIER = ("route4", 4096, "output_throughput")
"""One of its twelve runs was 12 % slower: a standard deviation is made of it, a median is not."""


@pytest.mark.parametrize(("topology", "input_len"), README, ids=lambda value: str(value))
def test_the_file_of_the_gpus_is_read_as_its_readme_sums_it_up(
    topology: str, input_len: int
) -> None:
    names = ("output_throughput", "mean_ttft_ms", "mean_e2el_ms")
    stated = README[topology, input_len]
    runs = [
        run
        for run in load_series(GPU).runs
        if (run.topology, run.workload.input_len, run.role) == (topology, input_len, "measured")
        and run.workload.output_len == 256
    ]
    for name, (within, between) in zip(names, stated, strict=True):
        by_start: dict[str, list[float]] = {}
        for run in runs:
            by_start.setdefault(run.start, []).append(math.log(run.values[name]))
        assert moments(by_start) == pytest.approx((within, between), abs=0.08)
        found = noise_of(name, runs)
        assert found is not None
        assert found.within is not None
        assert found.between is not None
        assert 100 * found.within.low <= within <= 100 * found.within.high + 0.05 or (
            (topology, input_len, name) == OUTLIER
        )
        assert 100 * found.between.low - 0.05 <= between <= 100 * found.between.high


HEAD = "topology,input_len,output_len,num_prompts,start,order_in_cell,role,mean_itl_ms\n"
LINE = "dp,512,256,64,1,0,measured,5.0\n"
NEEDED = "topology, input_len, output_len, num_prompts, start"
METRIC_NAMES = (
    "mean_ttft_ms, p99_ttft_ms, mean_itl_ms, mean_tpot_ms, mean_e2el_ms, output_throughput"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "",
            f"line 1: column 'topology' is missing; expected {NEEDED} and metrics",
            id="empty",
        ),
        pytest.param(
            HEAD.replace("start,", "begin,") + LINE,
            f"line 1: column 'start' is missing; expected {NEEDED} and metrics",
            id="no start",
        ),
        pytest.param(
            HEAD.replace("mean_itl_ms", "mean_itl") + LINE,
            f"line 1: no column is a judged metric; expected one of {METRIC_NAMES}",
            id="no metric",
        ),
        pytest.param(
            HEAD.replace("role", "start") + LINE,
            "line 1: column 'start' appears twice",
            id="column twice",
        ),
        pytest.param(HEAD, "expected at least one line below the header", id="no run"),
        pytest.param(
            HEAD + LINE + "dp,512,256\n",
            "line 3: 3 fields, expected 8 as in the first line",
            id="short line",
        ),
        pytest.param(
            HEAD + LINE.replace("512", "half"),
            "line 2: column input_len: 'half', expected a whole number from 1 to 10,000,000",
            id="no integer",
        ),
        pytest.param(
            HEAD + LINE.replace("64", "0"),
            "line 2: column num_prompts: '0', expected a whole number from 1 to 10,000,000",
            id="no prompts",
        ),
        pytest.param(
            HEAD + LINE.replace("1,0,", "1,-1,"),
            "line 2: column order_in_cell: '-1', expected a whole number from 0 to 10,000,000",
            id="order below 0",
        ),
        *(
            pytest.param(
                HEAD + LINE.replace("5.0", value),
                f"line 2: column mean_itl_ms: {value!r}, expected a number above 0 in ms, or "
                "an empty field",
                id=f"metric {value}",
            )
            for value in ("0", "-1", "nan", "inf", "1e999", "fast")
        ),
        pytest.param(
            HEAD + LINE.replace("5.0", ""),
            "line 2: no metric has a value, expected at least one",
            id="no value",
        ),
        pytest.param(
            HEAD + LINE.replace("dp,", ",", 1),
            "line 2: column topology: is empty, expected a name",
            id="no topology",
        ),
        pytest.param(
            HEAD + LINE + LINE,
            "line 3: column order_in_cell: 0 of start '1' is also on line 2; expected another "
            "number for each run of a cell on a start",
            id="run twice",
        ),
        pytest.param(
            HEAD + LINE.replace("measured", "warm-up"),
            "column role: no run has 'measured', expected at least one",
            id="only warm-ups",
        ),
        pytest.param(
            HEAD + 'dp,"512,256\n',
            "line 2: is not valid CSV: unexpected end of data",
            id="open quote",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "series.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_series(path)
    assert str(refused.value) == f"{path}: {said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, "cannot be read: No such file or directory", id="no file"),
        pytest.param(b"topology\xff", "is not UTF-8 text: byte 8", id="not text"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "series.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_series(path)
    assert str(refused.value) == f"{path} {said}"


def test_spreads_that_no_number_holds_are_endless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.csv"
    rows = [
        LINE.replace(",1,0,", f",{start},{order},").replace("5.0", value)
        for start in range(5)
        for order, value in enumerate(("1e-300", "1e18")[:: 1 if start % 2 else -1])
    ]
    path.write_text(HEAD + "".join(rows))
    assert main(["calibrate", "--series", str(path)]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_runs_without_an_order_are_counted_on_each_start(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["topology", "input_len", "output_len", "num_prompts", "start", ITL])
        writer.writerows(["dp", 512, 256, 64, start, 5.0] for start in (1, 1, 2, 1))
    assert [run.order for run in load_series(path).runs] == [0, 1, 0, 2]


# The command.

HEADING = "Lines for system.toml\n"


def calibrate(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["calibrate", *arguments]) == code
    said = said_by(capsys)
    return said.err if code else said.out


def test_lines_for_the_system_file_follow_from_the_file_of_the_gpus(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = calibrate(capsys, "--series", str(GPU))
    assert (
        said.partition(HEADING)[2]
        == f"""\
# pdserve calibrate: 4 cells, 5 starts, 96 runs of {GPU}
[judgement.floors]
mean_ttft_ms = 0.33  # 5 typical spreads are 32.4 %
p99_ttft_ms = 0.40  # 5 typical spreads are 32.7 %; a lower floor needs 5 nights
mean_itl_ms = 0.13  # 5 typical spreads are 12.1 %
mean_tpot_ms = 0.12  # 5 typical spreads are 11.1 %
mean_e2el_ms = 0.15  # 5 typical spreads are 14.5 %
output_throughput = 0.14  # 5 typical spreads are 13.6 %

[judgement.sees]
mean_ttft_ms = 0.43
p99_ttft_ms = 0.48
mean_itl_ms = 0.20
mean_tpot_ms = 0.14
mean_e2el_ms = 0.18
output_throughput = 0.19

[sweep]
# Expected, not measured: calibrate again with it, and take the floors of that.
# Cells of another number of prompts are other cells: their baseline begins anew.
# Without request_rate or max_concurrency, more prompts are more requests at once.
num_prompts = 1024
"""
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            ("--series", "a.csv", "20261101T220000-p5-efa"),
            "--series a.csv and RUN 20261101T220000-p5-efa: expected only one of them",
            id="file and session",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(capsys, *arguments, code=4) == f"pdserve: {said}\n"


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    monkeypatch.chdir(tmp_path)
    return Shelf(folder=tmp_path, make_record=make_record)


def five_starts(shelf: Shelf, day: int = 1, **given: Any) -> str:
    """A session of five starts with three runs on each; returns its run id."""
    run = shelf.session(day, repeats=15, **given)
    for path in sorted((shelf.runs / run).rglob("*.record.json")):
        record = load_record(path)
        write_record(shelf.runs / run, replace(record, start=record.repeat // 3))
    return run


def test_runs_of_a_stored_session_belong_to_the_start_they_were_made_on(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    five_starts(shelf)
    said = calibrate(capsys, "--system", "p5-efa")
    assert f"1 session of {shelf.runs} (2026-11-01)\n30 runs of 2 cells on 10 starts of" in said
    assert said.count("15 on 5") == 8


def test_sessions_of_another_load_are_the_same_cells_at_another_load(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    for day, prompts, digest in ((1, 4, "0123456789ab"), (2, 64, "cd9876543210")):
        five_starts(
            shelf,
            day,
            workloads=(Workload(input_len=512, output_len=256, num_prompts=prompts),),
            fingerprint=digest,
            host={"cpu": "Xeon", "sweep.num_prompts": str(prompts)},
        )
    said = calibrate(capsys, "--system", "p5-efa")
    assert "measured from 4 to 64 prompts: " in said
    assert "60 runs of 2 cells on 20 starts of 2 nights" in said


@pytest.mark.slow
def test_sessions_of_other_hardware_are_left_out(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    five_starts(shelf, 1, fingerprint="cd9876543210", host={"cpu": "EPYC"})
    five_starts(shelf, 2)
    said = calibrate(capsys, "--system", "p5-efa")
    assert (
        "left out: 1 session of another client, hardware or version: fingerprint cd9876543210"
        in said
    )


def test_an_invalid_run_is_left_out_and_the_others_of_its_cell_count(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    run = five_starts(shelf)
    path = next((shelf.runs / run / "dp").glob("*.14.record.json"))
    write_record(shelf.runs / run, replace(load_record(path), findings=(INVALID,)))
    said = calibrate(capsys, "--system", "p5-efa")
    assert f"left out: invalid: {run} dp" in said
    assert said.count("14 on 5") == 4


def test_nights_of_one_run_give_floors_and_say_what_longer_loads_need(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.nights(12)
    said = calibrate(capsys, "--system", "p5-efa")
    assert "[judgement.floors]" in said
    assert "Longer loads" not in said
    command = "pytest suites/sweep --system p5-efa --topology 1p3d,dp"
    assert (
        "fewer than 3 starts with two runs, so that nothing is known of longer loads: 1p3d "
        "random-512-256 with 4 prompts; dp random-512-256 with 4 prompts\n"
        f"measure the cells with {command} --pdserve-first-runs 5 --pdserve-repeats 3 "
        "--pdserve-no-record; where the cells have a baseline, a session makes one start: on 5 "
        f"nights, {command} --pdserve-repeats 3 --pdserve-no-record\n"
    ) in said


def test_too_few_starts_are_refused_with_the_command_that_measures_more(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.nights(2, cells=("dp",))
    shelf.session(3, cells=("route4",), repeats=2, restarts=False)
    command = "pytest suites/sweep --system p5-efa --topology dp,route4"
    assert calibrate(capsys, "--system", "p5-efa", code=4) == (
        f"pdserve: 3 sessions of {shelf.runs} (2026-11-01 to 2026-11-03): the best-measured cell, "
        "dp random-512-256 with 4 prompts, has 2 starts, expected at least 3 (in all 4 runs of 2 "
        f"cells on 3 starts of servers); measure the cells with {command} --pdserve-first-runs 5 "
        "--pdserve-repeats 3 --pdserve-no-record; where the cells have a baseline, a session makes "
        f"one start: on 5 nights, {command} --pdserve-repeats 3 --pdserve-no-record\n"
    )


def test_a_start_that_topologies_share_is_one_start(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.session(1, cells=("route4", "1p3d"), repeats=2, restarts=False, shared_start=0)
    said = calibrate(capsys, "--system", "p5-efa", code=4)
    assert "has 1 start, expected at least 3 (in all 4 runs of 2 cells on 1 start of" in said


def test_starts_of_the_same_number_and_other_instances_are_two_starts(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shelf.session(1, cells=("route4", "1p3d", "2p2d"), shared_start=0)
    path = next((shelf.runs / run / "2p2d").glob("*.record.json"))
    record = load_record(path)
    others = tuple(replace(each, argv=(*each.argv, "--more")) for each in record.processes)
    write_record(shelf.runs / run, replace(record, processes=others))
    said = calibrate(capsys, "--system", "p5-efa", code=4)
    assert "(in all 3 runs of 3 cells on 2 starts of servers)" in said
