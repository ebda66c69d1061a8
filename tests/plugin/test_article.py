"""``pytest suites/claims --system article``: the article as a suite, with nothing acquired."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main

ROOT = Path(__file__).parents[2]
ARTICLE = ("suites/claims", "--system", "article", "--import-mode=importlib", "-W", "error")
OUTCOMES = {"passed": 45 + 6, "xfailed": 29, "skipped": 4}


@pytest.fixture
def project(
    loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    for suite in ("claims", "sweep"):
        shutil.copytree(ROOT / "suites" / suite, pytester.path / "suites" / suite)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of this checkout, whichever is installed
    return pytester


@pytest.mark.slow
def test_every_claim_is_judged_by_the_figures(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess(*ARTICLE, "-rxs", "--junitxml", "junit.xml")
    assert result.ret == 0
    assert result.parseoutcomes() == OUTCOMES
    result.stdout.fnmatch_lines(
        [
            "pdserve: system article (FIGURES, nothing is measured)",
            "FIGURES, nothing was measured: *one run per cell, means only",
            "claims: 51 PASS, 29 EXPECTED",
            "claim 03a-*: EXPECTED: contradicted in 512-256: fourth of five there, * "
            "(until 2099-12-31, pytest-pdserve project)",
        ]
    )
    result.stdout.fnmatch_lines(["*undecidable: no cell isolates the transfer *"])
    result.stdout.fnmatch_lines(["XFAIL *contradicted in 512-256, 512-512, 512-4096: third there*"])
    assert not (project.path / "runs").exists()
    said = (project.path / "junit.xml").read_text()
    assert said.count('name="pdserve_claim"') == 51 + 29
    assert "read off plots: one run per side, no variance" in said
    assert "figure: " in said


@pytest.mark.slow
def test_it_needs_neither_servers_nor_slurm(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(
        sitecustomize="import sys\n"
        "for name in ('vllm', 'submitit', 'simpy', 'nixl', 'torch'):\n"
        "    sys.modules[name] = None\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{project.path}:{ROOT}")
    result = project.runpytest_subprocess(*ARTICLE, "-p", "no:hypothesispytest")
    assert result.parseoutcomes() == OUTCOMES


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"01-route4-throughput-highest-prefill"\nnumber = 1', None, "claims: 50 PASS"),
        ('kind = "highest"', 'kind = "lowest"', "claim 01-*: FAIL (random-512-256-n1024: output_*"),
        (
            "low = 37000",
            "low = 38000",
            "claim 13-*: FAIL (*= 37374.1 ms*claimed at least 38000 ms*",
        ),
    ],
    ids=["left out", "turned round", "another bound"],
)
def test_what_is_changed_in_the_suite_is_seen(
    old: str, new: str | None, said: str, project: pytest.Pytester
) -> None:
    path = project.path / "suites" / "claims" / "article.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    if new is None:
        entries = text.split("\n[[claim]]\n")
        text = "\n[[claim]]\n".join(entry for entry in entries if old not in entry)
    else:
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")
    result = project.runpytest_inprocess(*ARTICLE)
    assert result.ret == (0 if new is None else 1)
    result.stdout.fnmatch_lines([f"{said}*"])


ENTRY = "*expected.toml: entry 1 (pytest-pdserve project: fourth of five there, 1.08 *)"
NAMED_IN_VAIN = [
    pytest.param(
        'cells = ["512-256"]',
        'cells = ["512-256", "1024-256"]',
        f"{ENTRY}: 03a-2p2d-throughput-competitive-short holds in 1024-256; remove it",
        id="a cell in which the claim holds",
    ),
    pytest.param(
        'cells = ["512-256"]',
        'cells = ["512-256", "512-257"]',
        f"{ENTRY}: no cell of 03a-2p2d-throughput-competitive-short is called 512-257; the cells "
        "are 512-256, 1024-256",
        id="a cell that does not exist",
    ),
    pytest.param(
        'claims = ["03a-2p2d-throughput-competitive-short"]',
        'claims = ["03a-2p2d-throughput-competitive-short", "03d"]',
        f"{ENTRY}: no claim is called 03d",
        id="a claim that does not exist",
    ),
]


@pytest.fixture
def change_expected(project: pytest.Pytester) -> Callable[[str, str], None]:
    """A function that changes something in the first entry of the article's expected changes."""
    folder = project.path / "baselines" / "article"
    shutil.copytree(ROOT / "baselines" / "article", folder)

    def change(old: str, new: str) -> None:
        path = folder / "expected.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "said"), NAMED_IN_VAIN)
