"""The generated reference has every public name; the site builds without a warning."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import pytest_pdserve
from docs.reference_pages.examples import as_toml
from docs.reference_pages.examples import examples
from docs.reference_pages.examples import own_examples
from docs.reference_pages.examples import shipped_keys
from docs.reference_pages.fields import fields_of
from docs.reference_pages.markdown import inline
from docs.reference_pages.pages import generated_files
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.commands.main import subcommands
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.plugin import fixtures
from pytest_pdserve.plugin.markers import SIGNATURES
from pytest_pdserve.results import kinds
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.system import ClusterSpec
from tests.support.wheel import ROOT

KINDS = {"slurm": "slurm", "preflight": "slurm", "container": "slurm"} | {
    "attached": "attached",
    "simulation": "simulated",
}
"""Kinds of systems that read a table, where it is not `local`."""
NEEDED: dict[str, dict[str, Any]] = {
    "container": {"kind": "docker", "image": "/images/nixl.tar.gz"},
    "sweep": {"request_rate": 4.0},
    "sweep.ramp_up": {"strategy": "linear", "start_rps": 2, "end_rps": 20},
}
"""Keys that a table needs beside any other, by table: without them the table is refused."""
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


def missing_keys(schema: dict[str, Any]) -> list[str]:
    """Return the keys of the schema of system files that the page of keys does not have."""
    cells = first_cells("system")
    sections = set(re.findall(r"^## `\[([^\]]+)\]`", page("system"), re.MULTILINE))
    missing = [
        name
        for name, value in schema["properties"].items()
        if name not in (sections if "$ref" in value else cells)
    ]
    sub_tables = {name.rpartition(".")[2] for name in sections}
    for kind in schema["$defs"].values():
        own = set(kind["properties"]) - {"roles", "prefill", "decode", "aggregated"}
        missing += [f"{kind['title']}.{name}" for name in sorted(own - cells - sub_tables)]
    return missing


def test_every_key_of_a_system_file_is_in_the_reference() -> None:
    assert missing_keys(json.loads(SCHEMA.read_text())) == []


def test_a_key_without_a_row_is_found() -> None:
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["new_key"] = {"type": "string"}
    schema["properties"]["new_table"] = {"$ref": "#/$defs/Cluster"}
    title, kind = next((kind["title"], kind) for kind in schema["$defs"].values())
    kind["properties"]["another_key"] = {"type": "string"}
    assert missing_keys(schema) == ["new_key", "new_table", f"{title}.another_key"]


def test_a_default_and_a_unit_are_those_of_the_code() -> None:
    row = next(line for line in page("system").splitlines() if line.startswith("| `stop_s`"))
    assert "; s | `15.0` |" in row


def test_every_kind_of_file_is_in_the_reference_with_its_schema() -> None:
    for kind in kinds.KINDS:
        assert f"(schema/{kind.name}.schema.json)" in page("formats")
        assert f"reference/schema/{kind.name}.schema.json" in files()


def test_a_field_without_a_docstring_has_a_row_all_the_same() -> None:
    assert len(list(fields_of(ClusterSpec))) == len(dataclasses.fields(ClusterSpec))


@functools.cache
def key_places() -> tuple[tuple[str, str], ...]:
    """Return the table and key of each row of the page of keys."""
    found, table = [], ""
    for line in page("system").splitlines():
        if heading := re.match(r"## `\[([^\]]+)\]`", line):
            table = heading[1]
        elif row := re.match(r"\| `(\w+)` \|", line):
            found.append((table, row[1]))
    return tuple(found)


def system_with(table: str, key: str, value: Any) -> str:
    """Return a system file with one key of a table, and what a file needs beside that key."""
    tables: dict[str, dict[str, Any]] = {
        "": {"schema_version": 1, "description": "d"},
        "cluster": {"kind": KINDS.get(table, "local"), "nodes": 2, "gpus_per_node": 8},
        "model": {"path": "m"},
    }
    if (table, key) == ("", "figures"):
        del tables["cluster"]["kind"]
    elif (table, key) == ("model", "shape"):
        tables["model"] = {}
    tables |= {table: dict(NEEDED[table])} if table in NEEDED else {}
    tables.setdefault(table.replace("<role>", "decode"), {})[key] = value
    lines = []
    for name, entries in tables.items():
        lines += [f"[{name}]"] if name else []
        lines += [f"{k} = {as_toml(v)}" for k, v in entries.items()]
    return "\n".join(lines) + "\n"


def refused(folder: Path, found: Mapping[tuple[str, str], Any]) -> list[str]:
    """Return the keys whose examples are not accepted, each with why."""
    path = folder / "mine" / "system.toml"
    path.parent.mkdir(exist_ok=True)
    wrong = []
    for table, key in key_places():
        path.write_text(system_with(table, key, found[table, key]))
        try:
            load_system("mine", [folder])
        except ConfigError as error:
            wrong.append(f"[{table}] {key}: {error}")
    return wrong


def test_the_example_of_every_key_is_accepted(tmp_path: Path) -> None:
    assert len(key_places()) > 100
    assert "\n".join(refused(tmp_path, examples())) == ""


def test_an_example_that_is_not_accepted_is_found(tmp_path: Path) -> None:
    (found,) = refused(tmp_path, {**examples(), ("limits", "stop_s"): "soon"})
    assert found.startswith("[limits] stop_s: ")


def test_an_example_of_a_key_that_a_shipped_file_uses_is_not_written_twice() -> None:
    own = own_examples() & set(key_places())
    assert len(own) > 50
    assert own & shipped_keys() == set()


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
