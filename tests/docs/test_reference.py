"""The generated reference has every public name; the site builds without a warning."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_pdserve
from docs.reference_pages.fields import fields_of
from docs.reference_pages.markdown import inline
from docs.reference_pages.pages import generated_files
from docs.reference_pages.system import keys
from pytest_pdserve.commands.main import subcommands
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.plugin import fixtures
from pytest_pdserve.plugin.markers import SIGNATURES
from pytest_pdserve.results import kinds
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.system import ClusterSpec
from tests.support.wheel import ROOT

SCHEMA = Path(kinds.__file__).parent / "schema" / "system.schema.json"


@functools.cache
def files() -> dict[str, str]:
    return generated_files()


def page(name: str) -> str:
    return files()[f"reference/{name}.md"]


def first_cells(name: str) -> set[str]:
    """Return what is in code in the first column of a page's tables."""
    rows = [line.split("|")[1] for line in page(name).splitlines() if line.startswith("| ")]
    return {found for row in rows for found in re.findall("`([^`]+)`", row)}


@pytest.mark.parametrize("name", pytest_pdserve.__all__)
def test_a_public_name_is_in_the_reference_with_what_it_is(name: str) -> None:
    section = page("names").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert re.match(r"\n[A-Z`].*\.", section), section[:200]


def test_every_verdict_and_exit_code_is_in_the_reference() -> None:
    assert {*Status, *(str(int(code)) for code in ExitCode)} <= first_cells("results")


def test_every_metric_is_in_the_reference() -> None:
    assert set(METRICS) <= first_cells("results")


def test_every_subcommand_is_in_the_reference() -> None:
    for name, module in subcommands().items():
        assert f"\n## pdserve {name}\n" in page("commands")
        assert f"| {inline(module.TEXT)}. |" in page("commands").replace("\\|", "|")


def test_every_marker_and_fixture_is_in_the_reference() -> None:
    kind = type(fixtures.pdserve_run)
    public = {n for n, value in vars(fixtures).items() if isinstance(value, kind) and n[0] != "_"}
    cells = [cell.removeprefix("@pytest.mark.") for cell in first_cells("markers")]
    assert {*public, *SIGNATURES} <= {cell.partition("(")[0] for cell in cells}


def test_every_key_of_a_system_file_is_in_the_reference() -> None:
    schema = json.loads(SCHEMA.read_text())
    cells = first_cells("system")
    sections = set(re.findall(r"^## `\[([^\]]+)\]`", page("system"), re.MULTILINE))
    for name, value in schema["properties"].items():
        assert name in (sections if "$ref" in value else cells), name
    sub_tables = {name.rpartition(".")[2] for name in sections}
    for kind in schema["$defs"].values():
        own = set(kind["properties"]) - {"roles", "prefill", "decode", "aggregated"}
        assert own <= cells | sub_tables, kind["title"]


def test_a_key_without_a_row_is_found() -> None:
    assert "kind" in keys()["cluster"]
    assert "no_such_key" not in first_cells("system")


def test_a_default_and_a_unit_are_those_of_the_code() -> None:
    row = next(line for line in page("system").splitlines() if line.startswith("| `stop_s`"))
    assert "; s | `15.0` |" in row


def test_every_kind_of_file_is_in_the_reference_with_its_schema() -> None:
    for kind in kinds.KINDS:
        assert f"(schema/{kind.name}.schema.json)" in page("formats")
        assert f"reference/schema/{kind.name}.schema.json" in files()


def test_a_field_without_a_docstring_has_a_row_all_the_same() -> None:
    assert len(list(fields_of(ClusterSpec))) == len(dataclasses.fields(ClusterSpec))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "code"),
    [("", 0), ("\n[nowhere](judging.md#no-such-anchor)\n", 1), ("\n[nothing](missing.md)\n", 1)],
    ids=["as they are", "with a broken anchor", "with a broken link"],
)
def test_the_pages_build_strictly(text: str, code: int, tmp_path: Path) -> None:
    """A CI job of its own builds them as they are: ``make docs``."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    index = tmp_path / "docs" / "index.md"
    index.write_text(index.read_text() + text)
    for name in ("pytest_pdserve", "benchmarks", "requirements", "tests", "changelog.d"):
        (tmp_path / name).symlink_to(ROOT / name)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == code, built.stderr
    loaded = [
        address
        for page in tmp_path.glob("site/**/*.html")
        for address in re.findall(
            r"<(?:script|img|link)\b[^>]*(?:src|href)=\"?(https?:[^\" >]+)", page.read_text()
        )
    ]
    assert loaded == []
