"""Files of expected changes: what they may say, and how a mistake in them is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.results import folders
from pytest_pdserve.results.expected import expected_path
from pytest_pdserve.results.expected import load_expected
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.system import System

HEAD = "schema_version = 1\n[[expected]]\n"
WHO = 'owner = "Ada"\nreason = "vllm#1"\n'
LEAST = f"{HEAD}until = 2026-12-31\n{WHO}"


def written(folder: Path, text: str) -> Path:
    path = folder / "expected.toml"
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_expected(path)
    return str(refused.value)


def test_without_a_file_nothing_is_expected(tmp_path: Path) -> None:
    assert load_expected(tmp_path / "expected.toml") == ()


def test_a_file_may_have_no_entry(tmp_path: Path) -> None:
    assert load_expected(written(tmp_path, "schema_version = 1\n")) == ()


@pytest.mark.parametrize("until", ["2026-12-31", '"2026-12-31"'], ids=["a date", "quoted"])
def test_an_entry_has_a_last_day_an_owner_and_a_reason(until: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEAD}until = {until}\n{WHO}")
    assert load_expected(path) == (
        ExpectedChange(until="2026-12-31", owner="Ada", reason="vllm#1"),
    )


def test_an_entry_about_metrics_says_where_and_how_much_is_covered(tmp_path: Path) -> None:
    where = (
        'topologies = ["1p3d", "dp"]\ncells = ["512-256", "random-512-256-n4"]\n'
        'metrics = ["mean_itl_ms"]\nmax_worse = 0.1\n'
    )
    (entry,) = load_expected(written(tmp_path, LEAST + where))
    assert entry == ExpectedChange(
        until="2026-12-31",
        owner="Ada",
        reason="vllm#1",
        topologies=("1p3d", "dp"),
        cells=("512-256", "random-512-256-n4"),
        metrics=("mean_itl_ms",),
        max_worse=0.1,
    )


def test_an_entry_about_claims_names_them_and_their_cells(tmp_path: Path) -> None:
    (entry,) = load_expected(written(tmp_path, f'{LEAST}claims = ["itl"]\ncells = ["512-256"]\n'))
    assert (entry.claims, entry.cells) == (("itl",), ("512-256",))


def test_entries_are_kept_in_their_order_and_may_be_expired(tmp_path: Path) -> None:
    old = "[[expected]]\nuntil = 2001-01-01\n" + WHO
    path = written(tmp_path, LEAST + old)
    assert [entry.until for entry in load_expected(path)] == ["2026-12-31", "2001-01-01"]


JUDGED = "mean_ttft_ms, p99_ttft_ms, mean_itl_ms, mean_tpot_ms, mean_e2el_ms, output_throughput"
CLAIMS = "not allowed in an entry with claims; remove it, or make two entries"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema_version = 1\n[[expected", " is not valid TOML: Expected ']]' at the end of an"),
        ("", ": /: 'schema_version' is a required property; expected 1"),
        ("schema_version = 2\n", ": /schema_version: 2, expected 1; write schema_version = 1"),
        ("schema_version = 1\nexpected = 1\n", ": /expected: 1 is not of type 'array'"),
        ("schema_version = 1\nexpected = [1]\n", ": /expected/0: 1 is not of type 'object'"),
        ("schema_version = 1\n[expected]\n", ": /expected: {} is not of type 'array'"),
        (f"{HEAD}{WHO}", ": /expected/0: 'until' is a required property"),
        (LEAST.replace('owner = "Ada"', ""), ": /expected/0: 'owner' is a required property"),
        (LEAST.replace('"vllm#1"', '""'), ": /expected/0/reason: '' should be non-empty"),
        (f"{LEAST}issue = 1\n", ": /expected/0: Additional properties are not allowed ('issue'"),
        (
            LEAST.replace("2026-12-31", '"2026-02-30"'),
            ": /expected/0/until: '2026-02-30' is not a date like 2026-12-31",
        ),
        (LEAST.replace("2026-12-31", '"soon"'), ": /expected/0/until: 'soon' does not match"),
        (LEAST.replace("2026-12-31", "2026-02-30"), " is not valid TOML: "),
        (LEAST.replace("2026-12-31", "20261231"), ": /expected/0/until: 20261231 is not of type"),
        (
            LEAST.replace("2026-12-31", "2026-12-31T00:00:00"),
            ": /expected/0/until: '2026-12-31T00:00:00' does not match",
        ),
        (f"{LEAST}topologies = []\n", ": /expected/0/topologies: [] should be non-empty"),
        (f'{LEAST}topologies = "dp"\n', ": /expected/0/topologies: 'dp' is not of type 'array'"),
        (f'{LEAST}cells = ["a", "a"]\n', ": /expected/0/cells: ['a', 'a'] has non-unique"),
        (f"{LEAST}max_worse = 0\n", ": /expected/0/max_worse: 0 is less than or equal to the"),
        (f"{LEAST}max_worse = 11\n", ": /expected/0/max_worse: 11 is greater than the maximum"),
        (f"{LEAST}max_worse = nan\n", " holds nan, expected a number"),
        (
            f'{LEAST}metrics = ["mean_itl_ms", "mean_tfft_ms"]\n',
            f": /expected/0/metrics: 'mean_tfft_ms' is not judged; expected one of {JUDGED}",
        ),
        (
            f'{LEAST}metrics = ["p50_itl_ms"]\n',
            f": /expected/0/metrics: 'p50_itl_ms' is not judged; expected one of {JUDGED}",
        ),
        (
            f'{LEAST}metrics = ["failed"]\n',
            f": /expected/0/metrics: 'failed' is not judged; expected one of {JUDGED}",
        ),
        *(
            (f'{LEAST}claims = ["itl"]\n{key} = {value}\n', f": /expected/0/{key}: {CLAIMS}")
            for key, value in (
                ("topologies", '["dp"]'),
                ("metrics", '["mean_itl_ms"]'),
                ("max_worse", "0.1"),
            )
        ),
        (
            f'{LEAST}[[expected]]\nuntil = 2026-12-31\n{WHO}metrics = ["itl"]\n',
            f": /expected/1/metrics: 'itl' is not judged; expected one of {JUDGED}",
        ),
    ],
    ids=[
        *("no TOML", "no version", "other version", "no list", "no table", "one table"),
        *("no day", "no owner", "empty reason", "unknown key", "no day of the calendar"),
        *("no date", "no date of TOML", "a number", "a moment", "no topology", "one topology"),
        *("a cell twice", "covers nothing", "covers all", "nan", "unknown metric"),
        *("a metric that is shown", "a count", "claims on topologies", "claims with metrics"),
        *("claims with a size", "the second entry"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_place(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}{said}")
    assert len(message.splitlines()) == 1


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "expected.toml").mkdir()
    path = tmp_path / "expected.toml"
    assert refusal(path) == f"{path} cannot be read: Is a directory"


def test_the_file_lies_beside_the_system_file(p5_efa: System, tmp_path: Path) -> None:
    folder = tmp_path / "baselines" / "p5-efa"
    system = replace(p5_efa, source=str(folder / "system.toml"))
    assert expected_path(system, tmp_path / "elsewhere") == folder / "expected.toml"


@pytest.mark.parametrize(
    ("own", "path"),
    [(True, "project/baselines/p5-efa"), (False, "package/baselines/p5-efa")],
    ids=["the project has one", "the project has none"],
)
def test_of_a_shipped_system_the_projects_own_file_comes_first(
    path: str, p5_efa: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, own: bool
) -> None:
    package, project = tmp_path / "package", tmp_path / "project"
    monkeypatch.setattr(folders, "SHIPPED", (package / "baselines",))
    system = replace(p5_efa, source=str(package / "baselines" / "p5-efa" / "system.toml"))
    folder = project / "baselines" / "p5-efa"
    folder.mkdir(parents=True)
    if own:
        (folder / "expected.toml").write_text(LEAST)
    assert expected_path(system, project) == tmp_path / path / "expected.toml"


@pytest.mark.parametrize(
    "path", sorted(SHIPPED[0].glob("*/expected.toml")), ids=lambda path: path.parent.name
)
def test_a_shipped_file_can_be_read(path: Path) -> None:
    assert load_expected(path) != ()
