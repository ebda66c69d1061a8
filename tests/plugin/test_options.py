"""Options, their ini twins, and what a session that says nothing gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve.backends.attached import AttachedSpec
from pytest_pdserve.plugin.options import settings_of
from pytest_pdserve.session.settings import Settings
from tests.support.house import House
from tests.support.house import only_sentence


def settings(house: House, *arguments: str, ini: str = "") -> Settings:
    """Settings of a session in the house's folder, with nothing in its ini but *ini*."""
    house.pytester.makeini(f"[pytest]\n{ini}\n")
    return settings_of(house.pytester.parseconfig(*arguments))


def test_defaults(house: House) -> None:
    asked = settings(house)
    assert [topology.id for topology in asked.topologies] == ["1p3d"]
    assert asked.system.name == "local-cpu"
    assert asked.project.runs == house.path / "runs"
    assert (asked.repeats, asked.first_runs) == (1, 3)
    assert (asked.record, asked.strict) == (True, False)
    assert (asked.system.cluster.kind, value(asked, "base_url")) == ("local", None)


CASES = [
    pytest.param("topology", "dp,2p2d", "--topology", "topologies", id="topology"),
    pytest.param("system", "stub", "--system", "system", id="system"),
    pytest.param("base_url", "http://h:1", "--pdserve-base-url", "base_url", id="base_url"),
    pytest.param("runs", "elsewhere", "--pdserve-runs", "runs", id="runs"),
    pytest.param("repeats", "3", "--pdserve-repeats", "repeats", id="repeats"),
    pytest.param("first_runs", "2", "--pdserve-first-runs", "first_runs", id="first_runs"),
]
EXPECTED = {"base_url": "http://h:1", "repeats": 3, "first_runs": 2}


def value(asked: Settings, field: str) -> object:
    if field == "topologies":
        return ",".join(topology.id for topology in asked.topologies)
    if field == "system":
        return asked.system.name
    if field == "runs":
        return asked.project.runs.name
    if field == "base_url":
        return asked.system.table("attached", AttachedSpec).base_url
    return getattr(asked, field)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("twin", "text", "flag", "field"), CASES)
def test_ini_twin_says_what_the_flag_says(
    twin: str, text: str, flag: str, field: str, house: House
) -> None:
    by_ini = value(settings(house, ini=f"pdserve_{twin} = {text}"), field)
    assert by_ini == value(settings(house, flag, text), field) == EXPECTED.get(twin, text)


def test_flag_wins_over_ini(house: House) -> None:
    asked = settings(house, "--topology", "route2", ini="pdserve_topology = dp")
    assert [topology.id for topology in asked.topologies] == ["route2"]


@pytest.mark.parametrize(("text", "strict"), [("true", True), ("false", False)])
def test_strict_has_a_typed_twin(text: str, house: House, *, strict: bool) -> None:
    assert settings(house, ini=f"pdserve_strict = {text}").strict is strict
    assert settings(house, "--pdserve-strict", ini=f"pdserve_strict = {text}").strict is True


@pytest.mark.parametrize(("text", "records"), [("true", False), ("false", True)])
def test_no_record_has_a_typed_twin(text: str, house: House, *, records: bool) -> None:
    assert settings(house, ini=f"pdserve_no_record = {text}").record is records
    assert settings(house, "--pdserve-no-record", ini=f"pdserve_no_record = {text}").record is False


def test_all_is_the_articles_five(house: House) -> None:
    asked = settings(house, "--topology", "all")
    assert [t.id for t in asked.topologies] == ["dp", "route2", "route4", "1p3d", "2p2d"]


def test_runs_folder_is_relative_to_where_pytest_was_called(house: House) -> None:
    assert settings(house, "--pdserve-runs", "/somewhere").project.runs == Path("/somewhere")


@pytest.mark.parametrize("by", ["flag", "ini", "default"])
def test_a_history_is_named_by_flag_or_ini_or_lies_in_the_root(by: str, house: House) -> None:
    name = "history" if by == "default" else "elsewhere"
    (house.path / name).mkdir()
    arguments = ("--pdserve-history", name) if by == "flag" else ()
    asked = settings(house, *arguments, ini=f"pdserve_history = {name}" if by == "ini" else "")
    assert asked.project.history == house.path / name


def test_without_a_history_there_is_none(house: House) -> None:
    assert settings(house).project.history is None


@pytest.mark.parametrize("by", ["flag", "ini"])
def test_a_history_that_does_not_exist_is_refused(by: str, house: House) -> None:
    arguments = ("--pdserve-history", "none") if by == "flag" else ()
    with pytest.raises(pytest.UsageError) as raised:
        settings(house, *arguments, ini="pdserve_history = none" if by == "ini" else "")
    assert str(raised.value) == (
        f"--pdserve-history '{house.path / 'none'}': expected a folder; make it with pdserve "
        "history import"
    )


def test_a_projects_own_baselines_come_before_the_shipped(house: House) -> None:
    house.system("local-cpu", sweep={"num_prompts": 5})
    assert settings(house).system.sweep.num_prompts == 5


@pytest.mark.parametrize(
    ("ini", "said"),
    [
        ("pdserve_topology = 2x4", "topology '2x4' is not of the form"),
        ("pdserve_system = moon", "system 'moon' is unknown; known are "),
        ("pdserve_repeats = many", "--pdserve-repeats 'many' is not a whole number of at least 1"),
        (
            "pdserve_first_runs = 0",
            "--pdserve-first-runs '0' is not a whole number of at least 1",
        ),
    ],
)
def test_ini_of_nonsense_is_one_sentence_too(ini: str, said: str, house: House) -> None:
    house.suites("sweep")
    house.ini(ini)
    result = house.pytester.runpytest("suites")
    assert only_sentence(result).startswith(said)


def test_a_project_that_does_not_use_it_sees_nothing(house: House) -> None:
    house.pytester.makepyfile("def test_nothing(): pass")
    result = house.pytester.runpytest("-W", "error")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("pdserve:*")
    result.stdout.no_fnmatch_line("*= pdserve =*")
