"""The tables of ``pdserve selftest --gate``; each is marked as simulated."""

from __future__ import annotations

import textwrap

import numpy as np

from pytest_pdserve.report.table import text_table
from pytest_pdserve.study.gate_noise import KINDS
from pytest_pdserve.study.gate_selftest import GateReport
from pytest_pdserve.study.gate_selftest import mean_of
from pytest_pdserve.study.gate_trials import LAYOUTS
from pytest_pdserve.study.gate_trials import SIMPLE_RULES
from pytest_pdserve.study.gate_trials import GateTrial
from pytest_pdserve.study.rates import Tally
from pytest_pdserve.values.rules import GATE_RULE

COLUMNS = (
    "noise",
    "B is",
    "NO-GO % (95 %)",
    "blocks to\nNO-GO",
    "GO %",
    "blocks\nto GO",
    "blocks\nof a cell",
    "forecast\nblocks",
    "one run /\nthree %",
)
ABOUT = (
    "Unless a kind says otherwise, one run has normal noise of 1 % (mean TTFT 2 %), two metrics of "
    "a run are correlated 0.6, and 30 % of the variance is shared by a topology's cells on one "
    f"start. A block is A B B A; a gate has at most {GATE_RULE.max_blocks}."
)
NOTES = (
    "Blocks are means over the gates that ended so; blocks of a cell are a mean over cells and "
    "gates, and each is four runs. What is neither NO-GO nor GO is NOT ENOUGH EVIDENCE. Forecast: "
    "median of the blocks that such gates say would decide if B is not worse. One run / three: "
    "NO-GO if a metric of one run each, or of the medians of three, is worse by 5 % (mean TTFT "
    "10 %)."
)


def render(report: GateReport) -> str:
    """Return the tables and the verdict."""
    kinds = [kind for kind in KINDS if kind in {trial.noise for trial in report.trials()}]
    about = [f"  {kind.name:<12} {kind.about}" for kind in kinds]
    head = "\n".join([*textwrap.wrap(f"Kinds of noise. {ABOUT}", 100), *about])
    tables = [_table(report, layout) for layout in LAYOUTS]
    return "\n\n".join([head, *tables, textwrap.fill(NOTES, 100), _verdict(report)])


def _table(report: GateReport, layout: str) -> str:
    cells = LAYOUTS[layout]
    rows = [_row(trial, report.tallies[trial.name, layout]) for trial in report.trials()]
    drawn = f"SIMULATED (seed {report.seed}, {report.gates:,} gates a row)"
    title = f"{layout}: {cells.topologies} topologies x {cells.cells_each} cells x 5 metrics"
    return "\n".join([f"{drawn}: {title}", *text_table(COLUMNS, rows, "ll" + "r" * 7)])


def _row(trial: GateTrial, tally: Tally) -> tuple[str, ...]:
    no_go = tally.rate("NO-GO")
    low, high = no_go.interval
    return (
        trial.noise.name,
        trial.change,
        f"{_percent(no_go.share)} ({_percent(low)} to {_percent(high)})",
        _mean(tally, "blocks to NO-GO"),
        _percent(tally.rate("GO").share),
        _mean(tally, "blocks to GO"),
        _mean(tally, "blocks of a cell"),
        _median(tally.samples.get("forecast", [])),
        " / ".join(_percent(tally.rate(rule).share) for rule in SIMPLE_RULES),
    )


def _percent(share: float) -> str:
    """Return a share in %, with enough digits to distinguish it from 0 and from 100."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f}"
    if value < 1:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.2f}"


def _mean(tally: Tally, what: str) -> str:
    mean = mean_of(tally, what)
    return "-" if mean is None else f"{mean[0]:.2f}"


def _median(values: list[float]) -> str:
    return f"{np.median(values):.0f}" if values else "-"


def _verdict(report: GateReport) -> str:
    drawn = f"(simulated, seed {report.seed}, {report.gates:,} gates a row)"
    if report.missed:
        return f"BROKEN: {'; '.join(report.missed)} {drawn}"
    return f"sound: no target is missed by more than chance {drawn}"
