"""Whole nights on the simulated cluster, held against a list of events written beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import date
from datetime import timedelta
from typing import Any

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.nightly.folder import NightlyFolder
from pytest_pdserve.nightly.locking import locked
from pytest_pdserve.nightly.night import Night
from pytest_pdserve.nightly.night import Plan
from pytest_pdserve.nightly.running import SessionCommand
from pytest_pdserve.report.writing import write_report
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.nightly import STEPS
from pytest_pdserve.values.nightly import Event
from pytest_pdserve.values.report import Difference
from tests.support.house import WITHOUT_UNUSED
from tests.support.simulated import SimulatedProject

FIRST = date(2000, 1, 1)
"""Date of night 0 of a simulated system."""
BASELINE = "0.15.1"
"""Version of the baseline: a simulated system has none of its own."""
DP = "sim/dp/*/speed"
"""Key of a regression of all cells of dp."""


@dataclass(kw_only=True)
class Nights:
    """Nights of one project; what each is like is said before it runs."""

    sim: SimulatedProject
    events: list[tuple[int, Event]] = field(default_factory=list)
    codes: dict[int, ExitCode] = field(default_factory=dict)

    def run(
        self, night: int, *, slower: float = 0.0, vllm: str = BASELINE, bad_node: str | None = None
    ) -> None:
        """Do the night of a number.

        :param slower: fraction by which everything is slower than in the baseline.
        :param vllm: version that the report names: a simulated system has none.
        """
        drift = (1 + slower) ** (1 / night) - 1
        bad: dict[str, Any] = {"bad_node": bad_node, "bad_node_factor": 1.1} if bad_node else {}
        self.sim.system(judgement=None, floors=None, night=night, drift_per_night=drift, **bad)

        def session(asked: SessionCommand, _: int) -> int:
            if asked.stack is not None:  # what is simulated is as fast as the stack it stands for
                assert asked.stack == f"vllm=={BASELINE}"
                self.sim.system(night=night, **bad)
                asked = replace(asked, stack=None)
            code = self.sim.pytester.runpytest_inprocess(*asked.argv[3:], *WITHOUT_UNUSED).ret
            report = folder.load_report(asked.report)
            assert report is not None
            changed = Difference(what="vLLM", before=BASELINE, now=vllm)
            differences = (changed,) if vllm != BASELINE else ()
            said = replace(report, versions={"vllm": vllm}, differences=differences)
            write_report(said, asked.report, "json")
            return int(code)

        folder = self.folder
        self._do(night, session)

    def die(self, night: int) -> None:
        """Do a night whose session is killed before it reports anything."""
        self.sim.system(night=night)
        self._do(night, lambda _, __: -9)

    @property
    def folder(self) -> NightlyFolder:
        return NightlyFolder(path=self.sim.path / "nightly" / "sim")

    def _do(self, number: int, session: object) -> None:
        root = self.sim.path
        plan = Plan(
            command=SessionCommand(
                suites=("suites",),
                system="sim",
                report=self.folder.report("json"),
                rootdir=root,
                topology=self.sim.topologies,
            ),
            system=load_system("sim", (root / "baselines",)),
            folder=self.folder,
            history=root / "history",
            runs=root / "runs",
            notify=("true",),
        )
        quiet: list[str] = []
        with locked(self.folder.lock, wait=False) as held:
            night = Night(
                plan=plan,
                night=FIRST + timedelta(days=number),
                lock=held,
                say=quiet.append,
                warn=quiet.append,
                clean=lambda: None,
                session=session,  # type: ignore[arg-type]
            )
            self.codes[number] = night.do(STEPS[:2])
            self.events += [(number, event) for event in night.state.undelivered]
            night.do(("notify",))
            assert night.state.undelivered == ()

    @property
    def told(self) -> list[tuple[int, str, str, int]]:
        """Night, kind, key and first night of every event."""
        return [(n, e.kind, e.key, (e.since - FIRST).days) for n, e in self.events]


@pytest.fixture
def nights(known: SimulatedProject) -> Nights:
    known.topologies = "dp"
    known.sweep = {**known.sweep, "input_lens": [512, 1024]}
    return Nights(sim=known)


@pytest.mark.slow
def test_a_step_is_new_then_still_there_and_gone_after_two_clean_nights(nights: Nights) -> None:
    nights.run(1)
    nights.run(2, slower=0.06, vllm="0.15.2")
    nights.run(3, slower=0.06, vllm="0.15.2")
    nights.run(4, vllm="0.15.3")
    nights.run(5, vllm="0.15.3")
    assert nights.told == [(2, "new", DP, 2), (3, "still", DP, 2), (5, "gone", DP, 2)]
    assert nights.codes == {1: 0, 2: 1, 3: 1, 4: 0, 5: 0}
    new = nights.events[0][1]
    said = "The baseline's stack, run on tonight's nodes too, was not slower there."
    assert said in new.evidence
    assert new.title == "dp as a whole is slower on sim"
    assert new.cells == tuple(f"dp random-{n}-256-n64" for n in (512, 1024))
    assert new.changed == ("vLLM 0.15.1 -> 0.15.2",)
    assert new.confirmed.startswith("output_throughput was worse on each of 3 fresh starts (")
    assert len(new.records) == 6
    assert all((nights.sim.path / path).is_file() for path in new.records)


def test_a_slow_node_is_trouble_with_machines_where_the_baselines_stack_is_slow_too(
    nights: Nights,
) -> None:
    nights.run(1, vllm="0.15.2", bad_node="node2")
    ((_, trouble),) = nights.events
    assert trouble.kind == "cluster-trouble"
    assert trouble.evidence[0].startswith(
        "dp as a whole is slower on sim, and so is the baseline's stack on tonight's nodes: "
    )
    nights.run(2, vllm="0.15.2")
    assert nights.told[1:] == [(2, "cluster-ok", "sim/cluster", 1)]


def _thirty() -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """What each night is like; None for one whose session is killed; night 9 is not there."""
    like: dict[int, Mapping[str, Any] | None] = {night: {} for night in range(1, 31)}
    for night in range(6, 13):
        like[night] = {"slower": 0.06, "vllm": "0.15.2"}
    like[10] = None
    del like[9]
    like[16] = {"bad_node": "node2", "vllm": "0.15.3"}
    like[18] = {"slower": 0.03}
    for night in (21, 22, 23):
        like[night] = {"slower": 0.03}
    yield from like.items()


@pytest.mark.slow
def test_thirty_nights_tell_what_happened_and_nothing_else(nights: Nights) -> None:
    for night, like in _thirty():
        if like is None:
            nights.die(night)
        else:
            nights.run(night, **like)
    assert nights.told == [
        (6, "new", DP, 6),
        (7, "still", DP, 6),
        (8, "still", DP, 6),
        (10, "cluster-trouble", "sim/cluster", 10),
        (11, "still", DP, 6),
        (11, "cluster-ok", "sim/cluster", 10),
        (12, "still", DP, 6),
        (14, "gone", DP, 6),
        (16, "cluster-trouble", "sim/cluster", 16),
        (17, "cluster-ok", "sim/cluster", 16),
        (22, "new", DP, 21),
        (23, "still", DP, 21),
        (25, "gone", DP, 21),
    ]
    changed = {(n, e.kind): e.changed for n, e in nights.events}
    assert changed[6, "new"] == ("vLLM 0.15.1 -> 0.15.2",)
    assert changed[22, "new"] == ()
    red = {night for night, code in nights.codes.items() if code != 0}
    assert red == {6, 7, 8, 10, 11, 12, 16, 22, 23}
