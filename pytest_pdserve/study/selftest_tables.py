"""The tables of ``pdserve selftest``; each is marked as simulated, with seed and nights."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from pytest_pdserve.report.table import text_table
from pytest_pdserve.study.noise import REFERENCE
from pytest_pdserve.study.noise import Noise
from pytest_pdserve.study.rates import Rate
from pytest_pdserve.study.selftest import Report
from pytest_pdserve.study.series import ROUNDING
from pytest_pdserve.study.simple_rules import SIMPLE_RULES
from pytest_pdserve.study.trials import LAYOUT
from pytest_pdserve.study.trials import WITHIN
from pytest_pdserve.study.trials import YOUNG
from pytest_pdserve.values.rules import RULE

Row = tuple[str, ...]
LATE = f"{WITHIN} nights"


def render(report: Report) -> str:
    """Return the tables and the verdict."""
    parts = [
        _kinds(report),
        _clean(report),
        _planted(report),
        _young(report),
        *([_sticky(report)] if any(kind.is_sticky for kind in report.kinds) else []),
        _slow_changes(report),
        _simple_rules(report),
        _limits(report),
        _verdict(report),
    ]
    return "\n\n".join(parts)


def _table(report: Report, title: str, *, columns: Sequence[str], rows: Sequence[Row]) -> str:
    drawn = f"SIMULATED (seed {report.seed}, {report.nights:,} nights a kind)"
    lines = text_table(columns, rows, "l" + "r" * (len(columns) - 1))
    return "\n".join([f"{drawn}: {title}", *lines])


def _rows(report: Report, row: Callable[[Noise], Row]) -> list[Row]:
    return [(kind.name, *row(kind)) for kind in report.kinds]


def _percent(share: float) -> str:
    """Return a share in %, with enough digits to distinguish it from 0 and from 100."""
    value = 100 * share
    if value < 1:
        return f"{value:.2f}"
    return f"{value:.0f}" if value < 98 or value == 100 else f"{math.floor(10 * value) / 10:.1f}"


def _with_interval(rate: Rate) -> str:
    low, high = (100 * end for end in rate.interval)
    return f"{100 * rate.share:.2f} ({low:.2f} to {high:.2f})"


def _kinds(report: Report) -> str:
    lines = [f"  {kind.name:<13} {kind.about}" for kind in report.kinds]
    drawn = f"{LAYOUT.topologies} topologies x {LAYOUT.cells_each} cells x 6 metrics"
    return "\n".join([*textwrap.wrap(f"Kinds of noise, {drawn}. {REFERENCE}", 100), *lines])


def _clean(report: Report) -> str:
    def row(kind: Noise) -> Row:
        def rate(what: str) -> Rate:
            return report.rate(kind, "clean", what)

        return (
            _with_interval(rate("FAIL")),
            _percent(rate("topologies FAIL").share),
            f"{1 + rate('reruns').share:.2f}",
            f"{rate('topology reruns').share:.2f}",
            _percent(rate("not PASS").share),
            _percent(rate("strict").share),
        )

    columns = (
        "noise",
        "false FAIL\nnights % (95 %)",
        "of a topology\n%",
        "runs per\ncell-night",
        "of these for\na topology",
        "cells not\nPASS %",
        "nights red with\nstrict %",
    )
    title = f"nothing changed, baselines of {RULE.max_nights} nights"
    return _table(report, title, columns=columns, rows=_rows(report, row))


def _planted(report: Report) -> str:
    def row(kind: Noise) -> Row:
        def shares(*keys: str) -> str:
            return " / ".join(_percent(report.rate(kind, "planted", key).share) for key in keys)

        return (
            shares("5 % same night", f"5 % {LATE}"),
            shares("one metric 5 % same night", f"one metric 5 % {LATE}"),
            shares("10 % same night"),
            shares("topology 5 %"),
            shares("topology 3 %"),
        )

    columns = (
        "noise",
        f"5 % of a cell,\n1 / {LATE}",
        f"5 % in one metric,\n1 / {LATE}",
        "10 % of a\ncell, 1 night",
        "5 % of a topo-\nlogy, 1 night",
        f"3 % of a topo-\nlogy, {LATE}",
    )
    many = int(report.rate(report.kinds[0], "planted", "5 % same night").of)
    title = f"slower in all four ITL-like metrics, found % of {many:,} each"
    return _table(report, title, columns=columns, rows=_rows(report, row))


def _young(report: Report) -> str:
    def row(kind: Noise, starts: int) -> Row:
        def both(night: int) -> str:
            failed = report.rate(kind, "young", f"{starts} FAIL {night}").share
            found = report.rate(kind, "young", f"{starts} 10 % {night} same night").share
            return f"{_percent(failed)} / {_percent(found)}"

        return (kind.name, str(starts), *(both(night) for night in YOUNG))

    rows = [row(kind, starts) for kind in report.kinds for starts in (RULE.first_starts, 1)]
    columns = ("noise", "first night,\nstarts", *(f"night\n{night}" for night in YOUNG))
    many = int(report.rate(report.kinds[0], "young", f"1 FAIL {YOUNG[0]}").of)
    title = (
        f"baselines of {', '.join(map(str, YOUNG))} nights\n"
        f"False FAIL % of {many:,} nights / 10 % of a cell found the same night %"
    )
    return _table(report, title, columns=columns, rows=rows)


def _sticky(report: Report) -> str:
    def row(kind: Noise) -> Row:
        def rate(what: str) -> Rate:
            return report.rate(kind, "clean", what)

        shares = (rate(f"later 10 % {when}").share for when in ("same night", LATE))
        return (
            _with_interval(rate("FAIL")),
            _with_interval(rate("later FAIL")),
            " / ".join(_percent(share) for share in shares),
        )

    rows = [(kind.name, *row(kind)) for kind in report.kinds if kind.is_sticky]
    columns = (
        "noise",
        "false FAIL nights %,\nfirst month",
        "the two months\nafter it",
        f"10 % of a cell after it,\nsame night / {LATE}",
    )
    return _table(report, "slow nights that reruns confirm", columns=columns, rows=rows)


def _slow_changes(report: Report) -> str:
    def row(kind: Noise) -> Row:
        sizes = report.tallies[kind.name]["drift"].samples["size"]
        ends = np.quantile(sizes, (0.5, 0.9), method="higher")
        return (
            _percent(report.rate(kind, "planted", "better").share),
            _percent(report.rate(kind, "clean", "better").share),
            " / ".join(f"{100 * size:.1f}" if np.isfinite(size) else "never" for size in ends),
            _percent(float(np.mean(np.array(sizes) <= 0.06 + ROUNDING))),
        )

    columns = (
        "noise",
        f"5 % better for\n{LATE}, noticed %",
        "false notices,\n% of nights",
        "drift when found %,\nhalf / nine in ten",
        "found by 6 %,\n% of cells",
    )
    title = "better, and slower by 0.3 % every night"
    return _table(report, title, columns=columns, rows=_rows(report, row))


def _simple_rules(report: Report) -> str:
    def row(kind: Noise) -> Row:
        def rates(false: str, *found: str) -> str:
            shares = [report.rate(kind, "clean", false).share]
            shares += [report.rate(kind, "planted", key).share for key in found]
            return " / ".join(_percent(share) for share in shares)

        simple_rules = (rates(name, f"{name} 5 %", f"{name} 10 %") for name in SIMPLE_RULES)
        return (rates("FAIL", "5 % same night", "10 % same night"), *simple_rules)

    columns = (
        "noise",
        f"pdserve,\n{LAYOUT.cells} runs and reruns",
        f"5 % on one run,\n{LAYOUT.cells} runs",
        f"5 % on the median of three,\n{3 * LAYOUT.cells} runs",
    )
    title = (
        "what people do now\n"
        "False FAIL nights % / 5 % of a cell found the same night % / 10 % the same. 5 % is what a "
        "cell\nmay be worse than its baseline's median in throughput, mean ITL, mean or p99 TTFT."
    )
    return _table(report, title, columns=columns, rows=_rows(report, row))


def _limits(report: Report) -> str:
    def row(kind: Noise) -> Row:
        samples = report.tallies[kind.name]["clean"].samples
        ends = [np.quantile(samples[metric], (0.5, 0.9)) for metric in samples]
        return tuple(f"{100 * half:.1f} / {100 * most:.1f}" for half, most in ends)

    columns = ("noise", "mean ITL", "mean TTFT", "p99 TTFT")
    title = "limits %, half of the cells / nine in ten\nA noisier cell sees less."
    return _table(report, title, columns=columns, rows=_rows(report, row))


def _verdict(report: Report) -> str:
    drawn = f"(simulated, seed {report.seed}, {report.nights:,} nights a kind)"
    if report.missed:
        return f"BROKEN: {'; '.join(report.missed)} {drawn}"
    without = ", ".join(kind.name for kind in report.kinds if not kind.fits_floors)
    but = f"; none are set for {without}, which the floors are not meant for" if without else ""
    return f"sound: no target is missed by more than chance{but} {drawn}"
