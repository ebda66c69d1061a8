"""Figures: what they show, and that they fit into a page."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.report.figures import figures_of
from pytest_pdserve.report.figures.cells import PlottedCell
from pytest_pdserve.report.figures.cells import bounds_of
from pytest_pdserve.report.figures.cells import cells_of
from pytest_pdserve.report.figures.cells import devices_of
from pytest_pdserve.report.figures.comparison import sweep_plots
from pytest_pdserve.report.figures.distributions import distribution_plots
from pytest_pdserve.report.figures.drawing import page_figure
from pytest_pdserve.report.figures.drawing import paper_png
from pytest_pdserve.report.figures.drawing import paper_svg
from pytest_pdserve.report.figures.loads import load_plots
from pytest_pdserve.report.figures.pareto import Choice
from pytest_pdserve.report.figures.pareto import frontier
from pytest_pdserve.report.figures.pareto import pareto_plots
from pytest_pdserve.report.figures.plot import Bounds
from pytest_pdserve.report.figures.plot import Overlay
from pytest_pdserve.report.figures.plot import Plot
from pytest_pdserve.report.figures.session import article_overlay
from pytest_pdserve.report.figures.session import page_plots
from pytest_pdserve.report.figures.spent import time_plots
from pytest_pdserve.report.figures.style import topology_styles
from pytest_pdserve.report.figures.trend import series_of
from pytest_pdserve.report.figures.trend import trend_plot
from pytest_pdserve.report.figures.trend import trend_plots
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.measured import runs_of_figures
from pytest_pdserve.results.requests import requests_bytes
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.report import MetricReport
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import ARTICLE_TOPOLOGIES
from pytest_pdserve.values.workload import Workload

ARTICLE = load_system("article", SHIPPED)
FIGURES = load_figures(figures_path(ARTICLE))
ARTICLE_CELLS = cells_of(runs_of_figures(FIGURES, "article", measured_on({}, ARTICLE)))
FOUR = ("output_throughput", "request_throughput", "mean_ttft_ms", "mean_itl_ms")
NONE = Overlay()


def cell(
    topology: str = "dp", lengths: tuple[int, int] = (512, 256), *values: float, **fields: Any
) -> PlottedCell:
    rate = fields.pop("rate", None)
    workload = Workload(
        input_len=lengths[0], output_len=lengths[1], num_prompts=8, request_rate=rate
    )
    return PlottedCell(
        topology=topology,
        workload_id=workload.id,
        workload=workload,
        values={"mean_itl_ms": values} if values else {},
        **fields,
    )


def axes_of(plot: Plot, place: int = 0) -> Any:
    """Return the axes of a panel, drawn."""
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    plot.panels[place].draw(axes)
    return axes


def marked(axes: Any, marks: Sequence[str]) -> list[tuple[float, float]]:
    """Return the points of lines that have one of *marks*."""
    return [
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() in marks
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        if math.isfinite(y)
    ]


TOPOLOGY_MARKS = [style.mark for style in topology_styles(ARTICLE_TOPOLOGIES).values()]


# The article's figures.


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("metric", FOUR)
def test_the_articles_figures_show_every_point_in_both_panels(metric: str) -> None:
    (plot,) = sweep_plots(ARTICLE_CELLS, [metric], NONE)
    assert plot.topologies == ARTICLE_TOPOLOGIES
    assert [panel.title for panel in plot.panels] == [
        "Prefill panel: output 256 tokens",
        "Decode panel: input 512 tokens",
    ]
    for place, (varies, fixed) in enumerate((("input_len", 256), ("output_len", 512))):
        axes = axes_of(plot, place)
        assert axes.get_xlabel() == f"{varies.removesuffix('_len')} length (tokens)"
        expected = sorted(
            (float(getattr(record, varies)), record.metrics[metric].value)
            for record in FIGURES.record
            if (record.output_len, record.input_len)[place] == fixed
        )
        assert sorted(marked(axes, TOPOLOGY_MARKS)) == expected
        assert len(expected) == (20, 25)[place]
        low, high = axes.get_ylim()
        assert all(low < value < high for _, value in expected)
        low, high = axes.get_xlim()
        assert all(low < length < high for length, _ in expected)


def test_the_articles_data_are_all_160_values() -> None:
    rows = [row for plot in sweep_plots(ARTICLE_CELLS, FOUR, NONE) for row in plot.rows]
    assert sorted((r["topology"], r["input_len"], r["output_len"], r["value"]) for r in rows) == (
        sorted(
            (record.topology, record.input_len, record.output_len, reading.value)
            for record in FIGURES.record
            for reading in record.metrics.values()
        )
    )
    assert len(rows) == 160


def test_a_report_of_the_article_has_its_four_figures_and_latency_against_throughput() -> None:
    report = Report(measured=False, system="article", figures=True)
    assert [plot.name for plot in page_plots(report, None)] == [
        *("output-throughput", "request-throughput", "mean-ttft-ms", "mean-itl-ms"),
        *("mean-itl-ms-by-throughput", "mean-ttft-ms-by-throughput"),
    ]


def test_the_articles_throughput_is_of_32_gpus() -> None:
    assert {cell.devices for cell in ARTICLE_CELLS} == {(32, "GPU")}


# What is in a figure of cells.


@pytest.mark.slow
def test_a_length_without_a_value_leaves_a_gap_and_is_counted() -> None:
    cells = [cell("dp", (n, 256), *values) for n, values in ((1, (2.0,)), (2, ()), (4, (3.0,)))]
    (plot,) = sweep_plots(cells, ["mean_itl_ms"], NONE)
    (line,) = (each for each in axes_of(plot).get_lines() if each.get_marker() == "o")
    assert [float(y) for y in line.get_ydata()] == [2.0, pytest.approx(math.nan, nan_ok=True), 3.0]
    assert "1 cell has no value that may be used." in plot.caption
    assert [row["value"] for row in plot.rows] == [2.0, None, 3.0]


def test_an_invalid_cell_is_marked_and_is_not_in_the_line() -> None:
    cells = [cell("dp", (1, 256), 2.0), cell("dp", (2, 256), 9.0, invalid="completed: 1 failed")]
    (plot,) = sweep_plots(cells, ["mean_itl_ms"], NONE)
    axes = axes_of(plot)
    assert (marked(axes, ["o"]), marked(axes, ["x"])) == ([(1.0, 2.0)], [(2.0, 9.0)])
    assert "1 cell marked × is invalid and not judged." in plot.caption


def test_bars_are_the_range_of_the_starts() -> None:
    cells = [cell("dp", (1, 256), 2.0, 5.0, 3.0), cell("dp", (2, 256), 4.0)]
    (plot,) = sweep_plots(cells, ["mean_itl_ms"], NONE)
    assert marked(axes_of(plot), ["o"]) == [(1.0, 3.0), (2.0, 4.0)]
    assert marked(axes_of(plot), ["None"]) == [(1.0, 2.0), (1.0, 5.0)]
    assert "bars their whole range" in plot.caption


@pytest.mark.slow
def test_bands_reach_from_the_reference_to_the_limit() -> None:
    bounds = {"mean_itl_ms": Bounds(reference=2.0, limit=2.5)}
    cells = [cell("dp", (n, 256), 2.2, bounds=bounds) for n in (1, 2)]
    (plot,) = sweep_plots(cells, ["mean_itl_ms"], NONE)
    (band,) = axes_of(plot).collections
    corners = band.get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (2.0, 2.5)
    assert "Bands reach from the reference to the limit." in plot.caption


@pytest.mark.parametrize(
    ("better", "change", "limit"), [("lower", 0.05, 105.0), ("higher", -0.05, 95.0)]
)
def test_limits_are_those_of_the_report(better: Any, change: float, limit: float) -> None:
    metric = MetricReport(
        metric="mean_itl_ms", unit="ms", better=better, reference=100.0, limit=change
    )
    verdict = VerdictReport(
        kind="cell", status="PASS", subject="", topologies=("dp",), workload="w", metrics=(metric,)
    )
    found = bounds_of(Report(measured=True, system="s", verdicts=(verdict,)))
    assert found == {("dp", "w"): {"mean_itl_ms": Bounds(reference=100.0, limit=limit)}}


@pytest.mark.slow
def test_the_article_is_an_overlay_where_loads_are_the_same() -> None:
    overlay = article_overlay()
    (plot,) = sweep_plots(ARTICLE_CELLS, ["mean_itl_ms"], overlay)
    dashed = [line for line in axes_of(plot).get_lines() if line.get_gid() is not None]
    assert len(dashed) == len(ARTICLE_TOPOLOGIES)
    assert "Dashed: the article of 2026-03-10." in plot.caption
    assert page_figure(plot).svg.count('class="pdserve-overlay"') == 2 * len(dashed)
    dashes = [paper_svg(plot, overlay=shown).count("stroke-dasharray") for shown in (True, False)]
    assert dashes == [2 * len(dashed), 0]

    others = [cell("dp", (n, 256), 2.0) for n in (512, 1024)]  # 8 prompts, not 1024
    (plot,) = sweep_plots(others, ["mean_itl_ms"], overlay)
    assert "pdserve-overlay" not in page_figure(plot).svg
    assert "Dashed" not in plot.caption


def test_sweeps_of_several_rates_are_panels_of_their_own() -> None:
    cells = [cell("dp", (n, 256), 2.0, rate=rate) for rate in (1, 2) for n in (1, 2)]
    (plot,) = sweep_plots(cells, ["mean_itl_ms"], NONE)
    titles = [panel.title for panel in plot.panels]
    assert len(titles) == 2
    assert [title.partition("-rate")[2] for title in titles] == ["1", "2"]
    (cut,) = sweep_plots(cells, ["mean_itl_ms"], NONE, max_panels=1)
    assert len(cut.panels) == 1
    assert cut.caption.endswith("1 more panel is not shown; pdserve plot draws all.")


def test_cells_outside_of_sweeps_are_rows() -> None:
    cells = [cell(name, (512, 256), 2.0, rate=rate) for name in ("dp", "1p3d") for rate in (1, 2)]
    assert not list(sweep_plots(cells, ["mean_itl_ms"], NONE))
    (plot,) = load_plots(cells, ["mean_itl_ms", "mean_ttft_ms"])
    axes = axes_of(plot)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["rate1", "rate2"]
    assert len(marked(axes, TOPOLOGY_MARKS)) == 4


def test_topologies_look_different() -> None:
    names = (*ARTICLE_TOPOLOGIES, *(f"{n}x1p1d" for n in range(2, 8)))
    found = topology_styles(names)
    assert list(found) == list(names)
    assert len(set(found.values())) == len(names)
    assert topology_styles(["1p3d"])["1p3d"] == found["1p3d"]


# Latency against throughput.


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([(10, 5), (20, 9), (15, 9)], [(10, 5), (20, 9)]),
        ([(10, 5), (20, 4)], [(20, 4)]),
        ([(10, 5), (10, 5)], [(10, 5), (10, 5)]),
    ],
    ids=["two kinds", "one beats the other", "equal"],
)
def test_no_other_beats_what_is_on_the_frontier(
    points: list[tuple[float, float]], best: list[tuple[float, float]]
) -> None:
    found = frontier([Choice(cell(), *point) for point in points])
    assert [(each.throughput, each.latency) for each in found] == best


def test_an_invalid_cell_is_not_on_the_frontier() -> None:
    good, bad = Choice(cell(), 10, 5), Choice(cell(invalid="completed: 1 failed"), 90, 1)
    assert frontier([bad, good]) == [good]


def test_throughput_is_divided_by_gpus_and_never_mixed_with_slots() -> None:
    both = {"mean_itl_ms": (2.0,), "output_throughput": (80.0,)}
    two = [replace(cell(name), values=both, devices=(8, "GPU")) for name in ("dp", "1p3d")]
    (plot,) = pareto_plots(two)
    assert [row["output_tok_s_per_device"] for row in plot.rows] == [10.0, 10.0]
    assert not list(pareto_plots([two[0], replace(two[1], devices=(8, "slot of the CPU"))]))
    assert not list(pareto_plots([two[0], replace(two[1], devices=None)]))


def test_a_cpu_has_slots_and_an_unknown_machine_nothing() -> None:
    run = runs_of_figures(FIGURES, "article", measured_on({}, ARTICLE))[0]
    measured = replace(run, client="vllm", topology="1p1d")
    assert devices_of(measured) == (16, "slot of the CPU")
    assert devices_of(replace(measured, facts={})) is None


# Distributions, time, trend.


def test_a_distribution_is_that_of_the_completed_requests(tmp_path: Path) -> None:
    result = BenchResult.from_json(
        {
            "completed": 2,
            "failed": 1,
            "duration": 1.0,
            "total_input_tokens": 6,
            "total_output_tokens": 6,
            "output_lens": [3, 3, 0],
            "input_lens": [2, 2, 2],
            "ttfts": [0.010, 0.030, 0.0],
            "itls": [[0.001, 0.002], [0.003, 0.004], []],
            "errors": ["", "", "timed out"],
        },
        source="test",
    )
    path, torn = tmp_path / "a.parquet", tmp_path / "b.parquet"
    path.write_bytes(requests_bytes(result))
    torn.write_bytes(b"PAR1")
    cells = [cell("dp", requests=(path,)), cell("1p3d", requests=(torn,))]
    ttft, itl = distribution_plots(cells)
    assert ttft.topologies == itl.topologies == ("dp",)
    for plot, middle, count in ((ttft, 20.0, 2), (itl, 2.5, 4)):
        (row,) = (row for row in plot.rows if row["share"] == 0.5)
        assert (row["value_ms"], row["count"]) == (pytest.approx(middle), count)


def test_the_time_of_a_session_is_shown_by_phase() -> None:
    times = SessionTimes(seconds={"load": 30.0, "start": 60.0, "overhead": 10.0, "queue": 0.0})
    (plot,) = time_plots(times)
    assert [(row["phase"], row["share"]) for row in plot.rows] == [
        ("start", 0.6),
        ("load", 0.3),
        ("overhead", 0.1),
    ]
    bars = axes_of(plot).patches
    assert [bar.get_width() for bar in bars] == [60.0, 30.0, 10.0]
    assert not list(time_plots(None))
    assert not list(time_plots(SessionTimes(seconds={})))


def history(nights: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return tables of a store: the second night is invalid, the third has another vLLM."""
    days = pd.date_range("2026-03-01", periods=nights, tz="UTC")
    values = pd.DataFrame(
        {
            "night": days,
            "session": [f"s{n}" for n in range(nights)],
            "system": "p5",
            "topology": "1p3d",
            "workload": "w",
            "client_kind": "vllm",
            "metric": "mean_itl_ms",
            "value": np.full(nights, 10.0),
            "status": "valid",
            "excluded": False,
            "reason": "",
        }
    )
    values.loc[1, "value"], values.loc[1, "status"] = 40.0, "invalid"
    versions = ['{"vllm": "1"}' if n < 2 else '{"vllm": "2"}' for n in range(nights)]
    sessions = pd.DataFrame({"night": days, "system": "p5", "versions": versions})
    return values, sessions.assign(excluded=False, image="", nodes="n0", fingerprint="a")


