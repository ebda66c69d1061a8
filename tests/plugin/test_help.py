"""``--help`` and ``--markers``: what they say, and how little they import."""

from __future__ import annotations

import json
import sys

import pytest

HEAVY = ("pandas", "submitit", "scipy", "httpx", "jsonschema", "psutil", "rich", "pyarrow")
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
    assert "(default: what the system file says, else 1)" in words
    twins = ("topology", "system", "base_url", "job_id", "runs", "repeats", "first_runs")
    for twin in (*twins, "no_record", "strict"):
        result.stdout.fnmatch_lines([f"  pdserve_{twin} (*"])


@pytest.mark.parametrize("asked", ["--help", "--markers", "--collect-only"])
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


def test_markers_show_their_signatures(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--markers")
    result.stdout.fnmatch_lines_random(
        [
            "@pytest.mark.pdserve_panels(*panels): run once for each workload*",
            "@pytest.mark.pdserve_requires(disaggregated=None, nodes=None, gpus_per_node=None): *",
            "@pytest.mark.pdserve_claims(path): run once for each claim*",
            "@pytest.mark.pdserve_last: run after all other tests*",
        ]
    )
