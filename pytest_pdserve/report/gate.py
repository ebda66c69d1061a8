"""The result of an upgrade gate, for terminals and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.wording import number
from pytest_pdserve.report.formats.markdown_text import escaped
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.gate import GatedStack
from pytest_pdserve.values.gate import GateResult
from pytest_pdserve.values.gate import GateVerdict
from pytest_pdserve.values.gate import MetricEvidence
from pytest_pdserve.values.gate import MetricState
from pytest_pdserve.values.gate import ShownMetric
from pytest_pdserve.values.gate import SwapEvidence
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.phases import duration_text

GOOD_ROWS = 8
"""Good metrics that a terminal shows; all are in gate.md."""
WORSE_LINES = 3
"""Worse metrics that stand below the verdict; all are in the table."""
_COLUMNS = ("topology", "load", "metric", "unit", "A", "B", "worse by", "interval", "margin")
_MORE = ("limit", "blocks against", "pairs beyond", "says")
_ALIGN = "llllrrrrrrrrl"
_METHOD = (
    "'worse by': median over all pairs of a start of B and a start of A; 'interval': its bounds, "
    "each at a level of about 1 %; 'pairs beyond': pairs apart by more than the margin, of all, "
    "and how many may be; docs/gate-rule.md"
)
_SWAPPED = ("component", "of", "topology", "load", "metric", "worse by", "says")


def gate_lines(result: GateResult) -> list[str]:
    """Return the lines for a terminal."""
    rows = [e for e in result.evidence if e.state is not MetricState.GOOD]
    good = [e for e in result.evidence if e.state is MetricState.GOOD]
    shown = [*rows, *good[:GOOD_ROWS]]
    lines = [_headline(result), *_because(result), "", *_about(result)]
    if shown:
        lines += ["", *text_table((*_COLUMNS, *_MORE), map(_row, shown), _ALIGN)]
        if len(good) > GOOD_ROWS:
            lines.append(f"and {len(good) - GOOD_ROWS} more good metrics")
        lines.append(_METHOD)
    lines += [f"note      {each}" for each in result.notes]
    lines += [f"next      {each}" for each in result.next_steps]
    return lines


def _headline(result: GateResult) -> str:
    reason = {
        GateVerdict.GO: "no gated metric is worse by more than its margin",
        GateVerdict.NO_GO: "the candidate breaks something"
        if result.faults
        else "the candidate is slower",
        GateVerdict.NOT_ENOUGH: "the blocks show neither that B is worse nor that it is not",
        GateVerdict.ERROR: "the stacks could not be compared",
    }[result.verdict]
    simulated = "; SIMULATED, no server ran" if result.simulated else ""
    return f"{result.verdict}: {reason}{simulated}"


def _because(result: GateResult) -> Iterator[str]:
    """Yield the reasons for the verdict, a line each."""
    if result.error:
        yield f"  {result.error}"
    yield from (f"  {fault}" for fault in result.faults)
    worse = [each for each in result.evidence if each.state is MetricState.WORSE]
    yield from (f"  {_worse_words(each)}" for each in worse[:WORSE_LINES])
    if len(worse) > WORSE_LINES:
        yield f"  and {len(worse) - WORSE_LINES} more metrics are worse"
    if result.attribution is not None:
        yield f"  {result.attribution.why}"


def _worse_words(each: MetricEvidence) -> str:
    unit = METRICS[each.metric].unit
    values = ""
    if each.baseline is not None and each.candidate is not None:
        values = f" {number(each.candidate)} {unit}, A {number(each.baseline)}:"
    return (
        f"{each.metric} of {_subject(each)}{values} worse by {_percent(each.estimate)} (margin "
        f"{_percent(each.margin)}); {each.blocks_against} of {each.blocks} blocks count against B"
    )


def _subject(each: MetricEvidence) -> str:
    return f"{each.topology} {each.workload or 'as a whole'}"


def _about(result: GateResult) -> Iterator[str]:
    """Yield what was compared and what it cost."""
    yield f"A         {_stack(result.baseline)}"
    yield f"B         {_stack(result.candidate)}"
    differing = ", ".join(result.components) or "nothing"
    yield f"differs   {differing}; {result.same_facts} other facts are the same"
    gpus = f", {result.gpu_min:,.1f} GPU-minutes" if result.gpu_min is not None else ""
    yield (
        f"cost      {result.blocks} blocks, {result.starts} starts, {result.runs} runs; "
        f"{duration_text(result.wall_s)} of system {result.system}{gpus}"
    )


def _stack(stack: GatedStack) -> str:
    components = ", ".join(f"{key} {value}" for key, value in stack.components.items())
    return f"{stack.name} ({components})" if components else stack.name


def _row(each: MetricEvidence) -> tuple[str, ...]:
    beyond = f"{each.pairs_beyond} of {each.pairs}"
    if each.pairs_allowed is not None:
        beyond += f", {each.pairs_allowed} may"
    low, high = _percent(each.low), _percent(each.high)
    state = str(each.state)
    if each.forecast_blocks is not None:
        state += f", ~{each.forecast_blocks} blocks"
    return (
        each.topology,
        each.workload or "(all)",
        each.metric,
        METRICS[each.metric].unit if each.workload else "",
        _value(each.baseline),
        _value(each.candidate),
        _percent(each.estimate),
        f"{low} to {high}" if each.low is not None else "-",
        _percent(each.margin),
        _percent(each.limit),
        f"{each.blocks_against} of {each.blocks}",
        beyond,
        state,
    )


def _value(value: float | None) -> str:
    return "-" if value is None else number(value)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:+.1f} %"


def gate_markdown(result: GateResult) -> str:
    """Return the whole of a gate as Markdown."""
    lines = [f"# Upgrade gate on {escaped(result.system)}: {result.verdict}", ""]
    lines += [f"**{escaped(_headline(result))}**", ""]
    lines += [f"- {escaped(each.strip(), 1000)}" for each in _because(result)]
    lines += ["", *_table(("", ""), [line.split(None, 1) for line in _about(result)])]
    if result.evidence:
        rows = [_row(each) for each in result.evidence]
        lines += ["", "## Gated metrics", "", *_table((*_COLUMNS, *_MORE), rows)]
        lines += ["", escaped(_METHOD, 1000)]
    if result.attribution is not None and result.attribution.evidence:
        swaps = [_swap_row(each) for each in result.attribution.evidence]
        lines += ["", "## Components swapped", "", *_table(_SWAPPED, swaps)]
    if result.shown:
        shown = [_shown_row(each) for each in result.shown]
        lines += ["", "## Not gated", "", *_table(_COLUMNS[:6], shown)]
    for title, sentences in (
        ("Notes", result.notes),
        ("What would bring an answer", result.next_steps),
    ):
        if sentences:
            lines += ["", f"## {title}", "", *(f"- {escaped(each, 1000)}" for each in sentences)]
    return "\n".join(lines) + "\n"


def _shown_row(each: ShownMetric) -> tuple[str, ...]:
    names = (each.topology, each.workload, each.metric, METRICS[each.metric].unit)
    return (*names, number(each.baseline), number(each.candidate))


def _swap_row(each: SwapEvidence) -> tuple[str, ...]:
    of = "A with B's" if each.into == "baseline" else "B with A's"
    result = "worse than A" if each.is_worse else "not worse than A"
    return (
        *(each.component, of, each.topology, each.workload, each.metric),
        *(_percent(each.estimate), result),
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    made = [" | ".join(escaped(cell, 1000) for cell in row) for row in rows]
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *(f"| {r} |" for r in made)]
