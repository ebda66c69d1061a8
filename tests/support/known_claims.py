"""The judge asked about claims whose verdicts are known, by measured sides and by readings."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from typing import Any

from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.expected import ExpectedChanges
from pytest_pdserve.judge.sides import SideSources
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.figures import FigureCell
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.figures import Reading
from pytest_pdserve.values.record import Record
from tests.support.claim_case import NAMES
from tests.support.claim_case import QUIET
from tests.support.claim_case import SWEEP
from tests.support.claim_case import Case
from tests.support.claim_case import Runs
from tests.support.claim_case import Values
from tests.support.claim_cases_kinds import KINDS
from tests.support.claim_cases_sides import SIDES
from tests.support.claims import claim

LENGTHS = {point.test_id: point.id for point in SWEEP}
WORKLOAD = LENGTHS["512-256"]
METRICS = ("mean_itl_ms", "output_throughput", "request_throughput")
SESSIONS = tuple(f"n{night}" for night in range(20))
MakeRecord = Callable[..., Record]


def _named(values: Values, metric: str, topology: str, cell: str) -> Runs:
    names = (f"{metric} {topology}", f"{topology} {cell}", topology)
    return next((values[name] for name in names if name in values), ())


@dataclass(frozen=True, kw_only=True)
class KnownClaims:
    """Asks the judge about claims whose verdicts are known."""

    make: MakeRecord

    def answer(self, case: Case) -> str:
        """What the judge says of a case, in one line."""
        made = claim(**case.fields)
        changes = ExpectedChanges(entries=case.entries, source="e", today="2026-11-27")
        workloads = [LENGTHS[lengths] for lengths in case.cells]
        points = [point for point in SWEEP if point.id in workloads]
        lookup = self._known(case).side
        for _ in range(2 if case.entries else 1):  # as after a rerun
            verdict = judge_claim(
                made, points, lookup, covers=lambda *cells: changes.entry_for_claim(made.id, *cells)
            )
        again = " ".join(f"{name}:{workload}" for name, workload in verdict.wants_pair)
        evidence = dict(verdict.evidence)
        parts = (
            verdict.reason,
            ",".join(verdict.contradicted),
            again and f"again {again}",
            *changes.problems,
            verdict.evidence[0][1],
            *(evidence.get(label, "") for label in ("statistics", "sides from", "size")),
            "caution" if "caution" in evidence else "",
        )
        return _short(" | ".join(part for part in parts if part))

    def _known(self, case: Case) -> SideSources:
        if case.off is not None:
            return SideSources(figures=_figures(case, case.off), **case.known)
        return SideSources(
            measured=self._records(case, case.tonight),
            last_night=self._records(case, case.last_night),
            baseline=_baseline(case) if case.nights else None,
            **case.known,
        )

    def _records(self, case: Case, values: Values) -> dict[Key, list[Record]]:
        found = {}
        for name, lengths in itertools.product(NAMES, case.cells):
            runs = {m: _named(values, m, name, lengths) for m in METRICS}
            if count := max(map(len, runs.values())):
                found[name, LENGTHS[lengths]] = [
                    replace(
                        self.make(findings=case.findings if n >= case.void_from else ()),
                        metrics={m: run[n] for m, run in runs.items() if n < len(run)},
                    )
                    for n in range(count)
                ]
        return found

    def claims(self) -> dict[str, Callable[[], str]]:
        """Every case, by its name."""
        cases = {**KINDS, **SIDES}
        return {f"claim: {name}": partial(self.answer, case) for name, case in cases.items()}

    def expected(self) -> dict[str, Callable[[], str]]:
        """Cases of expected changes of metrics."""
        kinds: dict[str, dict[str, Any]] = {
            "everything": {},
            "the topology": {"topologies": ("dp", "1p3d")},
            "another topology": {"topologies": ("dp",)},
            "the cell": {"cells": ("512-256",)},
            "the cell by its id": {"cells": (WORKLOAD,)},
            "another cell": {"cells": ("512-512",)},
            "the metric": {"metrics": ("mean_itl_ms",)},
            "another metric": {"metrics": ("mean_ttft_ms",)},
            "as much": {"max_worse": 0.1},
            "less": {"max_worse": 0.09},
            "until today": {"until": "2026-11-27"},
            "until yesterday": {"until": "2026-11-26"},
            "a claim": {"claims": ("itl",)},
        }
        return {f"expected: {name}": partial(_expected, kinds[name]) for name in kinds} | {
            "expected: names": lambda: " | ".join(
                ExpectedChanges(
                    entries=[_entry(claims=("a", "b"), cells=("x", "y"))]
                ).unknown_names({"a": ("x", "z")})
            ),
            "expected: a claim that does not exist": lambda: " | ".join(
                ExpectedChanges(entries=[_entry(claims=("b",), cells=("y",))]).unknown_names(
                    {"a": ()}
                )
            ),
            "expected: names that exist": lambda: " | ".join(
                ExpectedChanges(
                    entries=[_entry(), _entry(claims=("a",)), _entry(claims=("a",), cells=("x",))]
                ).unknown_names({"a": ("x",)})
            ),
        }


def _entry(**fields: Any) -> ExpectedChange:
    return ExpectedChange(**{"until": "2026-12-31", "owner": "ann", "reason": "r", **fields})


def _expected(fields: Mapping[str, Any]) -> str:
    """Whether an entry covers a metric of a cell, and the topology, and what is said of it."""
    found = []
    for names, worse in ((("512-256", WORKLOAD), 0.1), ((), 0.1), (("512-256",), None)):
        entry = _entry(**fields)
        changes = ExpectedChanges(entries=(entry,), source="e", today="2026-11-27")
        covers = changes.covers_for_cell("1p3d", names)
        covered = worse is not None and covers("mean_itl_ms", worse) is entry
        found.append(f"{'covered' if covered else 'not'} {' '.join(changes.problems)}".strip())
    return " | ".join(found)


def _figures(case: Case, off: float) -> Figures:
    """The values of tonight as readings."""
    cells = []
    for name, lengths in itertools.product(NAMES, case.cells):
        runs = {m: _named(case.tonight, m, name, lengths) for m in METRICS}
        readings = {m: Reading(value=run[0], uncertainty=off) for m, run in runs.items() if run}
        input_len, output_len = map(int, lengths.split("-"))
        if readings:
            cells.append(
                FigureCell(
                    source="figure",
                    runs=1,
                    topology=name,
                    input_len=input_len,
                    output_len=output_len,
                    num_prompts=4,
                    metrics=readings,
                )
            )
    return Figures(
        source="f.toml",
        title="t",
        date="2026-01-01",
        versions={},
        method="m",
        record=tuple(cells),
    )


def _short(said: str) -> str:
    """The same in fewer words."""
    for many, few in (
        ("random-", ""),
        ("-n4", ""),
        ("violated by more than its noise of", "beyond"),
        ("violated by no more than its noise of", "within"),
        (", margin 0 %", ""),
        ("mean_itl_ms of ", ""),
        ("output_throughput of ", ""),
        ("no more clearly than noise explains", "noise"),
        ("read off plots: one run per side, no variance", "read off"),
        ("intervals are how far readings may be off", "intervals"),
        ("figure: f.toml (t, 2026-01-01; one run per cell, means only)", "figures"),
        ("PD 1P3D mean ITL below DP (itl)", "itl"),
        (" | this session", ""),
    ):
        said = said.replace(many, few)
    return said


def _baseline(case: Case) -> Baseline:
    cells: dict[str, dict[str, CellBaseline]] = {}
    factors = case.nights or QUIET
    for name, lengths in itertools.product(NAMES, case.cells):
        there = {m: _named(case.usual, m, name, lengths) for m in METRICS}
        known = {m: run[0] for m, run in there.items() if run}
        nights = []
        first = case.first_night.get(name, 0)
        for place, session in enumerate(SESSIONS[first:] if known else ()):
            factor = factors[place % len(factors)] if name == "1p3d" else 1.0
            values = {m: value * factor for m, value in known.items()}
            nights.append(Night(session=session, values=values))
        if nights:
            cells.setdefault(name, {})[LENGTHS[lengths]] = CellBaseline(nights=tuple(nights))
    sessions = tuple(Source(id=session) for session in SESSIONS)
    return Baseline(system="s", suite="sweep", source="b", sessions=sessions, cells=cells)
