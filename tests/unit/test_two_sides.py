"""Two sides as a whole: what differs between them, and what the command ends with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_pdserve.judge.two_sides import compare
from pytest_pdserve.values.measurements import Facts
from pytest_pdserve.values.measurements import MeasuredRun
from pytest_pdserve.values.measurements import Measurements
from pytest_pdserve.values.workload import Workload

LOAD = Workload(input_len=512, output_len=256, num_prompts=100)
LONGER = replace(LOAD, input_len=1024)


def run(ttft: float = 100.0, load: Workload = LOAD, **fields: Any) -> MeasuredRun:
    made = MeasuredRun(
        where="here",
        topology="1p3d",
        workload=load,
        workload_id=load.id,
        evidence=("session", "start 0"),
        client="vllm",
        metrics={"mean_ttft_ms": ttft, "completed": 100.0},
    )
    return replace(made, **fields)


def side(*runs: MeasuredRun) -> Measurements:
    return Measurements(name="side", what="session", evidence="start", runs=runs)


def found(a: Facts, b: Facts) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    comparison = compare(side(run(facts=a)), side(run(facts=b)))
    return [(each.group, each.name, each.a, each.b) for each in comparison.differences]


@pytest.mark.parametrize("group", ["versions", "flags", "settings", "hardware", "client"])
def test_what_differs_is_named_with_both_values(group: str) -> None:
    a, b = {group: {"x": "1", "y": "2"}}, {group: {"x": "1", "y": "3"}}
    assert found(a, b) == [(group, "y", ("2",), ("3",))]


def test_what_one_side_does_not_say_differs() -> None:
    a, b = {"versions": {"vllm": "1"}}, {"versions": {"nixl": "2"}}
    assert found(a, b) == [("versions", "vllm", ("1",), ()), ("versions", "nixl", (), ("2",))]


def test_a_group_that_one_side_lacks_is_one_line() -> None:
    facts: Facts = {"versions": {"vllm": "1"}, "hardware": {"cpu": "Xeon", "gpu": "H200"}}
    comparison = compare(side(run(facts=facts)), side(run(facts={"versions": {"vllm": "1"}})))
    assert comparison.differences == ()
    assert comparison.same_facts == 1
    assert "hardware of B" in comparison.not_known


def test_settings_that_flags_say_finer_are_not_said_twice() -> None:
    a: Facts = {"flags": {"decode --x": "1"}, "settings": {"model.serve_args": "[1]", "env.A": "1"}}
    b: Facts = {"flags": {"decode --x": "2"}, "settings": {"model.serve_args": "[2]", "env.A": "2"}}
    assert [name for _, name, _, _ in found(a, b)] == ["decode --x"]
    without = {"settings": a["settings"]}, {"settings": b["settings"]}
    assert [name for _, name, _, _ in found(*without)] == ["model.serve_args", "env.A"]


def test_another_topology_is_what_differs() -> None:
    comparison = compare(side(run()), side(run(topology="dp")))
    assert [(d.name, d.a, d.b) for d in comparison.differences] == [
        ("topology", ("1p3d",), ("dp",))
    ]
    assert comparison.exit_code == 0


def test_a_side_of_several_versions_says_so() -> None:
    runs = [
        run(evidence=("s", str(n)), facts={"versions": {"vllm": version}})
        for n, version in enumerate(("0.15.1", "0.15.2"))
    ]
    assert compare(side(*runs), side(run())).a.notes == ("mixed: vllm 0.15.1, 0.15.2",)


def test_a_metric_that_is_not_known_here_is_named() -> None:
    said = compare(side(run(metrics={"mean_ttft_ms": 1.0, "of_a_plugin": 1.0})), side(run()))
    assert said.a.notes == ("unknown metrics, left out: of_a_plugin",)


def test_an_invalid_run_is_named_and_not_counted() -> None:
    bad = run(900.0, evidence=("session", "start 1"), invalid=("completed: 3 of 4",))
    comparison = compare(side(run()), side(run(), bad))
    assert comparison.b.notes == ("invalid, left out: here: completed: 3 of 4",)
    assert (comparison.b.runs, comparison.b.counted) == (2, 1)
    assert comparison.cells[0].metrics[0].b.value == 100.0


@pytest.mark.parametrize(
    ("b", "limit", "partial", "code"),
    [
        ((run(106.0), run(load=LONGER)), None, False, 0),
        ((run(106.0), run(load=LONGER)), 0.05, False, 1),
        ((run(104.0), run(load=LONGER)), 0.05, False, 0),
        ((run(90.0), run(load=LONGER)), 0.0, False, 0),
        ((run(104.0),), 0.05, False, 6),
        ((run(104.0),), 0.05, True, 0),
        ((run(106.0),), 0.05, False, 1),
        ((run(), run(load=LONGER, invalid=("x: y",))), 0.05, True, 6),
        ((run(), run(load=LONGER, voids={"mean_ttft_ms": "z"})), 0.05, True, 6),
        ((run(), run(load=LONGER, metrics={"completed": 9.0})), 0.05, True, 6),
        ((run(), run(load=LONGER, voids={"mean_ttft_ms": "z"})), None, False, 0),
        ((run(200.0, load=replace(LOAD, num_prompts=7)),), 0.05, False, 6),
        ((run(200.0, invalid=("x: y",)),), None, False, 6),
    ],
    ids=[
        "worse, no limit",
        "worse",
        "worse by less",
        "better",
        "a cell without counterpart",
        "that may lack",
        "worse, and a cell without counterpart",
        "invalid",
        "void",
        "missing",
        "void, no limit",
        "unlike loads",
        "nothing compared",
    ],
)
def test_a_missing_value_is_no_0_where_there_is_a_limit(
    b: tuple[MeasuredRun, ...], limit: float | None, partial: bool, code: int
) -> None:
    a = side(run(), run(load=LONGER))
    assert compare(a, side(*b), fail_worse=limit, partial=partial).exit_code == code


def test_what_is_worse_by_too_much_is_named_the_worst_first() -> None:
    a = side(run(), run(load=LONGER))
    b = side(run(106.0), run(150.0, load=LONGER))
    assert compare(a, b, fail_worse=0.05).too_much == (
        "mean_ttft_ms of 1p3d random-1024-256-n100 is 50.0 % worse, 5 % are allowed",
        "mean_ttft_ms of 1p3d random-512-256-n100 is 6.0 % worse, 5 % are allowed",
    )


def test_unlike_loads_never_fail_a_limit() -> None:
    b = side(run(900.0, load=replace(LOAD, num_prompts=7)))
    comparison = compare(side(run()), b, fail_worse=0.05)
    assert comparison.unlike == ("prompts: 100 | 7",)
    assert comparison.too_much == ()
