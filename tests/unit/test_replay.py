"""``pdserve selftest --series``: nights of a file, judged by the nightly rule."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_pdserve.commands.main import main
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.study.replay import ReplayedNight
from pytest_pdserve.study.replay import replay
from pytest_pdserve.study.series_file import ALIASES
from pytest_pdserve.study.series_file import FileNight
from pytest_pdserve.study.series_file import SeriesFile
from pytest_pdserve.study.series_file import load_series
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS

HEADER = "night,cell,start,run,metric,value,version"
PASS, SUSPICIOUS, FAIL = Status.PASS, Status.SUSPICIOUS, Status.FAIL
Values = Sequence[float | tuple[float, ...]]
"""Value of each night, or of each of its starts."""


def series(values: Values, metric: str = "mean_itl_ms") -> SeriesFile:
    nights = []
    for number, there in enumerate(values):
        runs = there if isinstance(there, tuple) else (there,)
        cells = {"c1": tuple({metric: value} for value in runs)}
        nights.append(FileNight(name=f"2026-01-{number + 1:02d}", cells=cells, versions=("1",)))
    return SeriesFile(source=Path("nights.csv"), nights=tuple(nights))


def status(night: ReplayedNight) -> Status:
    return night.not_passed[0][1].status if night.not_passed else PASS


STEADY = [100.0] * 20
ALARM = (106.0, 106.0, 106.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param([102.0], [PASS], id="within two thirds of the limit"),
        pytest.param([103.0], [SUSPICIOUS], id="beyond, one start"),
        pytest.param([150.0], [SUSPICIOUS], id="far beyond, one start"),
        pytest.param([150.0, 150.0], [SUSPICIOUS, FAIL], id="two nights"),
        pytest.param([ALARM], [FAIL], id="three starts"),
        pytest.param([(106.0, 106.0, 100.0)], [PASS], id="one start of three is not suspicious"),
        pytest.param(
            [ALARM, 100.0, ALARM, 100.0, ALARM],
            [FAIL, PASS, FAIL, PASS, SUSPICIOUS],
            id="after two alarms that went away",
        ),
        pytest.param([95.0, 95.0], [PASS, PASS], id="better"),
    ],
)
def test_nights_are_judged_by_the_rule(values: Values, said: list[Status]) -> None:
    nights = replay(series([*STEADY, *values])).nights
    assert [status(night) for night in nights[len(STEADY) :]] == said


def test_more_of_a_throughput_is_better() -> None:
    nights = replay(series([*STEADY, 106.0, 95.0], "output_throughput")).nights
    assert [status(night) for night in nights[-2:]] == [PASS, SUSPICIOUS]


def test_a_change_that_lasts_fails_every_night_unless_it_is_accepted() -> None:
    file = series([*STEADY, *[110.0] * 4])
    assert [night.is_red for night in replay(file).nights[-4:]] == [False, True, True, True]
    accepted = replay(file, accept=True).nights[-4:]
    assert [night.is_red for night in accepted] == [False, True, False, False]


def test_a_first_night_on_one_start_has_wider_limits_for_two_nights() -> None:
    nights = replay(series([100.0, 109.0, 109.0])).nights
    assert [status(night) for night in nights] == [PASS, PASS, PASS]


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_file_becomes_nights_of_cells_and_starts(tmp_path: Path) -> None:
    path = write(
        tmp_path / "n.csv",
        "2026-01-02,c1,s3,1,itl_p50,5.5,v2",
        "2026-01-01,c1,s1,2,itl_p50,9.9,v1",
        "2026-01-01,c1,s1,1,itl_p50,5.0,v1",
        "2026-01-01,c1,s1,1,out_tok_s,700,v1",
        "2026-01-01,c1,s2,1,itl_p50,5.1,v1",
        "2026-01-01,c2,s1,1,itl_p50,,v1",
    )
    first = {"p50_itl_ms": 5.0, "output_throughput": 700.0}
    assert load_series(path).nights == (
        FileNight(name="2026-01-01", cells={"c1": (first, {"p50_itl_ms": 5.1})}, versions=("v1",)),
        FileNight(name="2026-01-02", cells={"c1": ({"p50_itl_ms": 5.5},)}, versions=("v2",)),
    )


@pytest.mark.parametrize("name", [*ALIASES, *METRICS.measured])
def test_a_metric_that_is_known_is_read(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "n.csv", f"2026-01-01,c1,s1,1,{name},5,v1")
    assert list(load_series(path).nights[0].cells["c1"][0]) == [ALIASES.get(name, name)]


def rows_of(nights: Mapping[str, tuple[float, str]]) -> list[str]:
    return [
        f"{night},c1,s-{night},1,itl_p50,{value},{version}"
        for night, (value, version) in nights.items()
    ]


def test_a_replay_says_what_was_seen_and_which_versions_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steady = {f"2026-01-{day:02d}": (20.0, "v1") for day in range(1, 21)}
    later = {"2026-01-21": (22.0, "v2"), "2026-01-22": (22.1, "v2"), "2026-01-23": (20.0, "v3")}
    path = write(tmp_path / "n.csv", *rows_of({**steady, **later}))
    code = main(["selftest", "--series", str(path)])
    assert (code, capsys.readouterr().out) == (
        0,
        f"""\
