"""A comparison of two sides for people: as text, and as Markdown for a pull request.

What differs comes first, and that loads are unlike before any number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.wording import number
from pytest_pdserve.judge.wording import percent
from pytest_pdserve.report.formats.markdown_text import escaped
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.comparison import ComparedCell
from pytest_pdserve.values.comparison import ComparedMetric
from pytest_pdserve.values.comparison import ComparedSide
from pytest_pdserve.values.comparison import ComparedValue
from pytest_pdserve.values.comparison import Comparison
from pytest_pdserve.values.comparison import FactDifference
from pytest_pdserve.values.comparison import Says
from pytest_pdserve.values.metrics import METRICS

MAX_CHARACTERS = 60_000
"""Of the Markdown: a comment on GitHub may have 65,536."""
_RESERVED = 2_000
"""Characters that are kept for titles, and for what follows the tables."""
_LONGEST_LINE = 1_000
_COLUMNS = ("metric", "unit", "A", "B", "change", "interval", "B is")
_ALIGN = "llrrrrl"
_LONGEST_VALUE = 100
"""Characters of a fact that are shown; of longer ones, those around the first that differs."""
_BEFORE = 20
"""Characters before that."""
_SAYS: tuple[Says, ...] = ("worse", "better", "unclear", "equal", "differs", "not compared")
_MAX_NAMES = 20
"""Names of cells in one sentence."""
_MORE = "| … and {} more, with --format json |"
"""Last row of a table that lacks some."""


def text_lines(comparison: Comparison) -> list[str]:
    """Return the comparison for a terminal, with every metric of every cell."""
    return [_printable(line) for line in _text_lines(comparison)]


def _printable(line: str) -> str:
    """Return *line* with control characters escaped, as a record may contain some."""
    if line.isprintable():
        return line
    escape = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return "".join(escape)


def _text_lines(comparison: Comparison) -> Iterator[str]:
    yield from (f"{letter}  {_side(side)}" for letter, side in _sides(comparison))
    yield from _loads(comparison)
    yield _differ(comparison)
    if comparison.differences:
        yield from text_table(("", "", "A", "B"), _fact_rows(comparison.differences), "llll")
    yield from _about(comparison)
    for cell in comparison.cells:
        yield ""
        yield _title(cell, comparison)
        if cell.metrics:
            yield from text_table(_COLUMNS, [_metric_row(cell, m) for m in cell.metrics], _ALIGN)
    yield ""
    yield from _voids(comparison.cells)
    yield comparison.method
    yield from _summary(comparison)


def markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown of at most :data:`MAX_CHARACTERS`.

    Judged metrics are in the open, the others folded. What does not fit is counted.
    """
    parts = ["\n".join(_markdown_top(comparison))]
    room = MAX_CHARACTERS - len(parts[0]) - _RESERVED
    for judged in (True, False):
        rows = _judged_rows(comparison, judged=judged)
        count = sum(m.judged is judged for cell in comparison.cells for m in cell.metrics)
        kept = _fitting(rows, count, room)
        room -= sum(len(row) + 1 for row in kept)
        table = "\n".join([*_markdown_head(("cell", *_COLUMNS)), *kept])
        title = f"{count} metrics more, which are not judged"
        fold = f"<details><summary>{title}</summary>\n\n{table}\n\n</details>"
        parts += [table if judged else fold] if count else []
    return "\n\n".join([*parts, escaped(comparison.method, _RESERVED)]) + "\n"


def _judged_rows(comparison: Comparison, *, judged: bool) -> Iterator[str]:
    """Return a row for each metric that is judged, or that is not."""
    for cell in comparison.cells:
        for metric in cell.metrics:
            if metric.judged is judged:
                yield _markdown_row((cell.name, *_metric_row(cell, metric)))


