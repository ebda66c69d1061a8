"""Claims by what a session measured, lost and did not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.claims import judge_claim
from pytest_pdserve.session.session import Session
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.system import System
from tests.support.claims import claim
from tests.support.sessions import CELL
from tests.support.sessions import LONGER
from tests.support.sessions import cell_in
from tests.support.sessions import session_in

MakeRecord = Callable[..., Record]
MakeSession = Callable[..., Session]
MakeCell = Callable[..., Cell]


@pytest.fixture
def make_session(tmp_path: Path, p5_efa: System) -> MakeSession:
    return partial(session_in, tmp_path, p5_efa)


@pytest.fixture
def make_cell(make_record: MakeRecord, tmp_path: Path) -> MakeCell:
    return partial(cell_in, tmp_path, make_record)


CLAIM = claim(output_lens=[256])


@pytest.fixture
def halved(make_session: MakeSession, make_cell: MakeCell) -> Session:
    """A session whose baseline holds both sides of :data:`CLAIM`, and has it hold."""
    for cell in (make_cell(), make_cell({"mean_itl_ms": 20.0}, topology="dp")):
        make_session().judge(cell)
    return make_session()


@pytest.mark.parametrize(
    ("invalid", "said"),
    [
        (False, "claim not judged: 1p3d ended in an ERROR in this session"),
        (True, f"claim not judged: the run of {CELL} on 1p3d is invalid in this session"),
    ],
    ids=["broken", "invalid"],
)
def test_a_side_that_was_lost_tonight_is_trouble(
    invalid: bool, said: str, halved: Session, make_cell: MakeCell
) -> None:
    if invalid:
        halved.invalid["1p3d", CELL] = make_cell()
    else:
        halved.broken.add("1p3d")
    halved.cells["dp", CELL] = make_cell(topology="dp")
    for metric in ("mean_itl_ms", "decoding_requests"):
        made = replace(CLAIM, relations=(replace(CLAIM.relations[0], metric=metric),))
        with pytest.raises(PdserveError) as raised:
            judge_claim(halved, made)
        assert str(raised.value) == said


def test_an_invalid_cell_loses_no_other_cell_of_its_topology(
    halved: Session, make_cell: MakeCell
) -> None:
    halved.invalid["1p3d", LONGER] = make_cell()
    halved.cells["dp", CELL] = make_cell(topology="dp")
    verdict = judge_claim(halved, CLAIM)
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses == (f"{CELL}: mean_itl_ms of 1p3d was not measured",)


def test_what_was_measured_before_its_topology_broke_is_a_side(
    halved: Session, make_cell: MakeCell
) -> None:
    halved.broken.update(("1p3d", "2p2d"))
    halved.invalid["1p3d", LONGER] = make_cell()
    halved.cells["1p3d", CELL] = make_cell({"mean_itl_ms": 30.0})
    halved.cells["dp", CELL] = make_cell({"mean_itl_ms": 20.0}, topology="dp")
    assert "violated by more than its noise" in judge_claim(halved, CLAIM).misses[0]


def test_a_claim_of_which_one_topology_was_not_run_is_not_asked(
    halved: Session, make_cell: MakeCell
) -> None:
    halved.broken.add("2p2d")
    assert judge_claim(halved, CLAIM).misses == ("1p3d, dp were not run; add --topology all",)
    halved.cells["1p3d", CELL] = make_cell({"mean_itl_ms": 30.0})
    verdict = judge_claim(halved, CLAIM)
    assert verdict.status == "NOT ASKED"
    assert verdict.misses == ("dp was not run; add --topology all",)
    assert [said.status for _, said in halved.claims] == ["NOT ASKED", "NOT ASKED"]


def test_a_side_that_was_not_measured_leaves_the_claim_not_judged(
    make_session: MakeSession, make_cell: MakeCell
) -> None:
    session = make_session()
    session.cells["1p3d", CELL] = make_cell()
    session.cells["dp", LONGER] = make_cell(topology="dp")
    verdict = judge_claim(session, CLAIM)
    assert verdict.status == "NOT JUDGED"
    assert verdict.misses == (f"{CELL}: mean_itl_ms of dp was not measured",)


def test_a_voided_metric_is_no_side(make_session: MakeSession, make_cell: MakeCell) -> None:
    note = Finding(check="chunks", severity="note", message="", voids=("mean_itl_ms",))
    session = make_session()
    session.cells["1p3d", CELL] = make_cell(findings=(note,))
    session.cells["dp", CELL] = make_cell(topology="dp")
    assert judge_claim(session, CLAIM).misses == (
        f"{CELL}: mean_itl_ms of 1p3d is void in this cell because of a sanity finding",
    )
