"""Expected changes and claims of stored sessions: what ``pdserve judge`` makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.values.record import Record
from tests.support.judging import JudgeCommand
from tests.support.stored_nights import Shelf

WORKLOAD = "random-512-256-n4"
DP = f"dp {WORKLOAD}"
BELOW, BEYOND = 0.035, 0.06
"""Worse by so much in logarithms: suspicious, and worse than the limit of ITL and throughput."""


@pytest.fixture
def shelf(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> Shelf:
    """A project on a system of one cell with 20 nights of ``dp`` and ``1p3d``, all the same."""
    monkeypatch.chdir(tmp_path)
    made = Shelf(folder=tmp_path, make_record=make_record, night_sd=0.0, run_sd=0.0)
    made.baseline()
    path = made.folder / "baselines" / "p5-efa" / "system.toml"
    sweep = "num_prompts = 4\ninput_lens = [512]\noutput_lens = [256]"
    path.write_text(path.read_text().replace("num_prompts = 1024", sweep))
    return made


@pytest.fixture
def judge(capsys: pytest.CaptureFixture[str]) -> JudgeCommand:
    return JudgeCommand(capsys=capsys)


def expect(shelf: Shelf, *lines: str, until: str = "2099-12-31") -> Path:
    """Write the project's file of one expected change."""
    path = shelf.folder / "baselines" / "p5-efa" / "expected.toml"
    who = f'until = {until}\nowner = "Ada"\nreason = "vllm#1"'
    path.write_text("\n".join(["schema_version = 1", "[[expected]]", who, *lines]))
    return path


def slow_dp(shelf: Shelf, slower: float = BEYOND, repeats: int = 3) -> None:
    """A session of tonight in which ``dp`` is slower."""
    shelf.session(21, cells=("1p3d",), findings=())
    shelf.session(21, cells=("dp",), slower=slower, repeats=repeats, findings=())


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("lines", "verdict", "code"),
    [
        ((), "EXPECTED", 0),
        (('topologies = ["dp"]',), "EXPECTED", 0),
        (('cells = ["512-256"]',), "EXPECTED", 0),
        ((f'cells = ["{WORKLOAD}"]',), "EXPECTED", 0),
        (("max_worse = 0.07",), "EXPECTED", 0),
        (("max_worse = 0.06",), "FAIL", 1),
        (('metrics = ["mean_itl_ms", "output_throughput"]',), "EXPECTED", 0),
        (('metrics = ["mean_itl_ms"]',), "FAIL", 1),
        (('topologies = ["1p3d"]',), "FAIL", 1),
        (('cells = ["1024-256"]',), "FAIL", 1),
        (('claims = ["itl"]',), "FAIL", 1),
    ],
    ids=[
        *("all", "its topology", "its lengths", "its workload id", "more than it is worse"),
        *("less than it is worse", "both metrics", "one of two metrics", "another topology"),
        *("another cell", "a claim"),
    ],
)
def test_a_change_that_an_entry_covers_is_expected(
    lines: tuple[str, ...], verdict: str, code: int, shelf: Shelf, judge: JudgeCommand
) -> None:
    expect(shelf, *lines)
    slow_dp(shelf)
    assert judge.told(code=code)["cells"][DP]["verdict"] == verdict


def test_an_expected_cell_says_until_when_and_by_whom(shelf: Shelf, judge: JudgeCommand) -> None:
    expect(shelf)
    slow_dp(shelf)
    text = judge()
    assert f"EXPECTED: dp, {WORKLOAD}, p5-efa\n  mean_itl_ms 10.62 ms" in text
    assert "Expected until 2099-12-31 (Ada: vllm#1)." in text


@pytest.mark.parametrize("before", [None, 20], ids=["on the first night", "on the second"])
def test_what_is_expected_wants_no_run(
    before: int | None, shelf: Shelf, judge: JudgeCommand
) -> None:
    expect(shelf)
    if before is not None:
        shelf.session(before, slower=BELOW)
    slow_dp(shelf, repeats=1)
    said = judge.told("--strict")
    assert (said["again"], said["exit_code"]) == ([], 0)


def test_an_expired_entry_covers_nothing_and_is_named(shelf: Shelf, judge: JudgeCommand) -> None:
    path = expect(shelf, until="2026-01-01")
    slow_dp(shelf)
    assert (
        f"\n{path}: entry 1 (Ada: vllm#1) expired on 2026-01-01 and covers nothing; remove it\n"
        in judge(code=1)
    )


