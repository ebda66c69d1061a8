"""What a session is held against: how far back claims look for partners of its runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.selection import find_session
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.record import Record
from tests.support.stored_nights import Shelf


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    monkeypatch.chdir(tmp_path)
    return Shelf(folder=tmp_path, make_record=make_record)


def session_judge(shelf: Shelf, tonight: str) -> SessionJudge:
    return SessionJudge(
        system=shelf.system,
        provenance=Provenance(
            versions={"vllm": "0.15.1", "nixl": "0.10.1"}, host={}, fingerprint="0123456789ab"
        ),
        nodes_known=True,
        session=find_session(shelf.runs, shelf.system, tonight).session,
        runs=shelf.runs,
        state=shelf.folder,
        most_runs=4,
    )


def test_a_claim_has_the_newest_pairs_however_far_others_made_history_reach(shelf: Shelf) -> None:
    shelf.nights(2, cells=("1p3d", "dp", "2p4d"))
    assert main(["baseline", "propose", "--system", "p5-efa"]) == 0
    assert main(["baseline", "accept", "--system", "p5-efa", "--approver", "Ada"]) == 0
    runs = shelf.nights(13, first=3)
    measured = session_judge(shelf, runs[-1])
    assert len(measured.history.nights) == 12  # in search of 2p4d
    said = {"id": "itl", "text": "t", "kind": "below", "metric": "mean_itl_ms", "panel": "decode"}
    where = {"subject": "1p3d", "others": ["dp"], "reason": "r", "source": "s"}
    claim = Claim.from_toml({**said, **where}, source="claims.toml")
    tonight = find_session(shelf.runs, shelf.system, runs[-1]).runs()
    known = measured.known(claim, tonight)
    assert known.here == "this session and 6 nights before"
