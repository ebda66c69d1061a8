"""When the cells of a history changed: medians of nights, changes put together, what changed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.history.entries import SessionEntry
from pytest_pdserve.history.files import COLUMNS
from pytest_pdserve.history.files import file_schema
from pytest_pdserve.history.store import Store
from pytest_pdserve.report.trend import trend_lines
from pytest_pdserve.study.series_file import ALIASES
from pytest_pdserve.study.trend_history import trend_of
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.trend import DatedChange
from pytest_pdserve.values.trend import Trend

pytest.importorskip("ruptures", reason="the extra [history] is not installed")

NIGHTLIES = Path(__file__).parents[3] / "shared" / "data" / "nightlies"
NIGHTS = 60
FIRST = date(2026, 1, 1)
Floats = npt.NDArray[np.float64]
Cells = Mapping[tuple[str, str, str], Floats]
"""Values of each night by topology, workload and metric."""


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def level(seed: int, *steps: tuple[int, float], value: float = 10.0) -> Floats:
    """Nights with 0.5 % noise, and steps: from which night on, and by how much."""
    logs = 0.005 * np.random.default_rng(seed).normal(size=NIGHTS)
    for at, change in steps:
        logs += math.log1p(change) * (np.arange(NIGHTS) >= at)
    return np.asarray(value * np.exp(logs))


def values_of(cells: Cells, **more: Any) -> pd.DataFrame:
    rows = [
        {
            "night": pd.Timestamp(day(night), tz="UTC"),
            "session": f"s{night}",
            "system": "p5-efa",
            "topology": topology,
            "workload": workload,
            "client_kind": "vllm",
            "metric": metric,
            "value": value,
            "status": "valid",
            "excluded": False,
            "reason": "",
            **more,
        }
        for (topology, workload, metric), nights in cells.items()
        for night, value in enumerate(nights)
    ]
    return pd.DataFrame(rows)


def sessions_of(*changes: tuple[int, str, str], excluded: Sequence[int] = ()) -> pd.DataFrame:
    """Sessions of all nights; from a night on a column or a package has another value."""
    rows = []
    for night in range(NIGHTS):
        row = {"nodes": "n1 n2", "image": "", "fingerprint": "f"}
        versions = {"vllm": "0.15.1", "nixl": "0.8.0"}
        for at, what, value in changes:
            if night >= at:
                (row if what in row else versions)[what] = value
        common = {
            "night": pd.Timestamp(day(night), tz="UTC"),
            "session": f"s{night}",
            "system": "p5-efa",
            "versions": json.dumps(versions),
            "excluded": night in excluded,
            "reason": "a node was hot" if night in excluded else "",
        }
        rows.append(common | row)
    return pd.DataFrame(rows)


def changed(trend: Trend) -> list[tuple[str, date]]:
    return [(change.kind, change.first) for change in trend.changes]


def cells_of(change: DatedChange) -> list[tuple[str, str, str]]:
    return [(m.topology, m.metric, f"{len(m.cells)} of {m.measured}") for m in change.metrics]


NO_DATE = pd.Series(pd.NaT, range(NIGHTS), "datetime64[us, UTC]")
ONE = {("1p3d", "w1", "mean_itl_ms"): level(1, (30, 0.04))}


def test_a_step_is_told_with_its_nights_and_levels() -> None:
    (change,) = trend_of(values_of(ONE), sessions_of()).changes
    assert (change.since, change.first, change.last) == (day(29), day(30), day(30))
    (cell,) = change.metrics[0].cells
    assert (cell.before, cell.after) == pytest.approx((10, 10.4), rel=0.005)
    assert cell.change == pytest.approx(0.04, abs=0.005)


def test_the_same_night_is_told_once_for_all_cells_of_all_topologies() -> None:
    cells = {("1p3d", f"w{n}", "mean_itl_ms"): level(n, (30, 0.04)) for n in range(7)}
    cells["1p3d", "w7", "mean_itl_ms"] = level(7)
    cells |= {("dp", f"w{n}", "output_throughput"): level(20 + n, (30, -0.05)) for n in range(2)}
    trend = trend_of(values_of(cells), sessions_of())
    assert changed(trend) == [("step", day(30))]
    assert cells_of(trend.changes[0]) == [
        ("1p3d", "mean_itl_ms", "7 of 8"),
        ("dp", "output_throughput", "2 of 2"),
    ]


@pytest.mark.parametrize(("apart", "nights"), [(2, [30]), (5, [30, 35])])
def test_cells_that_are_dated_a_few_nights_apart_are_one_change(
    apart: int, nights: list[int]
) -> None:
    cells = {("1p3d", f"w{n}", "mean_itl_ms"): level(n, (30, 0.1)) for n in range(3)}
    cells["1p3d", "w3", "mean_itl_ms"] = level(3, (30 + apart, 0.1))
    trend = trend_of(values_of(cells), sessions_of())
    assert changed(trend) == [("step", day(night)) for night in nights]


def test_cells_that_rose_and_cells_that_fell_are_not_one_number() -> None:
    cells = {("1p3d", f"w{n}", "mean_itl_ms"): level(n, (30, 0.04)) for n in range(2)}
    cells["1p3d", "w2", "mean_itl_ms"] = level(2, (30, -0.06))
    (change,) = trend_of(values_of(cells), sessions_of()).changes
    assert [len(metric.cells) for metric in change.metrics] == [2, 1]


def test_a_step_that_is_taken_back_three_nights_later_is_two_changes() -> None:
    cells = {("1p3d", "w1", "mean_itl_ms"): level(1, (30, 0.2), (33, -1 / 6))}
    trend = trend_of(values_of(cells), sessions_of())
    assert changed(trend) == [("step", day(30)), ("step", day(33))]


def test_systems_are_told_apart() -> None:
    values = pd.concat([values_of(ONE), values_of(ONE, system="p6", client_kind="precise")])
    assert [(c.system, c.client_kind) for c in trend_of(values, sessions_of()).changes] == [
        ("p5-efa", "vllm"),
        ("p6", "precise"),
    ]


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param({"excluded": True}, id="excluded"),
        pytest.param({"status": "invalid"}, id="invalid"),
        pytest.param({"status": "voided"}, id="voided"),
        pytest.param({"value": math.nan}, id="not a number"),
        pytest.param({"value": 0.0}, id="zero"),
        pytest.param({"night": NO_DATE}, id="without a date"),
    ],
)
def test_values_that_do_not_count_change_nothing(spoiled: Mapping[str, Any]) -> None:
    bad = values_of({("1p3d", "w1", "mean_itl_ms"): level(2, value=99.0)})
    for name, value in spoiled.items():
        bad[name] = value
    both = pd.concat([values_of(ONE), bad])
    assert trend_of(both, sessions_of()) == trend_of(values_of(ONE), sessions_of())


def test_values_that_count_by_default_are_seen_to_change_it() -> None:
    bad = values_of({("1p3d", "w1", "mean_itl_ms"): level(2, value=99.0)}, status="unproven")
    both = pd.concat([values_of(ONE), bad])
    assert trend_of(both, sessions_of()) != trend_of(values_of(ONE), sessions_of())


def test_a_count_is_no_series() -> None:
    cells = {("1p3d", "w1", "total_output_tokens"): level(1, (30, 0.04))}
    assert trend_of(values_of(cells), sessions_of()).series == 0


def test_a_cell_of_few_nights_is_counted_and_not_looked_at() -> None:
    trend = trend_of(values_of({key: nights[:9] for key, nights in ONE.items()}), sessions_of())
    assert (trend.series, trend.short, trend.changes) == (0, 1, ())


@pytest.mark.parametrize(("least", "count"), [(0.03, 1), (0.05, 0)])
def test_a_change_below_the_least_is_not_told(least: float, count: int) -> None:
    assert len(trend_of(values_of(ONE), sessions_of(), min_change=least).changes) == count


def test_only_changes_since_a_date_are_told() -> None:
    sessions = sessions_of()
    assert len(trend_of(values_of(ONE), sessions, since=day(30)).changes) == 1
    assert len(trend_of(values_of(ONE), sessions, since=day(31)).changes) == 0


@pytest.mark.parametrize(
    ("changes", "off", "said"),
    [
        pytest.param([], None, [], id="nothing"),
        pytest.param([(30, "vllm", "0.15.2")], 0, ["vllm"], id="a version"),
        pytest.param([(30, "nodes", "n1 n3")], 0, ["nodes"], id="nodes"),
        pytest.param([(30, "fingerprint", "g")], 0, ["system file"], id="the system file"),
        pytest.param([(30, "nixl", "0.9"), (30, "nodes", "n3")], 0, ["nixl", "nodes"], id="two"),
        pytest.param([(28, "vllm", "0.15.2")], -2, ["vllm"], id="two nights before"),
        pytest.param([(33, "vllm", "0.15.2")], 3, ["vllm"], id="three nights after"),
        pytest.param([(34, "vllm", "0.15.2")], None, [], id="four nights after"),
        pytest.param([(29, "nixl", "1"), (31, "vllm", "2")], -1, ["nixl"], id="before comes first"),
    ],
)
def test_a_change_is_told_with_what_changed_that_night(
    changes: Sequence[tuple[int, str, str]], off: int | None, said: Sequence[str]
) -> None:
    (change,) = trend_of(values_of(ONE), sessions_of(*changes)).changes
    stack = change.stack
    assert (stack and stack.nights_off) == off
    assert [each.what for each in (stack.differences if stack else ())] == said


@pytest.mark.parametrize(
    ("nodes", "known"), [("n1 n2", True), ("", False)], ids=["recorded", "not recorded"]
)
def test_it_is_told_where_the_nodes_are_not_recorded(nodes: str, known: bool) -> None:
    trend = trend_of(values_of(ONE), sessions_of((0, "nodes", nodes), (28, "vllm", "0.15.2")))
    said = "\n".join(trend_lines(trend))
    assert ("which nodes served is not recorded" in said) is not known


def test_a_cell_that_rested_is_told_with_all_that_changed_meanwhile() -> None:
    values = values_of(ONE)
    rested = values[(values["night"].dt.day < 20) | (values["night"].dt.month > 1)]
    sessions = sessions_of((22, "vllm", "0.15.2"))
    (change,) = trend_of(rested, sessions).changes
    assert (change.since, change.first) == (day(18), day(31))
    assert change.stack is not None
    assert [each.what for each in change.stack.differences] == ["vllm"]


def test_a_broken_night_is_counted_over_all_cells() -> None:
    cells = {("1p3d", f"w{n}", "mean_itl_ms"): level(n) for n in range(3)}
    for number in range(2):
        cells["1p3d", f"w{number}", "mean_itl_ms"][40] *= 1.3
    trend = trend_of(values_of(cells), sessions_of())
    assert trend.changes == ()
    assert [(n.night, n.series, n.measured) for n in trend.broken] == [(day(40), 2, 3)]


def test_the_text_says_when_what_where_and_what_else_changed() -> None:
    cells = {("1p3d", f"w{n}", "mean_itl_ms"): level(n, (30, 0.04)) for n in range(2)}
    cells["1p3d", "w2", "mean_itl_ms"] = level(2)
    cells["1p3d", "w2", "mean_itl_ms"][50] *= 1.3
    values = values_of(cells)
    values["excluded"] = values["session"] == "s7"
    sessions = sessions_of((30, "vllm", "0.15.2"), (30, "nodes", "n1 n3"), excluded=[7])
    lines = trend_lines(trend_of(values, sessions))
    assert lines[:4] == [
        "3 cells, 3 series (a metric of a cell each), 59 nights from 2026-01-01 to 2026-03-01",
        "",
        "2026-01-31  step (last night before: 2026-01-30)  p5-efa, client vllm",
        "  that night: vLLM 0.15.1 -> 0.15.2; nodes n1, n2 -> n1, n3",
    ]
    headings = "topology metric cells change range largest from to unit"
    assert lines[4].split() == headings.split()
    assert lines[6].split() == (
        "1p3d mean_itl_ms 2 of 3 +4.1 % +4 % to +4.2 % worse w0 9.992 10.41 ms".split()
    )
    assert lines[-5:] == [
        "",
        "single nights far from the nights around them, of which no change is made:",
        "  2026-02-20  p5-efa  1 of 3 series",
        "  leave a session out: pdserve history exclude SESSION --reason TEXT",
        "left out: 2026-01-08  s7 of p5-efa: a node was hot",
    ]


@pytest.mark.parametrize(
    ("metric", "change", "side"),
    [
        ("mean_itl_ms", 0.04, "worse"),
        ("mean_itl_ms", -0.04, "better"),
        ("output_throughput", 0.04, "better"),
        ("output_throughput", -0.04, "worse"),
    ],
)
def test_the_text_says_whether_a_change_is_worse(metric: str, change: float, side: str) -> None:
    cells = {("1p3d", "w1", metric): level(1, (30, change))}
    assert side in trend_lines(trend_of(values_of(cells), sessions_of()))[-1].split()


def test_a_steady_history_says_so() -> None:
    steady = values_of({("1p3d", "w1", "mean_itl_ms"): level(1)})
    assert trend_lines(trend_of(steady, sessions_of()))[-1] == "no step and no drift of 1 % or more"


def test_a_history_whose_values_do_not_count_says_so() -> None:
    trend = trend_of(values_of(ONE, status="invalid"), sessions_of())
    assert trend_lines(trend) == ["no night has a value that counts"]


# The command.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A history of one cell, with a step and a new version on the same night."""
    store = Store.create(tmp_path / "history")
    for night, value in enumerate(ONE["1p3d", "w1", "mean_itl_ms"]):
        entry = SessionEntry(
            session=SessionRef(id=f"s{night}", started_at=f"{day(night)}T01:00:00.000Z"),
            system="p5-efa",
            fingerprint="f",
            client_kind="vllm",
            versions={"vllm": "0.15.1" if night < 30 else "0.15.2"},
            runs={"valid": 1},
            source="a test",
        )
        row = (
            "p5-efa",
            f"s{night}",
            "1p3d",
            "w1",
            "vllm",
            "mean_itl_ms",
            value,
            "valid",
            0,
            0,
            "",
            None,
            None,
        )
        store.add(
            entry, pa.table({n: [v] for n, v in zip(COLUMNS, row, strict=True)}, file_schema())
        )
    return store.folder


