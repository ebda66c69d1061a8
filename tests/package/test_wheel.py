"""What the wheel and the sdist hold, and what the extra for servers resolves to."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from pathlib import PurePosixPath

import pytest

from tests.support.wheel import LIMIT_S
from tests.support.wheel import ROOT
from tests.support.wheel import build_wheel

FOLDERS = {
    "baselines": "pytest_pdserve/baselines",
    "pytest_pdserve": "pytest_pdserve",
    "suites": "pytest_pdserve/suites",
}
"""Folders of the repository that the wheel holds, and what they are called in it."""
SUFFIXES = {".py", ".txt", ".typed", ".toml", ".json", ".c", ".css", ".html", ".js"}
NOT_IN_SDIST = (".ci/", ".github/")


def repository() -> set[str]:
    """Files of the repository, those that are not added yet too."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


def members(wheel: Path) -> set[str]:
    """Files of the wheel but its metadata."""
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if not name.split("/")[0].endswith(".dist-info")}


def test_the_wheel_holds_the_package_its_suites_and_its_baselines_and_no_more(wheel: Path) -> None:
    expected = set()
    for name in repository():
        top, _, rest = name.partition("/")
        if top in FOLDERS:
            expected.add(f"{FOLDERS[top]}/{rest}")
    assert members(wheel) == expected


def test_the_wheel_holds_code_settings_and_schemas_alone(wheel: Path) -> None:
    assert {PurePosixPath(name).suffix for name in members(wheel)} == SUFFIXES


@pytest.mark.slow
def test_the_sdist_holds_the_repository_and_makes_the_same_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=LIMIT_S)
    (packed,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    kept = {name for name in repository() if not name.startswith(NOT_IN_SDIST)}
    assert held == {*kept, "PKG-INFO"}
    again = tmp_path / "wheel"
    assert members(build_wheel(source, again)) == members(wheel)


@pytest.mark.slow
def test_the_extra_serve_resolves_to_vllm_for_cuda(wheel: Path, tmp_path: Path) -> None:
    """Nothing is downloaded but metadata."""
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
    what = f"pytest-pdserve[serve] @ {wheel.as_uri()}"
    subprocess.run([*pip, "install", *options, what], check=True, timeout=2 * LIMIT_S)
    resolved = {part["metadata"]["name"] for part in json.loads(report.read_text())["install"]}
    assert {"vllm", "nixl", "vllm-router", "nvidia-cuda-runtime"} <= resolved
