"""The output of ``pdserve calibrate``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.calibration import MEASURED
from pytest_pdserve.values.calibration import MIN_NIGHTS
from pytest_pdserve.values.calibration import MIN_STARTS
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.calibration import CellLoad
from pytest_pdserve.values.calibration import CellNoise
from pytest_pdserve.values.calibration import FirstRun
from pytest_pdserve.values.calibration import Forecast
from pytest_pdserve.values.calibration import InsensitiveMetric
from pytest_pdserve.values.calibration import LoadRatio
from pytest_pdserve.values.calibration import MetricNoise
from pytest_pdserve.values.calibration import Series
from pytest_pdserve.values.calibration import Spread
from pytest_pdserve.values.calibration import limit_of
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.system import System

_STARTS, _RUNS = 5, 3
"""Starts, and runs on each, that are recommended."""
_CLEARLY = 1.25
"""How many times larger than expected a ratio is that is pointed out."""


def calibration_lines(found: Calibration, series: Series, system: System | None) -> list[str]:
    """Return tables of the noise and of what follows, and lines for the system file.

    :param system: what the series was measured on; None if unknown.
    """
    nights = f"{found.nights} nights" if found.nights > 1 else "one night"
    return [
        found.source,
        f"{found.runs} runs of {found.cells} cells on {found.starts} starts of {nights}",
        *(f"left out: {why}" for why in series.left_out),
        *_section("Spreads of each cell, %", _noise_lines(found.noise)),
        *_section("First runs on a start", _first_run_lines(found.first_runs)),
        *_section("Typical spreads, %, and floors", _metric_lines(found.metrics, system)),
        *_section("Longer loads", _forecast_lines(found)),
        *_section("What sees less than is promised", _blind_lines(found.insensitive)),
        *_section("What is missing", _missing_lines(found, system)),
        *_section(f"Lines for {system.source if system else 'system.toml'}", _toml_lines(found)),
    ]


def nothing_known(found: Calibration, system: System | None) -> str:
    """Return a sentence on a series that has too few starts of every cell."""
    best = max(found.cell_starts, key=lambda load: found.cell_starts[load])
    return (
        f"{found.source}: the best-measured cell, {_load_text(best)}, has "
        f"{_count(found.cell_starts[best], 'start')}, expected at least {MIN_STARTS} (in all "
        f"{_count(found.runs, 'run')} of {_count(len(found.cell_starts), 'cell')} on "
        f"{_count(found.starts, 'start')} of servers); {_how(found.few_starts, system)}"
    )


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _section(title: str, lines: Iterator[str]) -> list[str]:
    body = list(lines)
    return ["", title, *body] if body else []


def _noise_lines(noise: Sequence[CellNoise]) -> Iterator[str]:
    columns = (
        *("topology", "workload", "prompts", "load s", "runs", "metric"),
        *("within a start", "between starts", "a night", "limit"),
    )
    yield from text_table(columns, [_noise_row(each) for each in noise], "llrrrlrrrr")
    yield (
        "within a start, between starts: the two parts of a night's spread, each with a 90 % "
        f"interval; limit: {RULE.spreads:g} spreads of a night with one run"
    )
    if any(each.is_rounded for each in noise):
        yield "~ values are rounded coarsely: a standard deviation, which outliers enlarge"


def _noise_row(each: CellNoise) -> tuple[str, ...]:
    mark = "~" if each.is_rounded else ""
    return (
        *(*each.cell, str(each.prompts), _seconds(each.load_s)),
        *(f"{each.runs} on {each.starts}", each.metric),
        *(mark + _spread(part) for part in (each.within, each.between, each.night)),
        f"{100 * each.limit:.0f} %",
    )


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    value, low, high = (100 * part for part in (spread.value, spread.low, spread.high))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _seconds(span: float | None) -> str:
    return "-" if span is None else f"{span:.3g}"


def _first_run_lines(first_runs: Sequence[FirstRun]) -> Iterator[str]:
    for each in first_runs:
        changes = ", ".join(
            f"{name} {percent(as_change(change, METRICS[name].better))}"
            for name, change in each.changes.items()
        )
        left_out = "left out of the spreads" if each.is_left_out else "part of the spreads"
        what = f"{left_out}; warm the servers longer"
        if each.role != MEASURED:
            what = f"of role {each.role!r}, part of no spread"
        yield (
            f"{_load_text((each.cell, each.prompts))}: first runs differ from later ones on "
            f"{each.starts} starts: {changes} ({what})"
        )


def _metric_lines(metrics: Sequence[MetricNoise], system: System | None) -> Iterator[str]:
    columns = (
        *("metric", "cells", "within a start", "between starts", "a night", "of all cells"),
        *("5 spreads", "floor now", "proposed"),
    )
    yield from text_table(columns, [_metric_row(each, system) for each in metrics], "lrrrrrrrr")
    yield "medians over the cells, each at its longest load"


def _metric_row(each: MetricNoise, system: System | None) -> tuple[str, ...]:
    return (
        *(each.metric, str(each.cells), _part(each.within), _part(each.between)),
        *(_part(each.night), f"{_part(each.quietest)} to {_part(each.noisiest)}"),
        f"{100 * limit_of(each.night):.1f} %",
        f"{100 * _floor(each.metric, system):.0f} %",
        f"{100 * each.floor:.0f} %",
    )


def _part(spread: float | None) -> str:
    return "-" if spread is None else f"{100 * spread:.1f}"


def _floor(metric: str, system: System | None) -> float:
    return METRICS[metric].floor if system is None else system.judgement.floor(metric)


def _forecast_lines(found: Calibration) -> Iterator[str]:
    if not found.forecasts:
        return
    names = list(found.forecasts[0].floors)
    columns = ("prompts", "longest load s", "see what is promised", *names)
    rows = [_forecast_row(each) for each in found.forecasts]
    yield from text_table(columns, rows, "r" * len(columns))
    yield (
        "see what is promised: metrics of cells with a limit of [judgement.sees] or less. Of each "
        f"metric {RULE.spreads:g} typical spreads, %: the part within a start falls with the "
        "square root of the prompts"
    )
    yield from _ratio_lines(found.ratios)


def _forecast_row(each: Forecast) -> tuple[str, ...]:
    endless = each.prompts is not None and math.isinf(each.prompts)
    prompts = "as measured" if each.prompts is None else f"{each.prompts:.0f}"
    return (
        "endless" if endless else prompts,
        "-" if endless else _seconds(each.longest_load_s),
        f"{each.kept} of {each.of}",
        *(f"{100 * floor:.1f}" for floor in each.floors.values()),
    )


def _ratio_lines(ratios: Sequence[LoadRatio]) -> Iterator[str]:
    for each in ratios:
        less = each.ratio > _CLEARLY * each.expected
        helps = ": longer loads help less than the table says" if less else ""
        yield (
            f"measured from {each.short} to {each.long} prompts: {each.ratio:.2f} times the spread "
            f"within a start, expected {each.expected:.2f} (median of {each.pairs} metrics of "
            f"cells){helps}"
        )
    if not ratios:
        yield "this is assumed: no cell was measured with two numbers of prompts"


def _blind_lines(blind: Sequence[InsensitiveMetric]) -> Iterator[str]:
    if not blind:
        return
    columns = ("topology", "workload", "metric", "limit", "promised", "prompts needed", "or starts")
    yield from text_table(columns, [_blind_row(each) for each in blind], "lllrrrr")
    yield (
        "prompts needed: none where the spread between starts alone is too large; or starts: a "
        "night, as their median, with the load as it is (the nightly rule makes one)"
    )


def _blind_row(each: InsensitiveMetric) -> tuple[str, ...]:
    noise, prompts = each.noise, "none" if each.noise.within else "-"
    if each.prompts is not None:
        load_s = noise.load_s and noise.load_s * each.prompts / noise.prompts
        prompts = f"{each.prompts}" + (f" ({load_s:.3g} s)" if load_s else "")
    return (
        *(*noise.cell, noise.metric, f"{100 * noise.limit:.1f} %", f"{100 * each.promise:.0f} %"),
        *(prompts, "more than 9" if each.starts is None else str(each.starts)),
    )


def _missing_lines(found: Calibration, system: System | None) -> Iterator[str]:
    for loads, what in (
        (found.few_starts, f"fewer than {MIN_STARTS} starts, so that they have no spread"),
        (
            found.single_runs,
            f"fewer than {MIN_STARTS} starts with two runs, so that nothing is known of longer "
            "loads",
        ),
    ):
        if loads:
            yield f"{what}: {'; '.join(map(_load_text, loads))}"
            yield _how(loads, system)
    if found.nights < MIN_NIGHTS:
        yield (
            f"starts of {MIN_NIGHTS} nights: what differs from night to night is not in these "
            "spreads, so that no lower floor is proposed"
        )


def _load_text(load: CellLoad) -> str:
    (topology, workload), prompts = load
    return f"{topology} {workload} with {prompts} prompts"


def _how(loads: Sequence[CellLoad], system: System | None) -> str:
    """Return how to measure more: in one session, or in several where each makes one start."""
    topologies = ",".join(dict.fromkeys(topology for (topology, _), _ in loads))
    name = system.name if system else "NAME"
    command = f"pytest suites/sweep --system {name} --topology {topologies}"
    more = f"--pdserve-repeats {_RUNS} --pdserve-no-record"
    return (
        f"measure the cells with {command} --pdserve-first-runs {_STARTS} {more}; where the cells "
        f"have a baseline, a session makes one start: on {_STARTS} nights, {command} {more}"
    )


def _toml_lines(found: Calibration) -> Iterator[str]:
    yield (
        f"# pdserve calibrate: {found.cells} cells, {found.starts} starts, {found.runs} runs of "
        f"{found.source}"
    )
    yield "[judgement.floors]"
    for each in found.metrics:
        default = METRICS[each.metric].floor
        why = f"{RULE.spreads:g} typical spreads are {100 * limit_of(each.night):.1f} %"
        if each.is_held:
            why += f"; a lower floor needs {MIN_NIGHTS} nights"
        elif each.floor < default:
            why += f", quieter than the default of {100 * default:.0f} %"
        yield f"{each.metric} = {each.floor:.2f}  # {why}"
    yield ""
    yield "[judgement.sees]"
    yield from (f"{each.metric} = {each.sees:.2f}" for each in found.metrics)
    if found.prompts is not None:
        yield ""
        yield "[sweep]"
        yield "# Expected, not measured: calibrate again with it, and take the floors of that."
        yield "# Cells of another number of prompts are other cells: their baseline begins anew."
        yield "# Without request_rate or max_concurrency, more prompts are more requests at once."
        yield f"num_prompts = {found.prompts}"
