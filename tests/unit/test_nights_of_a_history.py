"""Verdicts that look back at nights of a history: the same as from the runs folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.history.exclusions import EXCLUSIONS
from pytest_pdserve.history.exclusions import add_exclusion
from pytest_pdserve.history.importing import import_folders
from pytest_pdserve.history.store import Store
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.session.session_judge import SessionJudge
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.report import Difference
from pytest_pdserve.values.report import Since
from pytest_pdserve.values.sessions import SessionRef
from tests.support.history_shelf import imported
from tests.support.stored_nights import SHORT
from tests.support.stored_nights import Shelf

MakeRecord = Callable[..., Record]
KEY = ("1p3d", SHORT.id)
OLD = {"vllm": "0.15.1", "nixl": "0.10.1"}
NEW = {"vllm": "0.15.2", "nixl": "0.10.1"}
TONIGHT = SessionRef(id="20261120T220000-p5-efa", started_at="2026-11-20T22:00:00.000Z")
SLOW = {"mean_itl_ms": 11.0}


@pytest.fixture
def shelf(tmp_path: Path, make_record: MakeRecord) -> Shelf:
    """A project with a baseline of 20 nights: 1p3d has an ITL of 10 ms, and a limit of 4 %."""
    made = Shelf(
        folder=tmp_path, make_record=make_record, night_sd=0.0, run_sd=0.0, cells=("1p3d",)
    )
    made.baseline()
    return made


def judge_of(shelf: Shelf, history: Path | None = None) -> SessionJudge:
    return SessionJudge(
        system=shelf.system,
        provenance=Provenance(versions=NEW, host={}, fingerprint="0123456789ab"),
        nodes_known=True,
        session=TONIGHT,
        runs=shelf.runs,
        state=shelf.folder / "state",
        rootdir=shelf.folder,
        history_folder=history,
    )


def slow_runs(make_record: MakeRecord, **fields: object) -> list[Record]:
    given = {"session": TONIGHT, "versions": NEW, **fields}
    return [make_record(SLOW, start=start, **given) for start in range(3)]


def from_all_sources(shelf: Shelf, runs: list[Record]) -> list[Verdict]:
    """The verdict by nights of the runs folder, of both, and of the history alone."""
    store, _ = imported(shelf)
    judges = [judge_of(shelf), judge_of(shelf, store.folder)]
    verdicts = [judge.judge(KEY, runs) for judge in judges]
    shutil.rmtree(shelf.runs)
    return [*verdicts, judge_of(shelf, store.folder).judge(KEY, runs)]


def since_of(verdict: Verdict) -> Since | None:
    return verdict.worse[0].worse_since


def test_since_when_is_the_same_from_runs_and_from_a_history(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    shelf.nights(3, first=15, versions=OLD)
    shelf.session(18, metrics=SLOW, versions=NEW, nodes=("node0", "node9"))
    shelf.session(19, metrics=SLOW, versions=NEW, repeats=3)
    verdicts = from_all_sources(shelf, slow_runs(make_record))
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert since_of(verdicts[0]) == Since(
        night="2026-11-18",
        nights=3,
        before="2026-11-17",
        changes=(
            Difference(what="vLLM", before="0.15.1", now="0.15.2"),
            Difference(what="nodes", before="node0, node1", now="node0, node9"),
        ),
    )
    assert (
        "since",
        "first seen on 2026-11-18 (3 nights in a row); changed since the night before, 2026-11-17: "
        "vLLM 0.15.1 -> 0.15.2, nodes node0, node1 -> node0, node9",
    ) in verdicts[0].evidence


def test_without_the_history_the_answer_is_another(shelf: Shelf, make_record: MakeRecord) -> None:
    shelf.session(18)
    shelf.session(19, metrics=SLOW)
    runs = slow_runs(make_record)
    *_, from_history = from_all_sources(shelf, runs)
    assert judge_of(shelf).judge(KEY, runs) != from_history


def test_a_first_night_says_what_changed_since_the_last(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    shelf.session(19, versions=OLD)
    verdict = judge_of(shelf).judge(KEY, slow_runs(make_record))
    said = dict(verdict.evidence)["since"]
    assert said.endswith("; changed since the night before, 2026-11-19: vLLM 0.15.1 -> 0.15.2")


def test_a_night_on_which_nothing_changed_says_so(shelf: Shelf, make_record: MakeRecord) -> None:
    shelf.session(19, versions=NEW)
    verdict = judge_of(shelf).judge(KEY, slow_runs(make_record))
    said = dict(verdict.evidence)["since"]
    assert said.endswith("since the night before, 2026-11-19, no version and no node changed")


def test_nodes_that_are_not_recorded_are_not_called_the_same(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    shelf.session(19, versions=NEW, nodes=())
    verdict = judge_of(shelf).judge(KEY, slow_runs(make_record))
    said = dict(verdict.evidence)["since"]
    assert said.endswith("2026-11-19, no version changed; the nodes are not recorded")


def test_without_an_earlier_night_there_is_nothing_to_tell(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    verdict = judge_of(shelf).judge(KEY, slow_runs(make_record))
    assert "since" not in dict(verdict.evidence)


def test_alarms_that_went_away_are_counted_in_the_last_30_nights_of_either(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    for day in range(14, 20):
        alarm = day in (14, 16)
        shelf.session(day, metrics=SLOW if alarm else {}, repeats=3 if alarm else 1)
    runs = slow_runs(make_record)
    verdicts = from_all_sources(shelf, runs)
    assert [verdict.status for verdict in verdicts] == ["SUSPICIOUS"] * 3
    assert judge_of(shelf).judge(KEY, runs).status == "FAIL"  # without any night


def test_the_slow_node_is_named_from_either(shelf: Shelf, make_record: MakeRecord) -> None:
    def on(node: str, record: Record) -> Record:
        decode = ProcessRecord(name="decode[0]", node=node, argv=("vllm",), env={}, log="l")
        return replace(record, processes=(decode,))

    for day in (18, 19):
        shelf.session(day, processes=on("node1", make_record()).processes)
    slow = [on("node9", record) for record in slow_runs(make_record)]
    said = [verdict.misses[0] for verdict in from_all_sources(shelf, slow)]
    assert ["had node9 as decode" in each for each in said] == [True] * 3


def test_an_excluded_night_is_not_looked_back_at_and_is_named(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    shelf.session(18)
    excluded = shelf.session(19, metrics=SLOW)
    store, _ = imported(shelf)
    add_exclusion(store.folder, ("p5-efa", excluded), "node h04 throttled")
    judge = judge_of(shelf, store.folder)
    since = since_of(judge.judge(KEY, slow_runs(make_record)))
    assert since is not None
    assert (since.night, since.before) == ("2026-11-20", "2026-11-18")
    assert judge.history.unreadable == (f"excluded: {excluded}: node h04 throttled",)


def test_a_session_that_was_imported_while_it_ran_is_read_where_it_is_whole(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    shelf.session(19, metrics=SLOW)
    store, _ = imported(shelf)
    shelf.session(19, metrics=SLOW, repeats=3)
    judge = judge_of(shelf, store.folder)
    (night,) = judge.history.nights
    assert len(night.runs[KEY]) == 3


def test_a_session_that_only_the_runs_folder_has_counts_too(
    shelf: Shelf, make_record: MakeRecord
) -> None:
    shelf.nights(2, first=17)
    store, _ = imported(shelf)
    shelf.session(19, metrics=SLOW)
    judge = judge_of(shelf, store.folder)
    assert [night.name for night in judge.history.nights] == [
        "2026-11-19",
        "2026-11-18",
        "2026-11-17",
    ]


def test_what_is_later_than_tonight_is_not_past(shelf: Shelf, make_record: MakeRecord) -> None:
    shelf.nights(4, first=19)
    store, _ = imported(shelf)
    shutil.rmtree(shelf.runs)
    judge = judge_of(shelf, store.folder)
    assert [night.name for night in judge.history.nights] == ["2026-11-19"]


def test_a_torn_file_of_the_history_is_named(shelf: Shelf, make_record: MakeRecord) -> None:
    shelf.nights(2, first=18)
    store, said = imported(shelf)
    torn = said[0].path
    assert torn is not None
    torn.write_bytes(b"PAR1")
    (sentence,) = judge_of(shelf, store.folder).history.unreadable
    assert sentence.startswith(f"{torn} is damaged: ")


def test_a_torn_exclusion_is_named(shelf: Shelf, make_record: MakeRecord) -> None:
    shelf.nights(2, first=18)
    store, _ = imported(shelf)
    add_exclusion(store.folder, ("p5-efa", "x"), "node h04 throttled")
    (path,) = [each for each in (store.folder / EXCLUSIONS).iterdir() if each.suffix == ".json"]
    path.write_text("{")
    (sentence,) = judge_of(shelf, store.folder).history.unreadable
    assert str(path) in sentence


def test_only_folders_that_lack_something_are_imported_again(shelf: Shelf) -> None:
    run_id = shelf.session(19)
    store, _ = imported(shelf)
    again = list(import_folders(Store.open(store.folder), [shelf.runs / run_id]))
    assert [each.path for each in again] == [None]
