"""The judge asked about nights of cells and topologies whose verdicts are known.

Nothing of ``pytest_pdserve`` is changed by it: :mod:`tests.unit.test_mutations` imports it anew for
each fault that it plants, so that the names below are those of the faulty judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pytest_pdserve.judge.cells import MetricVerdict
from pytest_pdserve.judge.cells import References
from pytest_pdserve.judge.cells import judge_metrics
from pytest_pdserve.judge.cells import missing_metrics
from pytest_pdserve.judge.cells import night_metrics
from pytest_pdserve.judge.cells import references_of
from pytest_pdserve.judge.cells import topology_night_metrics
from pytest_pdserve.judge.cells import topology_references
from pytest_pdserve.judge.cells import wrong_counts
from pytest_pdserve.judge.expected import Covers
from pytest_pdserve.judge.expected import ExpectedChanges
from pytest_pdserve.judge.limits import as_change
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.limits import signed_log
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.nightly import false_alarms
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.workload import Workload

NOTHING_IS_EXPECTED = ExpectedChanges().covers_for_cell("", ())

MakeRecord = Callable[..., Record]
Run = Mapping[str, float | None]
"""How much worse a run is, as a fraction, by metric; ``all`` is every metric; None is no value."""
WORKLOADS = tuple(Workload(input_len=i, output_len=256, num_prompts=4) for i in (512, 1024, 2048))
CELLS: tuple[Key, ...] = tuple(("1p3d", workload.id) for workload in WORKLOADS)
LEVELS = {"mean_itl_ms": 10.0, "output_throughput": 500.0}
SPREADS = {"mean_itl_ms": 0.001, "output_throughput": 0.02}
"""Of the baseline's nights, in logarithms: the limits are the floor, 4 %, and 10.5 %."""
SHORT = {"mean_itl_ms": "itl", "output_throughput": "rate"}
FLOORS = {name: METRICS[name].floor for name in METRICS.times}
COUNTS = {"completed": 4.0, "kv_transfers": 4.0}
FINE: Run = {}
Steps = Sequence[Sequence[float]]
"""Of each cell: how much worse it was in its nights, in turn, in spreads."""
EVEN: Steps = ((-1.0, 0.0, 1.0),) * 3
UNEVEN: Steps = ((15, 15, 0, 0, 0), (15, 0, 15, 0, 0), (0, 15, 15, 0, 0))
"""Each cell is worse by 1 % in two of five nights, and their median in three of five."""


def value(metric: str, worse: float, *, key: Key = CELLS[0]) -> float:
    """The metric of a run of a cell that is worse by a fraction; cells differ in their level."""
    level = LEVELS[metric] * (1 + CELLS.index(key))
    return level / (1 + worse) if metric == "output_throughput" else level * (1 + worse)


def baseline_of(
    nights: int = 20,
    *,
    starts: Sequence[int] = (3, 3, 3),
    steps: Steps = EVEN,
    lacking: str = "",
) -> Baseline:
    """Three cells of one topology.

    :param starts: of the nights of each cell.
    :param lacking: a metric that the first cell's first night does not have.
    """
    cells = {}
    for key, pattern, count in zip(CELLS, steps, starts, strict=True):
        made = []
        for night in range(nights):
            step = pattern[night % len(pattern)] if nights >= len(pattern) else 0.0
            worse = {name: math.expm1(step * SPREADS[name] / 1.4826) for name in LEVELS}
            values = {name: value(name, worse[name], key=key) for name in LEVELS}
            if lacking and key == CELLS[0] and night == 0:
                del values[lacking]
            made.append(Night(session=f"n{night}", starts=count, values=values))
        cells[key[1]] = CellBaseline(counts=COUNTS, nights=tuple(made))
    sessions = tuple(Source(id=f"n{night}") for night in range(nights))
    return Baseline(
        system="s", suite="sweep", source="b.json", sessions=sessions, cells={"1p3d": cells}
    )


def shown(verdicts: Sequence[MetricVerdict]) -> str:
    """Verdicts in the order of the judge, with all that it says of them."""
    said = []
    for verdict in verdicts:
        seen = verdict.tonight
        limit = math.expm1(seen.reference.limit)
        name = SHORT[verdict.metric]
        parts = [f"{name} {verdict.status} {math.expm1(seen.change):+.1%} of {limit:.1%}"]
        parts += ["again"] if seen.wants_run else []
        parts += ["provisional"] if seen.reference.is_provisional else []
        parts += [f"after {verdict.nights} nights"] if verdict.nights else []
        parts += ["better"] if verdict.is_better else []
        parts += [f"expected by {verdict.expected.owner}"] if verdict.expected else []
        said.append(", ".join(parts))
    return "; ".join(said)


