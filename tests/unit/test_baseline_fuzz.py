"""Baselines that were changed at random: none makes a bad run pass, none ends in a traceback."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.values.baseline import Key
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.system import System
from tests.support.baseline_files import CELL
from tests.support.baseline_files import CELL_1
from tests.support.baseline_files import SOUND
from tests.support.baseline_files import TEXT
from tests.support.baseline_files import TIMES
from tests.support.baseline_files import at
from tests.support.baseline_files import changed
from tests.support.baseline_files import of_version_1
from tests.support.baseline_files import of_version_2

KEY: Key = ("1p3d", "random-512-256-n4")
TONIGHT = SessionRef(id="tonight", started_at="2026-08-25T10:15:00.000Z")
JUDGED = set(TIMES).intersection(METRICS.times)
SAME = 0.9
"""References of a metric are as they were if so many of its nights are."""
OLD_1, OLD_2 = of_version_1(SOUND), of_version_2(SOUND)

RunsOf = Callable[[float, float], list[Record]]


@pytest.fixture
def runs_of(make_record: Callable[..., Record]) -> RunsOf:
    """A factory of three starts of the cell, so many times worse, with so many failures."""

    def make(worse: float, failed: float) -> list[Record]:
        factor = {"lower": worse, "higher": 1 / worse}
        values = {name: value * factor[METRICS[name].better] for name, value in TIMES.items()}
        metrics = {**values, "completed": 4.0, "failed": failed}
        return [make_record(metrics, repeat=n, start=n, session=TONIGHT) for n in range(3)]

    return make


def judged(folder: Path, system: System, content: str, runs: list[Record]) -> Verdict | None:
    """The verdict of the cell; None where the file has no reference of it, so that it is NEW."""
    source = folder / "baselines" / "p5-efa" / "system.toml"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.with_name("sweep.json").write_text(content)
    judge = SessionJudge(
        system=replace(system, source=str(source)),
        provenance=Provenance(versions={}, host={}, fingerprint="here"),
        nodes_known=True,
        session=TONIGHT,
        runs=folder / "runs",
        state=folder / "state",
        rootdir=folder,
    )
    judge.may_join(KEY)
    judge.judge_topology("1p3d", {KEY: runs})
    return None if judge.is_new(KEY) else judge.judge(KEY, runs)


def metrics_in(verdict: Verdict) -> set[str]:
    return {miss.partition(" ")[0] for miss in verdict.misses}


def in_a_line(error: ConfigError, path: Path) -> None:
    said = str(error)
    assert said.startswith(str(path))
    assert len(said.splitlines()) == 1
    assert len(said) < 1500
    said.encode()


def test_the_sound_baseline_passes_good_runs(
    tmp_path: Path, p5_efa: System, runs_of: RunsOf
) -> None:
    good = judged(tmp_path, p5_efa, TEXT, runs_of(1.0, 0.0))
    assert good is not None
    assert (good.status, good.misses) == ("PASS", ())


def test_the_sound_baseline_names_every_metric_of_bad_runs(
    tmp_path: Path, p5_efa: System, runs_of: RunsOf
) -> None:
    bad = judged(tmp_path, p5_efa, TEXT, runs_of(10.0, 1.0))
    assert bad is not None
    assert bad.status == "FAIL"
    assert metrics_in(bad) == {*JUDGED, "failed"}


def pointers(data: Any, above: str = "") -> Iterator[str]:
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    for key, value in items:
        yield f"{above}/{key}"
        yield from pointers(value, f"{above}/{key}")


NUMBERS = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.sampled_from([0, 1, 1e-300, 1e18, 10**30])
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
Changes = list[tuple[str, Any]]


def changes_of(data: dict[str, Any], cell: str) -> st.SearchStrategy[Changes]:
    """A value that is removed, replaced, copied from elsewhere, or swapped with another."""
    everywhere = tuple(pointers(data))
    # A third of the changes in the cell that is judged, where they may do harm.
    there = tuple(pointer for pointer in everywhere if pointer.startswith(cell))
    above = tuple(pointer for pointer in everywhere if pointer.count("/") < 5)
    place = st.one_of(st.sampled_from(there), st.sampled_from(above), st.sampled_from(everywhere))
    return st.one_of(
        place.map(lambda place: [(place, ...)]),
        st.tuples(place, JSON).map(lambda change: [change]),
        st.tuples(place, st.sampled_from(everywhere)).map(
            lambda p: [(p[0], at(data, p[1]))],
        ),
        st.tuples(place, place)
        .filter(lambda p: not f"{p[0]}/".startswith(f"{p[1]}/"))
        .filter(lambda p: not f"{p[1]}/".startswith(f"{p[0]}/"))
        .map(lambda p: [(p[0], at(data, p[1])), (p[1], at(data, p[0]))]),
    )


def values_of(content: str, cell: str) -> Mapping[str, list[Any]]:
    """The values of the judged cell by metric, in a file of any version that can be read."""
    try:
        found = at(json.loads(content), cell)
    except KeyError:
        return {}
    if "nights" in found:
        nights = [night["values"] for night in found["nights"]]
        return {name: [values.get(name) for values in nights] for name in TIMES}
    return {name: found[name].get("values") or [] for name in found if name in TIMES}


def still_expected(content: str, cell: str) -> set[str]:
    """Metrics whose nights are nearly all as they were: no other change may hide them."""
    sound = values_of(TEXT, CELL)
    return {
        name
        for name, values in values_of(content, cell).items()
        if name in JUDGED
        and statistics.mean(value in values for value in sound[name]) > SAME
        and len(values) == len(sound[name])
    }


def must_fail_a_bad_run(
    folder: Path, system: System, content: str, bad: list[Record], *, cell: str
) -> None:
    """Check that the file is refused, or that bad runs FAIL in all that it still says of the cell.

    :param cell: where in the file the judged cell is.
    """
    try:
        verdict = judged(folder, system, content, bad)
    except ConfigError as error:
        in_a_line(error, folder / "baselines" / "p5-efa" / "sweep.json")
        return
    expected = still_expected(content, cell)
    if verdict is None:
        assert expected == set()
        return
    assert verdict.status == "FAIL"
    assert expected <= metrics_in(verdict)
    verdict.message.encode()


FILE = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FILE
@given(changes_of(SOUND, CELL))
def test_no_change_of_the_file_lets_a_bad_run_pass(
    tmp_path: Path, p5_efa: System, runs_of: RunsOf, changes: Changes
) -> None:
    bad = runs_of(10.0, 1.0)
    must_fail_a_bad_run(tmp_path, p5_efa, changed(*changes), bad, cell=CELL)


@pytest.mark.slow
@FILE
@given(changes_of(OLD_2, CELL))
def test_no_change_of_a_file_of_version_2_lets_a_bad_run_pass(
    tmp_path: Path, p5_efa: System, runs_of: RunsOf, changes: Changes
) -> None:
    bad = runs_of(10.0, 1.0)
    must_fail_a_bad_run(tmp_path, p5_efa, changed(*changes, of=OLD_2), bad, cell=CELL)


@pytest.mark.slow
@FILE
@given(changes_of(OLD_1, CELL_1))
def test_no_change_of_a_file_of_version_1_lets_a_bad_run_pass(
    tmp_path: Path, p5_efa: System, runs_of: RunsOf, changes: Changes
) -> None:
    small = replace(p5_efa, sweep=replace(p5_efa.sweep, num_prompts=4))
    bad = runs_of(10.0, 1.0)
    must_fail_a_bad_run(tmp_path, small, changed(*changes, of=OLD_1), bad, cell=CELL_1)


@FILE
@given(st.binary(max_size=30), st.integers(0, len(TEXT) - 1))
def test_bytes_written_over_the_file_are_refused_or_read(
    tmp_path: Path, p5_efa: System, junk: bytes, place: int
) -> None:
    path = tmp_path / "sweep.json"
    content = TEXT.encode()
    path.write_bytes(content[:place] + junk + content[place + len(junk) :])
    try:
        load_baseline(path, system=p5_efa)
    except ConfigError as error:
        in_a_line(error, path)