def test_an_entry_that_is_not_needed_is_named(shelf: Shelf, judge: JudgeCommand) -> None:
    path = expect(shelf)
    slow_dp(shelf, slower=0.0)
    assert f"\n{path}: entry 1 (Ada: vllm#1) covered nothing tonight; remove it\n" in judge()


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("until", "topology", "code"),
    [("2026-01-01", "dp", 6), ("2099-12-31", "dp", 6), ("2099-12-31", "2p2d", 0)],
    ids=["expired", "not needed", "of what was not run"],
)
def test_strict_takes_no_entry_that_should_be_removed(
    until: str, topology: str, code: int, shelf: Shelf, judge: JudgeCommand
) -> None:
    expect(shelf, f'topologies = ["{topology}"]', until=until)
    slow_dp(shelf, slower=0.0)
    judge()
    judge("--strict", code=code)


def test_a_malformed_file_is_one_sentence(shelf: Shelf, judge: JudgeCommand) -> None:
    path = expect(shelf, 'metrics = ["itl"]')
    slow_dp(shelf)
    said = judge(code=4)
    assert said.startswith(
        f"pdserve: {path}: /expected/0/metrics: 'itl' is not judged; expected one of"
    )
    assert said.count("\n") == 1


CLAIM = """
[[claim]]
id = "itl"
text = "1P3D has a lower ITL than DP"
kind = "below"
metric = "mean_itl_ms"
subject = "1p3d"
others = ["dp"]
panel = "decode"
reason = "r"
source = "s"
"""


def claims(shelf: Shelf, name: str = "suites/claims/claims.toml", text: str = CLAIM) -> Path:
    path = shelf.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"schema_version = 1\n{text}")
    return path


def faster(shelf: Shelf, topology: str, repeats: int = 3) -> None:
    """A session of tonight in which one of two topologies is 20 % faster."""
    other = "dp" if topology == "1p3d" else "1p3d"
    shelf.session(21, cells=(other,), repeats=repeats, findings=())
    shelf.session(21, cells=(topology,), slower=-0.2, repeats=repeats, findings=())


@pytest.mark.parametrize(
    ("topology", "repeats", "verdict", "code"),
    [
        ("1p3d", 1, "PASS", 0),
        ("dp", 1, "INCONCLUSIVE", 6),
        ("dp", 3, "FAIL", 1),
    ],
    ids=["it holds", "one pair violates it", "three pairs violate it"],
)
def test_claims_of_the_project_are_judged(
    topology: str, repeats: int, verdict: str, code: int, shelf: Shelf, judge: JudgeCommand
) -> None:
    claims(shelf)
    faster(shelf, topology, repeats)
    assert judge.told(code=code)["claims"]["itl"]["verdict"] == verdict


def test_files_of_claims_are_named_in_place_of_the_projects(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    claims(shelf)
    one = claims(shelf, "one.toml", CLAIM.replace('"itl"', '"one"'))
    two = claims(shelf, "two.toml", CLAIM.replace('"itl"', '"two"'))
    faster(shelf, "1p3d")
    named = ("--claims", str(one), "--claims", str(two))
    assert list(judge.told(*named)["claims"]) == ["one", "two"]


def test_a_claim_of_a_topology_that_was_not_run_is_not_judged(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    claims(shelf)
    shelf.session(21, cells=("dp",))
    assert judge.told("--partial")["claims"] == {}


def test_a_claim_that_no_measurement_can_decide_is_left_out(
    shelf: Shelf, judge: JudgeCommand
) -> None:
    cause = 'undecidable = "no mean shows a cause"\n'
    head = CLAIM.partition("kind")[0]
    tail = 'reason = "r"\nsource = "s"\n'
    claims(shelf, text=f"{head}{cause}{tail}")
    faster(shelf, "1p3d")
    assert judge.told()["claims"] == {}


def test_a_claim_that_fails_as_expected_is_expected(shelf: Shelf, judge: JudgeCommand) -> None:
    claims(shelf)
    expect(shelf, 'claims = ["itl"]', 'cells = ["512-256"]')
    faster(shelf, "dp")
    assert judge.told()["claims"]["itl"]["verdict"] == "EXPECTED"


def test_a_claim_that_is_not_enforced_is_reported(shelf: Shelf, judge: JudgeCommand) -> None:
    path = shelf.folder / "baselines" / "p5-efa" / "system.toml"
    path.write_text(f'{path.read_text()}\n[judgement]\nclaims = "report"\n')
    claims(shelf)
    faster(shelf, "dp")
    assert judge.told()["claims"]["itl"]["verdict"] == "REPORTED"


def test_a_malformed_file_of_claims_is_one_sentence(shelf: Shelf, judge: JudgeCommand) -> None:
    path = claims(shelf, text="[[claim]]\n")
    faster(shelf, "1p3d")
    said = judge(code=4)
    assert said.startswith(f"pdserve: {path}: /claim/0: ")
    assert said.count("\n") == 1
