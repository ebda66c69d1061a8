"""Comparison of two sides: facts that differ, all cells, and the exit code. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from pytest_pdserve.judge.cell_pairs import CellPair
from pytest_pdserve.judge.cell_pairs import MatchedCells
from pytest_pdserve.judge.cell_pairs import match_cells
from pytest_pdserve.judge.side_by_side import METHOD
from pytest_pdserve.judge.side_by_side import compare_cell
from pytest_pdserve.values.comparison import ComparedCell
from pytest_pdserve.values.comparison import ComparedMetric
from pytest_pdserve.values.comparison import ComparedSide
from pytest_pdserve.values.comparison import Comparison
from pytest_pdserve.values.comparison import FactDifference
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.exit_codes import combined_code
from pytest_pdserve.values.measurements import GROUPS
from pytest_pdserve.values.measurements import MeasuredCell
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.measurements import Measurements
from pytest_pdserve.values.measurements import values_of_fact
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.workload import UNKNOWN

_ALSO_FLAGS = ("env.", "pd_env.")
"""Prefixes of settings that flags contain too, if flags are known; so do those that end with
``args``."""
_FINGERPRINT = ("hardware", "fingerprint")


def compare(
    a: Measurements, b: Measurements, *, fail_worse: float | None = None, partial: bool = False
) -> Comparison:
    """Return the comparison of two sides.

    :param fail_worse: fraction by which a judged metric of B may be worse; None for no limit.
    :param partial: whether cells of A may lack a counterpart even with a limit.
    """
    matched = match_cells(a.cells, b.cells)
    cells = tuple(compare_cell(pair) for pair in matched.pairs)
    ones = [run for pair in matched.pairs for run in pair.a.runs] or a.runs
    others = [run for pair in matched.pairs for run in pair.b.runs] or b.runs
    unlike = matched.unlike
    too_much: tuple[str, ...] = ()
    if fail_worse is not None and not unlike:
        too_much = tuple(_beyond_limit(cells, fail_worse))
    differences, same = fact_differences(ones, others)
    return Comparison(
        a=_side(a, [pair.a for pair in matched.pairs]),
        b=_side(b, [pair.b for pair in matched.pairs]),
        unlike=unlike,
        unsure=(*_unknown_topologies(matched.pairs), *(() if unlike else matched.unsure)),
        differences=(*_topology_differences(matched.pairs), *differences),
        not_known=tuple(_missing_groups(ones, others)),
        same_facts=same,
        method=METHOD,
        cells=cells,
        only_a=tuple(_name(cell) for cell in matched.only_a),
        only_b=tuple(_name(cell) for cell in matched.only_b),
        fail_worse=fail_worse,
        too_much=too_much,
        exit_code=_exit_code(matched, cells, too_much, fail_worse=fail_worse, partial=partial),
    )


def _name(cell: MeasuredCell) -> str:
    return f"{cell.topology} {cell.workload_id}"


def _side(of: Measurements, cells: Sequence[MeasuredCell]) -> ComparedSide:
    times = sorted(run.at for run in of.runs if run.at is not None)
    return ComparedSide(
        name=of.name,
        what=of.what,
        evidence=of.evidence,
        counted=sum(len(cell.counted) for cell in cells),
        runs=len(of.runs),
        unproven=sum(run.unproven for run in of.runs),
        first_at=times[0] if times else None,
        last_at=times[-1] if times else None,
        notes=(*_mixed(of.runs), *_invalid(of.runs), *_unknown_metrics(of.runs), *of.left_out),
    )


def _mixed(runs: Sequence[MeasuredRun]) -> Iterator[str]:
    """Yield a note for each version or fingerprint that differs between runs of one side."""
    versions = dict.fromkeys(name for run in runs for name in run.facts.get("versions", {}))
    for group, name in (*(("versions", name) for name in versions), _FINGERPRINT):
        if len(values := values_of_fact(runs, group, name)) > 1:
            yield f"mixed: {name} {', '.join(values)}"


def _invalid(runs: Sequence[MeasuredRun]) -> Iterator[str]:
    yield from (f"invalid, left out: {run.where}: {run.invalid[0]}" for run in runs if run.invalid)


def _unknown_metrics(runs: Sequence[MeasuredRun]) -> Iterator[str]:
    if names := sorted({name for run in runs for name in run.metrics} - set(METRICS)):
        yield f"unknown metrics, left out: {', '.join(names)}"


def fact_differences(
    a: Sequence[MeasuredRun], b: Sequence[MeasuredRun]
) -> tuple[list[FactDifference], int]:
    """Return the facts that differ, and the number of equal ones.

    Groups of facts that a side lacks are left out.
    """
    differences, same = [], 0
    flags_known = all(any(run.facts.get("flags") for run in runs) for runs in (a, b))
    for group in GROUPS:
        if not (_has(a, group) and _has(b, group)):
            continue
        names = dict.fromkeys(name for run in (*a, *b) for name in run.facts.get(group, {}))
        for name in names:
            if group == "settings" and flags_known and _is_also_flag(name):
                continue
            ones, others = values_of_fact(a, group, name), values_of_fact(b, group, name)
            if ones == others:
                same += 1
            else:
                differences.append(FactDifference(group=group, name=name, a=ones, b=others))
    return differences, same


def _has(runs: Sequence[MeasuredRun], group: str) -> bool:
    return any(run.facts.get(group) for run in runs)


def _is_also_flag(name: str) -> bool:
    return name.startswith(_ALSO_FLAGS) or name.endswith("args")


def _missing_groups(a: Sequence[MeasuredRun], b: Sequence[MeasuredRun]) -> Iterator[str]:
    for group in GROUPS:
        lacking = [letter for letter, runs in (("A", a), ("B", b)) if not _has(runs, group)]
        if lacking:
            yield f"{group} of {' and '.join(lacking)}"


def _topology_differences(pairs: Sequence[CellPair]) -> Iterator[FactDifference]:
    found = {(pair.a.topology, pair.b.topology): None for pair in pairs}
    for one, other in found:
        if one != other and UNKNOWN not in (one, other):
            yield FactDifference(group="origin", name="topology", a=(one,), b=(other,))


def _unknown_topologies(pairs: Sequence[CellPair]) -> Iterator[str]:
    found = {(pair.a.topology, pair.b.topology): None for pair in pairs}
    yield from (f"topology: {one} | {other}" for one, other in found if UNKNOWN in (one, other))


def _judged(cells: Sequence[ComparedCell]) -> Iterator[tuple[ComparedCell, ComparedMetric]]:
    for cell in cells:
        yield from ((cell, m) for m in cell.metrics if m.judged and m.better != "equal")


def _beyond_limit(cells: Sequence[ComparedCell], limit: float) -> Iterator[str]:
    beyond = [
        (metric.worse, cell.name, metric.metric)
        for cell, metric in _judged(cells)
        if metric.worse is not None and metric.worse > limit
    ]
    for worse, name, metric in sorted(beyond, reverse=True):
        yield f"{metric} of {name} is {100 * worse:.1f} % worse, {100 * limit:g} % are allowed"


def _exit_code(
    matched: MatchedCells,
    cells: Sequence[ComparedCell],
    too_much: Sequence[str],
    *,
    fail_worse: float | None,
    partial: bool,
) -> ExitCode:
    """Return the exit code; with a limit, a missing value is NOT JUDGED instead of OK."""
    compared = any(m.says != "not compared" for cell in cells for m in cell.metrics)
    if matched.unlike or not compared:
        return ExitCode.NOT_JUDGED
    if fail_worse is None:
        return ExitCode.OK
    missing = any(map(_lacks_judged, cells)) or (bool(matched.only_a) and not partial)
    codes = [ExitCode.FAIL] if too_much else []
    return combined_code([*codes, ExitCode.NOT_JUDGED] if missing else codes)


def _lacks_judged(cell: ComparedCell) -> bool:
    """Return whether a judged metric of A cannot be compared, or none can be."""
    judged = [metric for _, metric in _judged([cell])]
    compared = [m for m in judged if m.worse is not None or m.says == "equal"]
    return not compared or any(m.a.value is not None and m not in compared for m in judged)