def test_a_trend_shows_nights_limit_versions_and_what_does_not_count() -> None:
    (series,) = series_of(*history(20), None)
    assert [(str(night), text) for night, text in series.versions] == [("2026-03-03", "vllm 2")]
    (plot,) = trend_plots([series])
    assert [row["counts"] for row in plot.rows] == [True, False, *[True] * 18]
    floor = METRICS["mean_itl_ms"].floor
    assert plot.rows[0]["limit"] == pytest.approx(10.0 * (1 + floor))
    assert "×: 1 night without a valid run, or excluded." in plot.caption
    axes = axes_of(plot)
    (crosses,) = (line for line in axes.get_lines() if line.get_marker() == "x")
    assert list(crosses.get_ydata()) == [40.0]
    assert [text.get_text() for text in axes.texts] == ["vllm 2"]


def test_a_night_far_from_all_others_is_a_triangle_at_the_edge_of_the_axis() -> None:
    values, sessions = history(20)
    values.loc[1, "value"], values.loc[1, "status"] = 10.1, "valid"
    values.loc[7, "value"] = 40.0
    (series,) = series_of(values, sessions, None)
    plot = trend_plot(series)
    assert "Triangles at the edge: values outside the axis." in plot.caption
    axes = axes_of(plot)
    (triangle,) = (line for line in axes.get_lines() if line.get_marker() == "^")
    assert list(triangle.get_ydata()) == [axes.get_ylim()[1]]
    assert axes.get_ylim()[1] < 12


