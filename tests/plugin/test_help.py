"""``--help``, ``--markers`` and ``--fixtures``: all that is public, and how little is imported."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest

from docs.reference_pages.options import options_page
from pytest_pdserve.plugin import fixtures
from pytest_pdserve.plugin.markers import SIGNATURES

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("httpx", "jsonschema", "numpy", "pandas", "psutil", "pyarrow", "rich", "ruptures", "scipy"),
    *("simpy", "submitit", "vllm"),
)
LOOK = """
import json, sys
import pytest
code = pytest.main(sys.argv[1:])
print("LOADED", json.dumps(sorted(sys.modules)))
raise SystemExit(code)
"""


def test_help_names_every_option_with_its_default(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--help")
    assert result.ret == 0
    text = result.stdout.str()
    group = text[text.index("prefill/decode serving:") :].split("\n\n")[0]
    for option in (
        "--topology=ID[,ID…]",
        "--system=NAME",
        "--pdserve-base-url=URL",
        "--pdserve-runs=DIR",
        "--pdserve-repeats=N",
        "--pdserve-first-runs=N",
        "--pdserve-no-record",
        "--pdserve-strict",
    ):
        assert option in group
    words = " ".join(group.split())
    for default in ("1p3d", "local-cpu", "runs", "none", "3", "off"):
        assert f"(default: {default})" in words
    assert "(default: from the system file, else 1)" in words


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("asked", ["--help", "--markers", "--fixtures", "--collect-only", "-v"])
def test_nothing_heavy_is_imported_where_nothing_is_measured(
    asked: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("def test_nothing(): pass")
    plugins = ("-p", "pytest_pdserve.plugin.hooks", "-p", "no:cacheprovider")
    result = pytester.run(sys.executable, "-c", LOOK, asked, *plugins)
    assert result.ret == 0
    said = next(line for line in result.outlines if line.startswith("LOADED "))
    loaded = set(json.loads(said.removeprefix("LOADED ")))
    assert "pytest_pdserve.plugin.hooks" in loaded
    assert {name.partition(".")[0] for name in loaded}.isdisjoint(HEAVY)


def test_markers_show_their_signatures_and_say_what_they_do(pytester: pytest.Pytester) -> None:
    said = [line for line in pytester.runpytest("--markers").outlines if ".pdserve_" in line]
    assert said == [
        "@pytest.mark.pdserve_panels(*panels): run the test once for each workload of the system's "
        "sweep that is in the named panels, 'prefill' and 'decode'.",
        "@pytest.mark.pdserve_requires(disaggregated=None, nodes=None, gpus_per_node=None): skip "
        "the test unless its topology separates prefill and decode (False: does not) and the "
        "system has at least that many nodes and GPUs per node.",
        "@pytest.mark.pdserve_claims(path): run the test once for each claim of a TOML file, whose "
        "path is relative to the test's folder.",
        "@pytest.mark.pdserve_last: run the test after all others, as it judges their "
        "measurements.",
    ]


def in_table(page: str, column: int, pattern: str) -> set[str]:
    """Return the names that match *pattern* in a column of a page's tables, counted from 1."""
    return in_cells((ROOT / page).read_text(), column, pattern)


def in_cells(text: str, column: int, pattern: str) -> set[str]:
    """Return the names that match *pattern* in a column of the tables of Markdown."""
    rows = [line.split("|") for line in text.splitlines() if line[:1] == "|"]
    cells = [row[column] for row in rows if len(row) > column]
    return {name for cell in cells for name in re.findall(f"`({pattern})", cell)}


def printed(pytester: pytest.Pytester, flag: str, pattern: str) -> set[str]:
    """Names that match *pattern* in what pytest prints of itself."""
    return set(re.findall(pattern, pytester.runpytest(flag).stdout.str(), re.MULTILINE))


def test_every_fixture_is_printed_and_in_the_docs(pytester: pytest.Pytester) -> None:
    kind = type(fixtures.pdserve_run)
    names = {name for name, value in vars(fixtures).items() if isinstance(value, kind)}
    public = {name for name in names if not name.startswith("_")}
    assert printed(pytester, "--fixtures", r"^(pdserve_\w+)(?: \[.*\])? -- .*\n    \w") == public
    described = in_table("docs/pytest.md", 1, r"pdserve_\w+")
    assert described - set(SIGNATURES) == public


def test_every_name_that_a_shipped_test_requests_is_a_fixture() -> None:
    paths = [*ROOT.glob("suites/*/test_*.py"), *ROOT.glob("pytest_pdserve/template/**/test_*.py")]
    defs = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    tests = [n for n in defs if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    requested = {argument.arg for test in tests for argument in test.args.args}
    assert len(tests) >= 10
    assert requested <= vars(fixtures).keys()


def test_every_marker_is_printed_and_in_the_docs(pytester: pytest.Pytester) -> None:
    found = printed(pytester, "--markers", r"^@pytest\.mark\.(pdserve_\w+)")
    described = in_table("docs/pytest.md", 1, r"pdserve_\w+") - vars(fixtures).keys()
    assert found == set(SIGNATURES) == described


def test_every_option_and_ini_key_is_in_the_reference(pytester: pytest.Pytester) -> None:
    printed_help = pytester.runpytest("--help").stdout.str()
    group = printed_help[printed_help.index("prefill/decode serving:") :].split("\n\n")[0]
    options = set(re.findall(r"^  (--[\w-]+)", group, re.MULTILINE))
    keys = set(re.findall(r"^  (pdserve_\w+) \(.*\n {8,}\w", printed_help, re.MULTILINE))
    twins = {key for key in keys if not key.startswith("pdserve_nightly_")}
    assert {f"--{key.replace('_', '-')}" for key in twins} == {
        option if option.startswith("--pdserve") else f"--pdserve-{option[2:]}"
        for option in options
    }
    page = options_page()
    assert options == in_cells(page, 1, r"--[\w-]+")
    assert keys == in_cells(page, 2, r"pdserve_\w+") | in_cells(page, 1, r"pdserve_\w+")
