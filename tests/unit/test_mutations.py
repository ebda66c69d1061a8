"""A fault that is planted in the judge's source changes an answer to one of the known cases."""

from __future__ import annotations

import tomllib
from collections.abc import Callable

import pytest

from pytest_pdserve.values.record import Record
from tests.support.faults import RIGHT
from tests.support.faults import ROOT
from tests.support.faults import answers
from tests.support.faults import plant
from tests.support.faults import source_path
from tests.support.faults import wrong_answer

MakeRecord = Callable[..., Record]
FAULTS = tomllib.loads((ROOT / "tests" / "data" / "faults.toml").read_text(encoding="utf-8"))
"""What stands in a module of the judge, and what stands there instead, by module and name."""
NAMES = [(module, name) for module, faults in FAULTS.items() for name in faults]


def test_a_sound_judge_gives_every_known_answer(make_record: MakeRecord) -> None:
    assert dict(answers(make_record)) == RIGHT


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_faulty_judge_gives_a_wrong_answer(
    module: str, name: str, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, faulty = FAULTS[module][name]
    judge = f"pytest_pdserve.judge.{module}"
    source = source_path(judge).read_text(encoding="utf-8")
    assert source.count(sound) == 1, "the fault is planted at one place"
    plant(monkeypatch, judge, source.replace(sound, faulty))
    assert wrong_answer(make_record)


def test_a_planted_fault_is_gone_after_its_test(
    make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = "pytest_pdserve.judge.pairs"
    with monkeypatch.context() as patch:
        plant(
            patch,
            judge,
            source_path(judge).read_text(encoding="utf-8") + "\nraise RuntimeError('planted')\n",
        )
        with pytest.raises(RuntimeError, match="planted"):
            wrong_answer(make_record)
    assert wrong_answer(make_record) == ""


def test_faults_lie_in_every_module_that_judges() -> None:
    counted = {module: len(faults) for module, faults in FAULTS.items()}
    cells, claims = ("limits", "nightly", "cells"), ("pairs", "comparisons", "kinds", "claims")
    assert counted.keys() == {*cells, "expected", *claims, "sides"}
    assert min(counted.values()) >= 10