def test_the_command_shows_changes_and_exits_with_0(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "trend", "--history", str(folder), "--rootdir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "2026-01-31  step (last night before: 2026-01-30)  p5-efa, client vllm" in said
    assert "that night: vLLM 0.15.1 -> 0.15.2" in said


@pytest.mark.slow
def test_the_command_writes_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["history", "trend", "--history", str(folder), "--rootdir", str(folder)]
    assert main([*command, "--format", "json", "--metric", "mean_itl_ms"]) == 0
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["kind"], change["first"]) == ("step", "2026-01-31")
    assert change["stack"]["differences"][0]["after"] == ["0.15.2"]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--history", "nowhere"], "history 'nowhere': expected a folder"),
        (["--metric", "mean_itl"], "holds no value that the options select"),
        (["--since", "November"], "--since 'November': expected a date such as 2026-11-01"),
        (["--min-change", "-1"], "--min-change -1.0: expected percent, at least 0"),
        (["--min-change", "nan"], "--min-change nan: expected percent, at least 0"),
    ],
)
def test_bad_input_exits_with_4_and_one_sentence(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["history", "trend", "--rootdir", str(folder), "--history", str(folder), *arguments]
    assert main(given) == 4
    assert said in capsys.readouterr().err


# Public nightlies: numbers without a licence, so they are read where they lie.


def public(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return values and sessions of a file, with the host of each start as its node."""
    if not NIGHTLIES.is_dir():
        pytest.skip(f"{NIGHTLIES} is not here")
    hosts = pd.read_csv(NIGHTLIES / "amd_starts.csv").set_index("start")["host"]
    rows = pd.read_csv(NIGHTLIES / f"{name}.csv")
    rows = rows.assign(
        night=pd.to_datetime(rows["night"], utc=True),
        session=rows["start"],
        system=name,
        topology="all",
        workload=rows["cell"],
        client_kind="sglang",
        metric=rows["metric"].map(ALIASES),
        status="valid",
        excluded=False,
        reason="",
        image="",
        fingerprint="",
        nodes=rows["start"].map(hosts).fillna(""),
        versions=[json.dumps({"sglang": version}) for version in rows["version"]],
    )
    return rows, rows.drop_duplicates("session")


def test_the_host_is_named_where_the_level_changed_with_the_host_and_not_the_version() -> None:
    trend = trend_of(*public("amd_mi30x-grok1"), since=date(2025, 11, 20))
    change = next(c for c in trend.changes if c.kind == "step")
    assert change.first == date(2025, 12, 2)
    assert change.stack is not None
    assert [(d.what, d.before, d.after) for d in change.stack.differences] == [
        ("nodes", ("host-1",), ("host-3",))
    ]


def test_the_control_that_stayed_on_its_host_has_no_change_on_that_night() -> None:
    steps = [c.first for c in trend_of(*public("amd_mi30x-grok2")).changes if c.kind == "step"]
    assert date(2025, 12, 2) not in steps
    assert date(2025, 11, 13) in steps


def test_steps_of_3_and_7_percent_of_public_nightlies_are_dated() -> None:
    values, sessions = public("amd_mi30x-grok1")
    itl = values[values["metric"] == "p50_itl_ms"]
    steps = {c.first: c for c in trend_of(itl, sessions).changes if c.kind == "step"}
    up, down = steps[date(2025, 10, 23)], steps[date(2025, 11, 12)]
    assert max(cell.change for m in up.metrics for cell in m.cells) == pytest.approx(
        0.033, abs=0.002
    )
    assert min(cell.change for m in down.metrics for cell in m.cells) == pytest.approx(
        -0.08, abs=0.01
    )
    assert down.stack is not None
    assert "rocm700" in down.stack.differences[0].after[0]