def test_an_excluded_session_changes_no_version() -> None:
    values, sessions = history(20)
    sessions.loc[2:, "excluded"] = True
    (series,) = series_of(values, sessions, None)
    assert series.versions == ()


def test_a_trend_of_a_report_has_its_reference_and_limit() -> None:
    (series,) = series_of(*history(9), None)
    plot = trend_plot(series, judged_by=Bounds(reference=9.0, limit=9.5))
    assert (plot.rows[0]["reference"], plot.rows[0]["limit"]) == (9.0, 9.5)
    assert "the reference to the limit of this session's report" in plot.caption


def test_a_trend_of_few_nights_has_no_limit() -> None:
    (series,) = series_of(*history(9), None)
    (plot,) = trend_plots([series])
    assert plot.rows[0]["limit"] is None
    assert "band" not in plot.caption


# What a page needs.

PLAIN = [cell("dp", (n, 256), 2.0, invalid="<script>&" if n == 1 else "") for n in (1, 2)]


@pytest.fixture
def plain() -> Plot:
    (plot,) = sweep_plots(PLAIN, ["mean_itl_ms"], NONE)
    return plot


def test_an_svg_of_a_page_takes_its_colours_and_touches_nothing_else(plain: Plot) -> None:
    svg = page_figure(replace(plain, caption='<script>alert("&")</script>')).svg
    root = ET.fromstring(svg)
    assert root.get("viewBox") is not None
    assert (root.get("width"), root.get("role")) == (None, "img")
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert {"style", "script", "metadata", "image"}.isdisjoint(names)
    assert "currentColor" in svg
    assert re.search("#0a0b0c|#fdfcfb|<script", svg) is None
    labelled = str(root.get("aria-labelledby")).split()
    texts = {element.get("id"): element.text for element in root}
    assert [texts[name] for name in labelled] == [
        "Mean inter-token latency (ITL): Prefill panel: output 256 tokens",
        '<script>alert("&")</script>',
    ]
    assert len(svg) < 12_000


