"""Tables of what clients reported and what was true, and which targets ``precise`` met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

Row = Mapping[str, Any]
"""A run: ``client``, ``streams``, and either ``error`` or what was measured."""
HEADINGS = (
    *("streams", "client", "mean TTFT, ms", "true", "p99 TTFT, ms", "true"),
    *("mean ITL, ms", "mean TPOT, ms", "true", "output tok/s, off by", "outside the load, s"),
    *("CPU, s", "cores under load"),
)
MOST_CORES = 0.6
TOLERANCES = {
    "mean_ttft_ms": (0.01, 3.0),
    "p99_ttft_ms": (0.01, 3.0),
    "mean_itl_ms": (0.002, 0.0),
    "mean_tpot_ms": (0.002, 0.0),
}
"""By metric, how far off ``precise`` may be: a share of the truth or ms, whichever is more."""


def markdown(rows: Sequence[Row]) -> str:
    """Return the medians over rounds as a table."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    for streams in dict.fromkeys(row["streams"] for row in rows):
        for client in dict.fromkeys(row["client"] for row in rows):
            mine = [r for r in rows if (r["streams"], r["client"]) == (streams, client)]
            if mine:
                lines.append(_line(streams, client, mine))
    return "\n".join(lines)


def _line(streams: int, client: str, runs: Sequence[Row]) -> str:
    good = [run for run in runs if "error" not in run]
    if not good:
        return f"| {streams} | `{client}` | {runs[0]['error']} |" + " |" * (len(HEADINGS) - 3)
    reported = {
        name: _median(run["reported"].get(name) for run in good) for name in good[0]["reported"]
    }
    true = {name: _median(run["true"][name] for run in good) for name in good[0]["true"]}
    reached = min(run["reached"] for run in good)
    name = f"`{client}`" + (f", reached {reached:,} of {streams:,}" if reached < streams else "")
    off = None
    if reported.get("output_throughput"):
        off = reported["output_throughput"] / true["output_throughput"] - 1
    cells = [
        *(f"{streams:,}", name),
        *(_ms(reported.get("mean_ttft_ms"), 1), _ms(true["mean_ttft_ms"], 1)),
        *(_ms(reported.get("p99_ttft_ms"), 1), _ms(true["p99_ttft_ms"], 1)),
        *(_ms(reported.get("mean_itl_ms"), 3), _ms(reported.get("mean_tpot_ms"), 3)),
        *(_ms(true["mean_itl_ms"], 3), "–" if off is None else f"{off:+.1%}"),
        _ms(_median(run["outside_s"] for run in good), 1),
        _ms(_median(run["cpu_s"] for run in good), 1),
        _ms(_median(run["cores"] for run in good), 2),
    ]
    return f"| {' | '.join(cells)} |"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _ms(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def targets(rows: Sequence[Row]) -> str:
    """Return the targets of ``precise``, each met or not, by the worst of its runs."""
    mine = [row for row in rows if row["client"] == "precise" and "error" not in row]
    lines = ["| target of `precise` | streams | worst | met |", "|---|---|---|---|"]
    for streams in dict.fromkeys(row["streams"] for row in mine):
        runs = [row for row in mine if row["streams"] == streams]
        for name, (share, ms) in TOLERANCES.items():
            lines.append(_target(name, share, ms, runs))
        cores = max(run["cores"] for run in runs)
        rate = max(run["true"]["output_throughput"] for run in runs)
        lines.append(
            f"| at most {MOST_CORES} of a core | {streams:,} | {cores:.2f} at {rate:,.0f} tok/s "
            f"| {_yes(cores <= MOST_CORES)} |"
        )
    return "\n".join(lines)


def _target(name: str, share: float, ms: float, runs: Sequence[Row]) -> str:
    worst = max(runs, key=lambda run: abs(run["reported"][name] - run["true"][name]))
    true, off = worst["true"][name], worst["reported"][name] - worst["true"][name]
    within = f"{share:.1%}" + (f" or {ms:g} ms" if ms else "")
    return (
        f"| {name} within {within} | {worst['streams']:,} | {off:+.3f} ms ({off / true:+.2%}) "
        f"| {_yes(abs(off) <= max(share * true, ms))} |"
    )


def _yes(met: bool) -> str:
    return "met" if met else "**not met**"