class KnownCases:
    """Asks the judge about nights whose verdicts are known."""

    def __init__(self, make_record: MakeRecord) -> None:
        self.make = make_record

    def run(self, worse: Run, *, key: Key = CELLS[0], start: int | None = 0) -> Record:
        """A run that is worse in some metrics."""
        workload = next(each for each in WORKLOADS if each.id == key[1])
        metrics = {
            name: value(name, fraction, key=key)
            for name in LEVELS
            if (fraction := worse.get(name, worse.get("all", 0.0))) is not None
        }
        record = self.make(topology=key[0], workload=workload, start=start)
        return replace(record, metrics={**metrics, **COUNTS}, findings=())

    def cell(
        self,
        *runs: Run,
        before: Sequence[Sequence[Run]] = (),
        nights: int = 20,
        starts: int = 3,
        enough: bool = True,
        covers: Covers = NOTHING_IS_EXPECTED,
    ) -> str:
        """What is said of the first cell.

        :param before: earlier nights, newest first.
        :param enough: whether one night may FAIL.
        """
        baseline = baseline_of(nights, starts=(starts,) * 3)
        cell = baseline.cell(CELLS[0])
        assert cell is not None
        references = references_of(cell, FLOORS)
        tonight, *past = (
            night_metrics([self.run(run) for run in night], references) for night in (runs, *before)
        )
        verdicts = judge_metrics(tonight, past, one_night_is_enough=enough, covers=covers)
        return shown(verdicts)

    def topology(
        self,
        *starts: Mapping[int, float | None],
        before: Sequence[Mapping[int, float | None]] = (),
        numbered: bool = True,
        **baseline: Any,
    ) -> str:
        """What is said of the median over three cells.

        :param starts: of each start of tonight, how much worse each cell is, by its place; None of
            a cell without ITL.
        :param before: the same of earlier nights, in each of which three starts were alike.
        :param numbered: whether it is known which start a run had.
        :param baseline: as of :func:`baseline_of`.
        """
        known = baseline_of(**baseline)
        cells: dict[Key, References] = {
            key: references_of(cell, FLOORS)
            for key in CELLS
            if (cell := known.cell(key)) is not None
        }
        references = topology_references(known, cells, FLOORS)

        def seen(runs: Sequence[Mapping[int, float | None]]) -> Mapping[str, MetricNight]:
            tonight: dict[Key, list[Record]] = {}
            for start, worse in enumerate(runs):
                for place, fraction in worse.items():
                    key, number = CELLS[place], start if numbered else None
                    each: Run = {"all": fraction} if fraction is not None else {"mean_itl_ms": None}
                    tonight.setdefault(key, []).append(self.run(each, key=key, start=number))
            return topology_night_metrics(tonight, cells, references)

        verdicts = judge_metrics(
            seen(starts),
            [seen([night] * 3) for night in before],
            one_night_is_enough=True,
            covers=NOTHING_IS_EXPECTED,
        )
        return shown(verdicts)

    def cells(self) -> dict[str, Callable[[], str]]:
        """Cases of one cell."""
        far, near = {"mean_itl_ms": 0.10}, {"mean_itl_ms": 0.032}
        within, edge = {"mean_itl_ms": 0.02}, {"mean_itl_ms": 0.0397}
        better = {"mean_itl_ms": -0.10}
        entry = ExpectedChange(until="2026-11-27", owner="ann", reason="r", max_worse=0.11)
        changes = ExpectedChanges(entries=(entry,), today="2026-11-27")
        covers = changes.covers_for_cell("1p3d", ("512-256",))
        return {
            "as the baseline": lambda: self.cell(FINE),
            "within two thirds of the limit": lambda: self.cell(within),
            "one run beyond": lambda: self.cell(far),
            "two runs beyond": lambda: self.cell(far, far),
            "the second run was fine": lambda: self.cell(far, within),
            "the third run was fine": lambda: self.cell(far, far, within),
            "three runs beyond the limit": lambda: self.cell(far, near, far),
            "the median is within the limit": lambda: self.cell(far, near, near),
            "just within the limit": lambda: self.cell(edge, edge, edge),
            "last night too": lambda: self.cell(near, near, near, before=[[near] * 3]),
            "last night too, one run": lambda: self.cell(near, before=[[near] * 3]),
            "the night before last": lambda: self.cell(
                near, near, near, before=[[FINE], [far] * 3]
            ),
            "last night without the metric": lambda: self.cell(
                near, near, near, before=[[{"mean_itl_ms": None}], [near] * 3]
            ),
            "for three nights": lambda: self.cell(far, far, far, before=[[far] * 3, [near] * 3]),
            "one night is not enough": lambda: self.cell(far, far, far, enough=False),
            "one is not enough, two are": lambda: self.cell(far, before=[[far] * 3], enough=False),
            "the noisy metric": lambda: self.cell(*[{"output_throughput": 0.13}] * 3),
            "the noisy metric, beyond": lambda: self.cell(*[{"output_throughput": 0.2}] * 3),
            "both metrics": lambda: self.cell(*[{"all": 0.2}] * 3),
            "better once": lambda: self.cell(better),
            "better for three nights": lambda: self.cell(better, before=[[better]] * 2),
            "better in one of three nights": lambda: self.cell(better, before=[[FINE], [FINE]]),
            "better in two of four nights": lambda: self.cell(
                better, before=[[better], [FINE], [FINE], [FINE]]
            ),
            "better in two of three nights": lambda: self.cell(better, before=[[FINE], [better]]),
            "no better than the limit": lambda: self.cell(
                {"mean_itl_ms": -0.035}, before=[[{"mean_itl_ms": -0.035}]] * 2
            ),
            "fourteen nights": lambda: self.cell({"mean_itl_ms": 0.07}, nights=14),
            "fifteen nights": lambda: self.cell({"mean_itl_ms": 0.07}, nights=15),
            "one night of one start": lambda: self.cell({"mean_itl_ms": 0.1}, nights=1, starts=1),
            "two nights of one start": lambda: self.cell({"mean_itl_ms": 0.1}, nights=2, starts=1),
            "three nights of one start": lambda: self.cell(
                {"mean_itl_ms": 0.1}, nights=3, starts=1
            ),
            "one night of three starts": lambda: self.cell({"mean_itl_ms": 0.1}, nights=1),
            "expected": lambda: self.cell(far, far, far, covers=covers),
            "more than expected": lambda: self.cell(*[{"mean_itl_ms": 0.12}] * 3, covers=covers),
        }

    def topologies(self) -> dict[str, Callable[[], str]]:
        """Cases of a topology's median."""
        fine, worse, far = ({place: x for place in range(3)} for x in (0.0, 0.03, 0.1))
        return {
            "topology: as the baseline": lambda: self.topology(fine),
            "topology: worse": lambda: self.topology(worse),
            "topology: worse in three starts": lambda: self.topology(worse, worse, worse),
            "topology: worse for two nights": lambda: self.topology(
                worse, worse, worse, before=[worse]
            ),
            "topology: beyond the cells' floors": lambda: self.topology(far, far, far),
            "topology: one cell": lambda: self.topology({**fine, 1: 0.5}),
            "topology: two cells": lambda: self.topology({**fine, 1: 0.5, 2: 0.06}),
            "topology: a start of two cells": lambda: self.topology(far, {0: 0.1, 1: 0.1}, far),
            "topology: two cells were measured": lambda: self.topology({0: 0.0, 2: 0.1}),
            "topology: one cell was measured": lambda: self.topology({0: 0.1}),
            "topology: fourteen nights": lambda: self.topology(worse, nights=14),
            "topology: one night of one start in one cell": lambda: self.topology(
                far, nights=1, starts=(3, 1, 3)
            ),
            "topology: uneven nights": lambda: self.topology(
                {place: 0.01 for place in range(3)}, steps=UNEVEN
            ),
            "topology: a night lacks the metric": lambda: self.topology(
                worse, lacking="mean_itl_ms"
            ),
            "topology: a cell lacks the metric": lambda: self.topology({**worse, 1: None}),
            "topology: starts that nobody knows": lambda: self.topology(
                worse, fine, numbered=False
            ),
        }

    def faults(self) -> dict[str, Callable[[], str]]:
        """Cases of counts and of what a run lacks."""
        cell = baseline_of().cell(CELLS[0])
        assert cell is not None
        references, sound = references_of(cell, FLOORS), self.run(FINE)
        void = Finding(check="c", severity="note", message="m", voids=("mean_itl_ms",))
        lost = Finding(check="c", severity="note", message="m", voids=("kv_transfers",))

        def with_value(name: str, number: float | None) -> Record:
            others = {key: known for key, known in sound.metrics.items() if key != name}
            return replace(sound, metrics=others if number is None else {**others, name: number})

        def missing(*runs: Record) -> str:
            return " | ".join(missing_metrics(runs, references))

        def counts(*runs: Record) -> str:
            return " | ".join(wrong_counts(runs, cell))

        return {
            "counts: as the baseline": lambda: counts(sound, sound),
            "counts: another": lambda: counts(sound, with_value("completed", 3.0)),
            "counts: none": lambda: counts(with_value("kv_transfers", None)),
            "counts: void": lambda: counts(
                replace(with_value("kv_transfers", None), findings=(lost,))
            ),
            "missing: nothing": lambda: missing(sound, sound),
            "missing: in one run": lambda: missing(sound, with_value("mean_itl_ms", None)),
            "missing: zero": lambda: missing(with_value("mean_itl_ms", 0.0)),
            "missing: void": lambda: missing(replace(sound, findings=(void,))),
            "seen: without the metric": lambda: ", ".join(
                night_metrics([with_value("mean_itl_ms", None)], references)
            ),
            "seen: zero": lambda: ", ".join(
                night_metrics([with_value("mean_itl_ms", 0.0)], references)
            ),
            "seen: endless": lambda: ", ".join(
                night_metrics([with_value("mean_itl_ms", math.inf)], references)
            ),
            "seen: void": lambda: ", ".join(
                night_metrics([replace(sound, findings=(void,))], references)
            ),
            "a value of a distance": lambda: " ".join(
                f"{as_value(signed_log(2.0, better), better):g}" for better in ("lower", "higher")
            ),
            "a change of a distance": lambda: " ".join(
                f"{as_change(0.1, better):.3f}" for better in ("lower", "higher")
            ),
            "no distance of zero": lambda: f"{signed_log(0.0, 'lower')}",
            "no distance without end": lambda: f"{signed_log(math.inf, 'lower')}",
        }

    def alarms(self) -> dict[str, Callable[[], str]]:
        """Cases of alarms that go away."""
        reference = next(iter(references_of(_first_cell(), FLOORS).values()))
        fine, alarm, near = (
            MetricNight(reference=reference, changes=(math.log1p(worse),) * 3)
            for worse in (0.0, 0.1, 0.032)
        )
        two = {"a": alarm, "b": alarm}
        cleared = replace(alarm, changes=(*alarm.changes, 0.0))
        nothing = replace(alarm, changes=())
        nights: dict[str, list[Mapping[str, MetricNight]]] = {
            "none": [{"a": fine}, {"a": fine}],
            "one": [{"a": alarm}, {"a": fine}],
            "two": [{"a": alarm}, {"a": fine}, {"a": alarm}, {"a": fine}],
            "that lasts": [{"a": alarm}, {"a": alarm}],
            "that is suspicious next": [{"a": alarm}, {"a": near}, {"a": fine}],
            "tonight": [{"a": fine}, {"a": alarm}],
            "not measured next": [{"a": alarm}, {"b": fine}, {"a": fine}],
            "never measured again": [{"a": alarm}, {"b": fine}],
            "of another metric": [{"a": alarm, "b": fine}, {"a": alarm, "b": fine}],
            "of two metrics": [two, {"a": fine, "b": fine}],
            "suspicious only": [{"a": near}, {"a": fine}],
            "cleared the same night": [{"a": cleared}, {"a": fine}],
            "without a value next": [{"a": alarm}, {"a": nothing}],
        }
        return {f"alarms: {name}": partial(_counted, seen) for name, seen in nights.items()}


def _counted(nights: Sequence[Mapping[str, MetricNight]]) -> str:
    return str(false_alarms(nights))


def _first_cell() -> CellBaseline:
    cell = baseline_of().cell(CELLS[0])
    assert cell is not None
    return cell
