"""Environments of stub engines, as a stack names them: ``python:FOLDER``."""

from __future__ import annotations

import json
import shlex
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.house import STUBS

_PROGRAM = """\
import json, os, sys
from importlib import metadata


def has(need):
    name, _, version = need.partition("==")
    return need in sys.argv if need.startswith("--") else metadata.version(name) == version


def main():
    faults = {{}}
    for needs, given in json.load(open({rules!r})).get({name!r}, []):
        if all(map(has, needs)):
            faults |= given
    os.environ["PDSTUB_FAULTS"] = json.dumps({{{process!r}: faults}})
    os.execv(sys.executable, [sys.executable, "-I", "-S", {stub!r}, *sys.argv[1:]])
"""
"""A program of a wheel, which runs a stub with the faults of its environment and arguments."""
VERSIONS = {"vllm": "0.32.0", "nixl": "1.5.1", "vllm-router": "0.1.17"}
OLDER = {"vllm": "0.31.0", "nixl": "1.4.1", "vllm-router": "0.1.16"}


def make_environment(
    folder: Path,
    versions: Mapping[str, str] = VERSIONS,
    *,
    vllm: Mapping[str, Any] | None = None,
    router: Mapping[str, Any] | None = None,
) -> Path:
    """Make an environment whose ``vllm`` and ``vllm-router`` are stubs; return its folder.

    :param versions: of the distributions that it has.
    :param vllm: faults of its engines; *router*: those of its router.
    """
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages, programs = folder / "lib" / name / "site-packages", folder / "bin"
    packages.mkdir(parents=True)
    programs.mkdir()
    base = Path(sys.executable).resolve()
    (programs / "python").symlink_to(base)
    (folder / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\n"
    )
    for distribution, version in versions.items():
        info = packages / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
    for program, stub, faults in (
        ("vllm", "vllm_stub.py", {"*": vllm or {}}),
        ("vllm-router", "router_stub.py", {"router": router or {}}),
    ):
        path = programs / program
        said = shlex.quote(json.dumps(faults))
        start = shlex.join([str(programs / "python"), "-I", "-S", str(STUBS / stub)])
        path.write_text(f'#!/bin/sh\nexport PDSTUB_FAULTS={said}\nexec {start} "$@"\n')
        path.chmod(0o755)
    return folder


def add_client(environment: Path) -> None:
    """Add the module to an environment by which another environment's gate runs its client."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    module = packages / "vllm" / "entrypoints" / "cli" / "main.py"
    module.parent.mkdir(parents=True)
    command = [sys.executable, "-I", "-S", str(STUBS / "vllm_stub.py")]
    module.write_text(f"import os, sys\nos.execv({command[0]!r}, [*{command!r}, *sys.argv[1:]])\n")


def write_stub_wheels(folder: Path, rules: Path) -> None:
    """Write two versions of each serving package, whose programs are stubs.

    :param rules: JSON file with the faults of each program: pairs of what an environment and its
        arguments must have for them, such as ``nixl==1.5.1``, and the faults.
    """
    for name, stub, process in (
        ("vllm", "vllm_stub.py", "*"),
        ("vllm-router", "router_stub.py", "router"),
    ):
        module = name.replace("-", "_")
        program = _PROGRAM.format(
            rules=str(rules), name=name, process=process, stub=str(STUBS / stub)
        )
        script = f"[console_scripts]\n{name} = {module}:main\n"
        for version in (OLDER[name], VERSIONS[name]):
            files = {f"{module}/__init__.py": program, "entry_points.txt": script}
            write_wheel(folder, name, version, files)
    for version in (OLDER["nixl"], VERSIONS["nixl"]):
        write_wheel(folder, "nixl", version, {"nixl/__init__.py": ""})


def write_wheel(folder: Path, name: str, version: str, files: Mapping[str, str]) -> None:
    """Write a wheel in pure Python.

    :param files: text by path; an ``entry_points.txt`` goes beside its metadata.
    """
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    texts = {
        (f"{info}/{path}" if path == "entry_points.txt" else path): text
        for path, text in files.items()
    }
    texts |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    texts[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*texts, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{plain}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in texts.items():
            wheel.writestr(path, text)