def test_ids_of_figures_in_one_page_differ_and_all_are_used(plain: Plot) -> None:
    svgs = [page_figure(replace(plain, name=name)).svg for name in ("a", "b")]
    roots = [ET.fromstring(svg) for svg in svgs]
    ids = [found for root in roots for each in root.iter() if (found := each.get("id"))]
    assert len(ids) == len(set(ids))
    for svg, root in zip(svgs, roots, strict=True):
        named = {each.get("id") for each in root.iter()}
        assert set(re.findall(r'(?:href="#|url\(#)([\w-]+)', svg)) <= named


def test_a_figure_is_the_same_whenever_it_is_written(plain: Plot) -> None:
    assert page_figure(plain) == page_figure(plain)
    assert paper_svg(plain, overlay=False) == paper_svg(plain, overlay=False)
    png = paper_png(plain, overlay=False)
    assert png.startswith(b"\x89PNG")
    assert png == paper_png(plain, overlay=False)


def test_a_users_settings_of_matplotlib_change_nothing(plain: Plot) -> None:
    import matplotlib as mpl

    before = page_figure(plain).svg
    with mpl.rc_context({"lines.linewidth": 9, "svg.fonttype": "path"}):
        assert page_figure(plain).svg == before
        assert mpl.rcParams["lines.linewidth"] == 9


@pytest.mark.parametrize(
    "name", ["\u200f\u05e2\u05d1", "x" * 300, "$\\frac{1$", "\u6f22", "a\x1bb"]
)
def test_odd_names_are_text(name: str) -> None:
    cells = [replace(cell("dp", (1, 2), 3.0), workload=None, workload_id=name)]
    (plot,) = load_plots(cells, ["mean_itl_ms"])
    svg = page_figure(plot).svg
    shown = "".join(ET.fromstring(svg).itertext())
    expected = name.replace("\x1b", "\ufffd") if len(name) < 30 else "xxx…xxx"
    assert expected in shown


def test_without_matplotlib_there_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert figures_of(Report(measured=False, system="article", figures=True)) == []