def test_what_an_entry_names_in_vain_is_named(
    old: str,
    new: str,
    said: str,
    project: pytest.Pytester,
    change_expected: Callable[[str, str], None],
) -> None:
    change_expected(old, new)
    result = project.runpytest_inprocess(*ARTICLE)
    assert (result.ret, result.parseoutcomes()) == (0, OUTCOMES)
    result.stdout.fnmatch_lines([said.replace("[", "[[]")])


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "said"), NAMED_IN_VAIN)
def test_strictly_an_entry_that_names_something_in_vain_fails_the_session(
    old: str,
    new: str,
    said: str,
    project: pytest.Pytester,
    change_expected: Callable[[str, str], None],
) -> None:
    del said
    assert project.runpytest_inprocess(*ARTICLE, "--pdserve-strict").ret == 0
    change_expected(old, new)
    result = project.runpytest_inprocess(*ARTICLE, "--pdserve-strict")
    assert (result.ret, result.parseoutcomes()) == (1, OUTCOMES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(
            'cells = ["512-256"]',
            'cells = ["1024-256"]',
            "claim 03a-*: FAIL (random-512-256-n1024: output_throughput of 2p2d *",
            id="of another cell",
        ),
        pytest.param(
            "until = 2099-12-31",
            "until = 2026-01-31",
            f"{ENTRY} expired on 2026-01-31 and covers nothing; remove it",
            id="expired",
        ),
    ],
)
def test_an_entry_that_does_not_cover_a_contradiction_leaves_it_a_fail(
    old: str,
    new: str,
    said: str,
    project: pytest.Pytester,
    change_expected: Callable[[str, str], None],
) -> None:
    change_expected(old, new)
    result = project.runpytest_inprocess(*ARTICLE)
    assert result.ret == 1
    assert result.parseoutcomes() == {**OUTCOMES, "failed": 1, "xfailed": 28}
    result.stdout.fnmatch_lines([said])


def test_nothing_can_be_measured_on_figures(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("suites/sweep", "--system", "article")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: system 'article' has no [[]cluster] kind, so nothing can be measured on it; "
            "it consists of figures: run pytest suites/claims --system article"
        ]
    )
    result = project.runpytest_inprocess(*ARTICLE, "--pdserve-base-url", "http://127.0.0.1:1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --pdserve-base-url * cannot be measured as system *"])
    assert not (project.path / "runs").exists()


def test_results_are_not_imported_as_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--system", "article", "--topology", "dp", "result.json"]) == 4
    assert "'article' consists of figures: results of real servers" in capsys.readouterr().err


def test_figures_that_are_broken_are_bad_input(project: pytest.Pytester) -> None:
    folder = project.path / "baselines" / "article"
    shutil.copytree(ROOT / "baselines" / "article", folder)
    figures = folder / "figures.toml"
    figures.write_text(figures.read_text().replace('"figure"', '"run"', 1))
    result = project.runpytest_inprocess(*ARTICLE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: *figures.toml: /record/0/source: 'run' is not one of [[]'figure'[]]"]
    )


@pytest.mark.parametrize("strict", [(), ("--pdserve-strict",)], ids=["plain", "strict"])
def test_a_smaller_cluster_is_skipped_once(
    strict: tuple[str, ...], project: pytest.Pytester
) -> None:
    local = ("--system", "local-cpu", "--import-mode=importlib", *strict)
    result = project.runpytest_inprocess("suites/claims", *local, "-rs", "-k", "article")
    assert result.parseoutcomes() == {"skipped": 1, "deselected": 6}
    result.stdout.fnmatch_lines(["SKIPPED * needs gpus_per_node >= 8, the system has 1"])


def test_a_real_cluster_is_asked_for_its_own_cells(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess(
        "suites/claims", "--system", "p5-efa", "--import-mode=importlib", "-rs"
    )
    assert result.parseoutcomes() == {"skipped": 6 + 78}
    result.stdout.fnmatch_lines(["SKIPPED * NOT ASKED: 1p3d, dp were not run; add --topology all"])