def _markdown_top(comparison: Comparison) -> Iterator[str]:
    """Return everything before the tables of metrics."""
    yield from (f"- {letter}: {escaped(_side(side))}" for letter, side in _sides(comparison))
    yield ""
    for line in _loads(comparison):
        yield from (f"**{escaped(line, _LONGEST_LINE)}**", "")
    yield from (escaped(_differ(comparison)), "")
    rows = [_markdown_row(row) for row in _fact_rows(comparison.differences)]
    if rows:
        yield from _markdown_head(("", "", "A", "B"))
        yield from _fitting(rows, len(rows), MAX_CHARACTERS // 4)
        yield ""
    for sentences in (_summary(comparison), _about(comparison), _voids(comparison.cells)):
        lines = [f"- {escaped(sentence, _LONGEST_LINE)}" for sentence in sentences]
        yield from _fitting(lines, len(lines), MAX_CHARACTERS // 12, more="- … and {} more")


def _sides(comparison: Comparison) -> tuple[tuple[str, ComparedSide], ...]:
    return ("A", comparison.a), ("B", comparison.b)


def _side(side: ComparedSide) -> str:
    when = [moment for moment in (side.first_at, side.last_at) if moment is not None]
    period = " to ".join(dict.fromkeys(when)) or "date unknown"
    runs = _several(side.runs, "value" if side.evidence == "night" else "run")
    read = "" if side.evidence == "reading" else f", {runs}"
    unproven = f", {side.unproven} of them unproven" if side.unproven else ""
    return f"{side.name}: {side.what}{read}{unproven}, {period}"


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _loads(comparison: Comparison) -> Iterator[str]:
    """Yield a line if loads differ, or may differ."""
    if comparison.unlike:
        shown = "these numbers compare loads, not servers"
        what = (
            shown if any(cell.metrics for cell in comparison.cells) else "nothing can be compared"
        )
        yield f"UNLIKE LOADS, {what}: {'; '.join(comparison.unlike)} (A | B)"
    if comparison.unsure:
        yield f"loads may differ, not known is: {'; '.join(comparison.unsure)} (A | B)"


def _differ(comparison: Comparison) -> str:
    same = f"{_several(comparison.same_facts, 'fact')} the same"
    if not comparison.differences:
        return f"nothing known differs apart from the measurements ({same})"
    return f"what differs ({same}):"


def _fact_rows(differences: Sequence[FactDifference]) -> list[tuple[str, str, str, str]]:
    rows, group = [], ""
    for each in differences:
        a, b = _excerpts(_known(each.a), _known(each.b))
        rows.append((each.group if each.group != group else "", each.name, a, b))
        group = each.group
    return rows


def _known(values: Sequence[str]) -> str:
    return ", ".join(values) if values else "not known"


def _excerpts(a: str, b: str) -> tuple[str, str]:
    """Return two texts, or of long ones what is around the first place where they differ."""
    if max(len(a), len(b)) <= _LONGEST_VALUE:
        return a, b
    shorter = min(len(a), len(b))
    same = next((n for n, pair in enumerate(zip(a, b, strict=False)) if len({*pair}) > 1), shorter)
    begin = max(same - _BEFORE, 0)
    return _excerpt(a, begin), _excerpt(b, begin)


def _excerpt(text: str, begin: int) -> str:
    end = begin + _LONGEST_VALUE
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"


def _about(comparison: Comparison) -> Iterator[str]:
    """Yield lines on what is unknown, invalid, mixed, or only on one side."""
    if comparison.not_known:
        yield f"not known: {', '.join(comparison.not_known)}"
    for letter, side in _sides(comparison):
        yield from (f"{letter} {note}" for note in side.notes)
    for letter, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            shown = [
                *names[:_MAX_NAMES],
                *([f"{len(names) - _MAX_NAMES} more"] if names[_MAX_NAMES:] else []),
            ]
            yield f"only {letter} has: {', '.join(shown)}"
    yield from (f"not compared: {cell.name}: {cell.why}" for cell in comparison.cells if cell.why)


def _title(cell: ComparedCell, comparison: Comparison) -> str:
    counts = [
        f"{letter} {_several(counted, side.evidence)}"
        for (letter, side), counted in zip(_sides(comparison), _counted(cell), strict=True)
        if counted
    ]
    return f"{cell.name}: {', '.join(counts) or 'not compared'}"


def _counted(cell: ComparedCell) -> tuple[int, int]:
    """Return the starts or nights of each side, of the metrics that have most."""
    sides = [[m.a.counted for m in cell.metrics], [m.b.counted for m in cell.metrics]]
    a, b = (max(side, default=0) for side in sides)
    return a, b


def _metric_row(cell: ComparedCell, metric: ComparedMetric) -> tuple[str, ...]:
    most = _counted(cell)
    ends = [_percent(end) for end in metric.interval or ()]
    return (
        metric.metric,
        metric.unit,
        _value(metric.a, most[0]),
        _value(metric.b, most[1]),
        "-" if metric.change is None else _percent(metric.change),
        f"{ends[0].removesuffix(' %')} to {ends[1]}" if ends else "-",
        metric.says,
    )


def _percent(fraction: float) -> str:
    text = percent(fraction)
    return "0 %" if text in ("+0 %", "-0 %") else text


def _value(value: ComparedValue, most: int) -> str:
    if value.value is None:
        return "void" if value.void else "-"
    return number(value.value) + (f" ({value.counted} of {most})" if value.counted < most else "")


def _voids(cells: Sequence[ComparedCell]) -> Iterator[str]:
    """Yield each reason why values are void, with its metrics and the number of cells."""
    reasons: dict[str, dict[str, set[str]]] = {}
    for cell in cells:
        for metric in cell.metrics:
            for letter, value in (("A", metric.a), ("B", metric.b)):
                if value.void:
                    found = reasons.setdefault(
                        value.why, {"sides": set(), "of": set(), "in": set()}
                    )
                    found["sides"].add(letter)
                    found["of"].add(metric.metric)
                    found["in"].add(cell.name)
    for why, found in reasons.items():
        names = ", ".join(name for name in METRICS if name in found["of"])
        sides, count = " and ".join(sorted(found["sides"])), _several(len(found["in"]), "cell")
        yield f"void in {sides}, {count}: {names}: {why}"


def _summary(comparison: Comparison) -> Iterator[str]:
    """Yield counts of metrics that are worse or better in B, and those that are too much worse."""
    metrics = [(cell, metric) for cell in comparison.cells for metric in cell.metrics]
    judged = [(cell, metric) for cell, metric in metrics if metric.judged]
    for what, of in (("judged metrics", judged), ("all metrics", metrics)):
        counts = Counter(metric.says for _, metric in of)
        shown = [f"{counts[says]} {says}" for says in _SAYS if counts[says]]
        alone = sum(m.says in ("worse", "better") and m.interval is None for _, m in of)
        more = f"; {alone} of them without an interval, so they may be chance" if alone else ""
        yield f"{what}: {', '.join(shown) or 'none is compared'}{more}"
    worse = [(m.worse, cell.name, m.metric) for cell, m in judged if m.says == "worse" and m.worse]
    if worse and not comparison.unlike:
        most, cell_name, name = max(worse)
        yield f"the largest change for the worse: {name} of {cell_name}, {percent(most)} by ratio"
    yield from (f"WORSE: {sentence}" for sentence in comparison.too_much)


def _markdown_head(columns: Sequence[str]) -> list[str]:
    return [_markdown_row(columns), f"|{' --- |' * len(columns)}"]


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(escaped, texts))} |"


def _fitting(lines: Iterable[str], count: int, room: int, more: str = _MORE) -> list[str]:
    """Return the lines that fit into *room* characters, and one that counts the others.

    :param count: lines in all.
    :param more: last line, with the number of the others in the place of ``{}``.
    """
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            return [*kept, more.format(count - len(kept))]
        kept.append(line)
    return kept