Replay of {path}: 23 nights from 2026-01-01 to 2026-01-23, 1 cell,
1 start of a cell a night at most. Nothing can be run again: a night with fewer than three starts
makes SUSPICIOUS, and a second such night FAIL. No change is accepted here: one that lasts FAILs \
every night.

2026-01-21  SUSPICIOUS 1 of 1 metrics; v1 -> v2
  SUSPICIOUS  c1  p50_itl_ms 22 ms, reference 20 ms: +10 %, limit +4 %

2026-01-22  FAIL 1 of 1 metrics
  FAIL        c1  p50_itl_ms 22.1 ms, reference 20 ms: +10.5 %, limit +4 %, 2 nights in a row

2026-01-23  all PASS; v2 -> v3

first month  22 nights judged: 1 (5%) red; 1 (5%) if a person accepts each FAIL the next day; 1 \
with SUSPICIOUS only
""",
    )


GOOD = "2026-01-01,c1,s1,1,itl_p50,5,v1"
NAMES = ", ".join((*ALIASES, *METRICS.measured))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        pytest.param(
            ["2026-1-1,c1,s1,1,itl_p50,5,v1"],
            "line 2, column night: '2026-1-1', expected a date such as 2025-10-14",
            id="night",
        ),
        pytest.param(
            [GOOD, "2026-02-30,c1,s1,1,itl_p50,5,v1"],
            "line 3, column night: '2026-02-30', expected a date such as 2025-10-14",
            id="day",
        ),
        pytest.param(
            ["2026-01-01,,s1,1,itl_p50,5,v1"],
            "line 2, column cell: '', expected a name",
            id="cell",
        ),
        pytest.param(
            ["2026-01-01,c1,s1,-1,itl_p50,5,v1"],
            "line 2, column run: '-1', expected a whole number, 0 or more",
            id="run",
        ),
        pytest.param(
            ["2026-01-01,c1,s1,1,itl_p42,5,v1"],
            f"line 2, column metric: 'itl_p42', expected one of {NAMES}",
            id="metric",
        ),
        *(
            pytest.param(
                [f"2026-01-01,c1,s1,1,itl_p50,{value},v1"],
                f"line 2, column value: '{value}', expected a number above 0, or an empty field "
                "for a run without a result",
                id=f"value {value}",
            )
            for value in ("0", "-5", "nan", "inf", "1e999", "fast")
        ),
        pytest.param(
            [GOOD, "2026-01-02,c1"],
            "line 3: 2 fields, expected 7",
            id="fields",
        ),
        pytest.param(
            [GOOD, GOOD],
            "line 3: the same night, cell, start, run and metric as in line 2, expected each once",
            id="twice",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(rows: list[str], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "n.csv", *rows)
    with pytest.raises(ConfigError) as refused:
        load_series(path)
    assert str(refused.value) == f"{path}, {said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", f"is empty, expected a line with the columns {HEADER}", id="empty"),
        pytest.param(HEADER.encode(), "has no rows, expected at least one", id="header only"),
        pytest.param(
            b"night,cell\n",
            f", line 1: column 'start' is missing or duplicated, expected {HEADER}",
            id="columns",
        ),
        pytest.param(
            HEADER.encode() + b'\n"2026', ", line 2: not CSV: unexpected end of data", id="quote"
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_series(path)
    assert str(refused.value) == f"{path}{'' if said.startswith(',') else ' '}{said}"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda path: None, "cannot be read: No such file or directory", id="absent"),
        pytest.param(Path.mkdir, "cannot be read: Is a directory", id="folder"),
        pytest.param(
            lambda path: path.write_bytes(b"\xff\xfe"),
            "is not UTF-8 text: invalid start byte",
            id="binary",
        ),
    ],
)
def test_what_is_no_text_file_is_refused_in_one_sentence(
    make: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "n.csv"
    assert callable(make)
    make(path)
    code = main(["selftest", "--series", str(path)])
    assert (code, capsys.readouterr().err) == (4, f"pdserve: --series {path} {said}\n")


FIELD = st.sampled_from(
    ["2026-01-01", "2026-01-02", "c1", "1", "itl_p50", "5", "", "-1", "\0", '"']
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(FIELD, min_size=6, max_size=8), max_size=4))
def test_no_file_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("n") / "n.csv"
    write(path, *(",".join(row) for row in rows))
    with contextlib.suppress(ConfigError):
        replay(load_series(path))
