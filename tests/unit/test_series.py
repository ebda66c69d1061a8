"""Simulated nights are judged as the same nights would be as records, metric by metric."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import numpy as np
import pytest

from pytest_pdserve.judge.cells import NightMetrics
from pytest_pdserve.judge.cells import References
from pytest_pdserve.judge.cells import judge_metrics
from pytest_pdserve.judge.cells import night_metrics
from pytest_pdserve.judge.cells import references_of
from pytest_pdserve.judge.cells import topology_night_metrics
from pytest_pdserve.judge.cells import topology_references
from pytest_pdserve.judge.limits import as_value
from pytest_pdserve.judge.nightly import MetricNight
from pytest_pdserve.judge.nightly import false_alarms
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.results.nights import night_of_runs
from pytest_pdserve.results.nights import source_of
from pytest_pdserve.study.noise import SIMULATED
from pytest_pdserve.study.noise import Floats
from pytest_pdserve.study.noise import Layout
from pytest_pdserve.study.noise import Noise
from pytest_pdserve.study.noise import draw
from pytest_pdserve.study.series import System
from pytest_pdserve.study.trials import Change
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.rules import RULE
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import Judgement
from pytest_pdserve.values.workload import Workload

SMALL = Layout(topologies=2, cells_each=3)
NIGHTS = 60
ROUGH = Noise(
    name="rough",
    about="Noisy enough for every verdict.",
    night_share=0.3,
    slowed_nights=0.02,
    slow_starts=0.2,
    scale=2.0,
)
FLOORS = {name: METRICS[name].floor for name in METRICS.times}
Runs = dict[Key, list[Record]]


@dataclass
class Said:
    """What was said of one night; what is absent is a PASS."""

    cells: dict[int, Status] = field(default_factory=dict)
    topologies: dict[int, Status] = field(default_factory=dict)
    reruns: int = 0
    topology_reruns: int = 0
    better: set[tuple[str, int]] = field(default_factory=set)


@dataclass
class Records:
    """The same nights as records, judged by judge.cells without a shortcut."""

    make: Callable[..., Record]
    baseline: Baseline = field(
        default_factory=lambda: Baseline(system="s", suite="sweep", source="")
    )
    past: list[Runs] = field(default_factory=list)
    """Newest first."""

    def run(self, draws: Floats, cell: int, *, night: int, start: int) -> Record:
        log = draws[start, cell]
        return self.make(
            session=SessionRef(id=f"night{night}", simulated_night=night),
            topology=f"t{cell // SMALL.cells_each}",
            workload=Workload(input_len=512 + cell, output_len=256, num_prompts=4),
            start=start,
            metrics={
                name: as_value(float(log[place]), METRICS[name].better)
                for place, name in enumerate(SIMULATED)
            },
        )

    def begin(self, draws: Floats, starts: int) -> None:
        runs: Runs = {}
        for cell in range(SMALL.cells):
            made = [self.run(draws, cell, night=0, start=start) for start in range(starts)]
            runs[made[0].topology, made[0].workload.id] = made
            self.join(made)
        self.past = [runs]

    def join(self, runs: list[Record]) -> None:
        night = night_of_runs(runs)
        assert night is not None
        key = (runs[0].topology, runs[0].workload.id)
        self.baseline = self.baseline.with_night(key, night, {}, source_of(runs[0]))

    @property
    def references(self) -> dict[Key, References]:
        cells = {key: self.baseline.cell(key) for key in self.baseline.keys}
        return {key: references_of(cell, FLOORS) for key, cell in cells.items() if cell}

    def judge(self, draws: Floats, night: int) -> Said:
        said, references = Said(), self.references
        cells = list(references)
        tonight: Runs = {}
        for cell, key in enumerate(cells):
            tonight[key] = [self.run(draws, cell, night=night, start=0)]
        stay = self.alarms_stay(references)
        for cell, (key, runs) in enumerate(tonight.items()):
            while any(seen.wants_run for seen in night_metrics(runs, references[key]).values()):
                runs.append(self.run(draws, cell, night=night, start=len(runs)))
                said.reruns += 1
            history = [night_metrics(there[key], references[key]) for there in self.past]
            status, better = verdict_of(night_metrics(runs, references[key]), history, stay)
            said.cells.update({cell: status} if status is not Status.PASS else {})
            said.better.update({("cell", cell)} if better else ())
        for number in range(SMALL.topologies):
            there = self.of_topology(number, references)
            while any(seen.wants_run for seen in there(tonight).values()):
                mine = SMALL.cells_of(number)
                start = 1 + max(run.start or 0 for c in mine for run in tonight[cells[c]])
                for cell in mine:
                    tonight[cells[cell]].append(self.run(draws, cell, night=night, start=start))
                    said.topology_reruns += 1
            status, better = verdict_of(there(tonight), [there(runs) for runs in self.past], stay)
            said.topologies.update({number: status} if status is not Status.PASS else {})
            said.better.update({("topology", number)} if better else ())
        for cell, runs in enumerate(tonight.values()):
            if cell not in said.cells and cell // SMALL.cells_each not in said.topologies:
                self.join(runs[:1])
        self.past = [tonight, *self.past][: RULE.false_alarm_nights]
        return said

    def of_topology(
        self, number: int, references: Mapping[Key, References]
    ) -> Callable[[Runs], NightMetrics]:
        mine = {key: there for key, there in references.items() if key[0] == f"t{number}"}
        of_it = topology_references(self.baseline, mine, FLOORS)
        return lambda runs: topology_night_metrics(runs, mine, of_it)

    def alarms_stay(self, references: Mapping[Key, References]) -> bool:
        topologies = [self.of_topology(n, references) for n in range(SMALL.topologies)]

        def seen(runs: Runs) -> Iterator[tuple[object, MetricNight]]:
            for key, there in references.items():
                for name, metric in night_metrics(runs[key], there).items():
                    yield (key, name), metric
            for number, topology in enumerate(topologies):
                for name, metric in topology(runs).items():
                    yield (number, name), metric

        return false_alarms([dict(seen(runs)) for runs in reversed(self.past)]) < RULE.false_alarms


def verdict_of(seen: NightMetrics, past: Sequence[NightMetrics], stay: bool) -> tuple[Status, bool]:
    verdicts = judge_metrics(seen, past, one_night_is_enough=stay, covers=lambda *_: None)
    found = {verdict.status for verdict in verdicts}
    order = (Status.FAIL, Status.SUSPICIOUS, Status.PASS)
    return next(s for s in order if s in found), any(v.is_better for v in verdicts)


Pair = tuple[Said, Said]


def judged_twice(make: Callable[..., Record], starts: int, seed: int) -> list[Pair]:
    """What is said of the same nights by arrays and by records, night by night."""
    rng = np.random.default_rng(seed)
    draws = draw(ROUGH, rng, layout=SMALL, baseline=1, nights=NIGHTS)
    worse = Change(size=0.12, cells=(0,))
    better = Change(size=-0.12, cells=SMALL.cells_of(1))
    draws[30:36] = [worse.planted(night) for night in draws[30:36]]
    slower = Change(size=0.08, cells=SMALL.cells_of(1))
    draws[40:46] = [better.planted(night) for night in draws[40:46]]
    draws[50:53] = [slower.planted(night) for night in draws[50:53]]
    system, records, pairs = System.new(SMALL, draws[0], starts=starts), Records(make), []
    records.begin(draws[0], starts)
    for number in range(1, len(draws)):
        night = system.judge(draws[number])
        said = Said(
            cells=dict(night.cells),
            topologies=dict(night.topologies),
            reruns=night.reruns,
            topology_reruns=night.topology_reruns,
            better={(scope, place) for scope, place, _ in system.better(night.runs)},
        )
        pairs.append((said, records.judge(draws[number], number)))
        system = system.after(night)
    return pairs


@pytest.mark.slow
@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("starts", [3, 1], ids=["three first starts", "one first start"])
@pytest.mark.parametrize("seed", [1, 2])
def test_arrays_say_of_every_night_what_records_say(
    starts: int, seed: int, make_record: Callable[..., Record]
) -> None:
    for night, (by_arrays, by_records) in enumerate(judged_twice(make_record, starts, seed), 1):
        assert (night, by_arrays) == (night, by_records)


@pytest.mark.slow
def test_the_nights_that_are_compared_have_every_verdict(
    make_record: Callable[..., Record],
) -> None:
    nights = [said for said, _ in judged_twice(make_record, 3, 1)]
    assert {status for said in nights for status in said.cells.values()} == {
        Status.SUSPICIOUS,
        Status.FAIL,
    }
    assert any(said.topologies for said in nights)
    assert any(said.topology_reruns for said in nights)
    assert {scope for said in nights for scope, _ in said.better} == {"cell", "topology"}


def draws_of(*slower: float) -> list[Floats]:
    """Nights without noise, on each of which cell 0 is slower in every run."""
    quiet = np.zeros((5, Layout().cells, len(SIMULATED)))
    return [Change(size=size, cells=(0,)).planted(quiet) if size else quiet for size in slower]


def quiet_system() -> System:
    return System.with_baseline(Layout(), np.zeros((RULE.max_nights, 40, len(SIMULATED))))


def statuses(system: System, nights: Sequence[Floats]) -> list[Status]:
    said = []
    for draws in nights:
        judged = system.judge(draws)
        said.append(judged.cells.get(0, Status.PASS))
        system = system.after(judged)
    return said


PASS, SUSPICIOUS, FAIL = Status.PASS, Status.SUSPICIOUS, Status.FAIL


@pytest.mark.parametrize(
    ("slower", "said"),
    [
        pytest.param([0.02], [PASS], id="within two thirds of the limit"),
        pytest.param([0.03], [SUSPICIOUS], id="beyond two thirds"),
        pytest.param([0.03, 0.03], [SUSPICIOUS, FAIL], id="beyond two thirds on two nights"),
        pytest.param([0.05], [FAIL], id="beyond the limit"),
        pytest.param(
            [0.05, 0, 0.05, 0, 0, 0.05, 0.05],
            [FAIL, PASS, FAIL, PASS, PASS, SUSPICIOUS, FAIL],
            id="after two alarms that went away",
        ),
    ],
)
def test_a_cell_is_judged_by_its_nights(slower: list[float], said: list[Status]) -> None:
    assert statuses(quiet_system(), draws_of(*slower)) == said


@pytest.mark.parametrize(
    ("slower", "said"),
    [
        pytest.param([0.025, 0.025], [SUSPICIOUS, FAIL], id="beyond its limit, not the cells'"),
        pytest.param([0.05], [FAIL], id="beyond the cells' limit"),
    ],
)
def test_a_topology_is_judged_by_its_nights(slower: list[float], said: list[Status]) -> None:
    system, found = quiet_system(), []
    for size in slower:
        night = system.judge(Change(size=size, cells=Layout().cells_of(0)).planted(draws_of(0)[0]))
        found.append(night.topologies.get(0, PASS))
        system = system.after(night)
    assert found == said


def test_no_cell_of_a_suspicious_topology_joins() -> None:
    system = System.new(Layout(), draws_of(0)[0], starts=3)
    slower = Change(size=0.04, cells=Layout().cells_of(0)).planted(draws_of(0)[0])
    night = system.judge(slower)
    assert (night.cells, night.topologies) == ({}, {0: SUSPICIOUS})
    assert system.after(night).references.joined.tolist() == [1] * 8 + [2] * 32


def test_a_night_makes_no_more_reruns_than_a_session_may() -> None:
    everywhere = Change(size=0.10, cells=range(40)).planted(draws_of(0)[0])
    night = quiet_system().judge(everywhere)
    assert night.reruns + night.topology_reruns == Judgement().max_reruns


def test_a_night_that_is_suspicious_does_not_join() -> None:
    system = System.new(Layout(), draws_of(0)[0], starts=3)
    after = system.after(system.judge(draws_of(0.07)[0]))
    assert after.references.joined.tolist() == [1] + [2] * 39


def test_a_baseline_stops_growing_at_its_most_nights() -> None:
    system = System.new(Layout(), draws_of(0)[0], starts=3)
    for draws in draws_of(*[0] * 25):
        system = system.after(system.judge(draws))
    assert set(system.references.joined.tolist()) == {RULE.max_nights}
