"""A rehearsal as a table in the terminal, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.report.formats.markdown_text import escaped
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.rehearsal import MODEL
from pytest_pdserve.values.rehearsal import Combination
from pytest_pdserve.values.rehearsal import Rehearsal
from pytest_pdserve.values.rehearsal import Rehearsed
from pytest_pdserve.values.stack import Stack

_WHY = 600
_COLUMNS = ("prefill", "decode", "router", "hash", "outcome", "ready s", "after s", "why")
_LEGEND = (
    "ready s: from the start until the instances were healthy; after s: from then until the "
    "outcome was known"
)


def plan_lines(rehearsal: Rehearsal, left: Sequence[Combination]) -> list[str]:
    """Return what a rehearsal will stand up, before it does.

    :param left: combinations that have no result yet.
    """
    rows = [
        (*_sides(each), "to do" if each in left else "done before") for each in rehearsal.chosen
    ]
    count = len(rehearsal.chosen)
    heading = f"{count} combination{'' if count == 1 else 's'}, {len(left)} to stand up"
    return [
        *_header(rehearsal),
        heading,
        *text_table((*_COLUMNS[:4], "state"), rows, "lllll"),
    ]


def rehearsal_lines(rehearsal: Rehearsal) -> list[str]:
    """Return a table of the outcomes of all combinations, and why some do not work."""
    table = text_table(_COLUMNS[:-1], [_row(each)[:-1] for each in rehearsal.shown], "lllllrr")
    causes = [
        f"{each.combination.id} {each.outcome}: {each.why[:_WHY]}"
        for each in rehearsal.shown
        if each.outcome != "works"
    ]
    return [*_header(rehearsal), *table, _LEGEND, *causes, *_note(rehearsal)]


def rehearsal_markdown(rehearsal: Rehearsal) -> str:
    """Return the same as a page of Markdown."""
    header = [f"- {escaped(line, 600)}" for line in _header(rehearsal)]
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += [
        "| " + " | ".join(escaped(cell, _WHY) for cell in _row(each)) + " |"
        for each in rehearsal.shown
    ]
    title = f"# Rehearsal of an upgrade on {escaped(rehearsal.system)}"
    return "\n".join([title, "", *header, "", *lines, "", f"{_LEGEND}.", *_note(rehearsal), ""])


def _header(rehearsal: Rehearsal) -> list[str]:
    differ = ", ".join(rehearsal.differences) or "nothing"
    models = [f"model of {side}: {path}" for side, path in sorted(rehearsal.models.items())]
    return [
        f"A: {_stack_text(rehearsal.a)}",
        f"B: {_stack_text(rehearsal.b)}",
        *models,
        f"they differ in {differ}; system {rehearsal.system}; begun {rehearsal.started_at}",
    ]


def _stack_text(stack: Stack) -> str:
    pins = " ".join(f"{name} {version}" for name, version in stack.pins.items())
    args = " ".join(stack.serve_args)
    return ", ".join(part for part in (pins or stack.text, args) if part)


def _note(rehearsal: Rehearsal) -> list[str]:
    """Return what the compatibility hash does not cover, where that was rehearsed."""
    if MODEL not in rehearsal.differences:
        return []
    return ["The compatibility hash covers the model's path and shape, and not its weights."]


def _sides(each: Combination) -> tuple[str, str, str, str]:
    return each.prefill, each.decode, each.router, "on" if each.hash_checked else "off"


def _row(each: Rehearsed) -> tuple[str, ...]:
    times = (each.ready_s, each.after_s)
    seconds = ("" if value is None else f"{value:.0f}" for value in times)
    return (*_sides(each.combination), each.outcome, *seconds, each.why)
