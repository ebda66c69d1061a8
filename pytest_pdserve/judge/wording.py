"""What is said of the judgement of a night, test by test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict

if TYPE_CHECKING:
    from pytest_pdserve.judge.night_rows import TestVerdict


def combined(limits: Verdict, tests: Sequence[TestVerdict]) -> Verdict:
    """One verdict of a cell: FAIL before INCONCLUSIVE before PASS, each miss with its numbers.

    :param limits: what the fixed limits and counts say.
    :param tests: what the night says of each metric.
    """
    failed = [test for test in tests if test.status is Status.FAIL]
    open_ = [test for test in tests if test.status is Status.INCONCLUSIVE]
    status = limits.status
    if status is not Status.FAIL:
        status = Status.FAIL if failed else Status.INCONCLUSIVE if open_ else status
    shown = failed if status is Status.FAIL else open_
    return Verdict(
        status=status,
        subject=limits.subject,
        misses=(*limits.misses, *map(describe_test, shown)),
        evidence=limits.evidence,
    )


def of_topology(tests: Sequence[TestVerdict], subject: str) -> Verdict:
    """One verdict of a topology as a whole; INCONCLUSIVE without tests."""
    if not tests:
        few = "fewer than two of its cells have a run tonight and a baseline long enough"
        return Verdict(status=Status.INCONCLUSIVE, subject=subject, misses=(few,))
    return combined(Verdict(status=Status.PASS, subject=subject), tests)


def describe_test(test: TestVerdict) -> str:
    """One test in a line: the change tonight, what found it, or what would have been found."""
    if not test.runs:
        return f"{test.metric}: no run tonight has it"
    runs = f"{test.runs} run" + ("s" if test.runs != 1 else "")
    if test.fired:
        change = _worse(test.shift)
        if test.lasting != test.shift:
            change = f"{_worse(test.lasting)} over nights, {change} tonight"
        found = " and ".join(test.fired)
        return f"{test.metric} {change} ({runs}; found by: {found}; p = {test.p:.1g})"
    said = f"{_worse(test.shift)} ({runs})"
    if math.isnan(test.bound):
        return f"{test.metric} {said}: the baseline has too few runs to tell"
    if test.lasting != test.shift:
        said = f"{_worse(test.lasting)} over nights, not tonight; {said}"
    elif test.open:
        said = f"suspicious, and not cleared: {said}"
    said = f"{test.metric} {said}, with 95 % confidence at most {_worse(test.bound)}"
    if math.isinf(test.visible):
        return f"{said}; no change would have been seen: too few runs, or too unsteady a baseline"
    return said if math.isnan(test.visible) else f"{said}; {test.visible:.1%} would have been seen"


def describe_icc(icc: Mapping[str, float], *, calibrated: bool) -> str:
    """The ICC that the judge goes by, and where it comes from."""
    low, high = f"{min(icc.values()):.2g}", f"{max(icc.values()):.2g}"
    said = low if low == high else f"{low} to {high}"
    assumed = "assumed, or seen in the baseline; see pdserve calibrate"
    return f"ICC {said} ({'calibrated' if calibrated else assumed})"


def _worse(shift: float) -> str:
    return f"{abs(shift):.1%} {'worse' if shift >= 0 else 'better'}"
