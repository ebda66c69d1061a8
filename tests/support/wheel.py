"""The wheel, and an environment that holds it and nothing of this project's own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The Python that runs the tests."""
LIMIT_S = 300
"""A command that takes longer hangs."""


def named_pythons() -> list[str]:
    """Return the versions of Python that ``pyproject.toml`` names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))


def find_python(version: str) -> Path | None:
    """Return an executable of *version*: this one, pyenv's, or one on PATH; None if there is none.

    A shim of pyenv does not count: it may stand for a version that is not switched on.
    """
    if version == RUNNING:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))
    on_path = shutil.which(f"python{version}")
    if on_path and Path(on_path).parent.name != "shims":
        found.append(Path(on_path))
    return found[0] if found else None


def build_wheel(source: Path, into: Path) -> Path:
    """Build the wheel of the project in *source* into *into*, with what is installed here."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(into)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True, timeout=LIMIT_S)
    (wheel,) = into.glob("*.whl")
    return wheel


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A command that ended."""

    code: int
    text: str
    """What it printed, errors included."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The wheel in an environment of its own."""

    folder: Path
    """``env/`` is the environment, ``home/`` the user's folder, ``work/`` where commands run."""
    version: str
    """Of Python."""
    seconds: float
    """How long the installation took."""
    before: Mapping[str, tuple[int, int]]
    """What :meth:`files` returned before anything of it ran."""

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, line: str, folder: Path) -> Ran:
        """Run what a user types in *folder*, with nothing of this process's environment."""
        env = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": f"{self.folder / 'env' / 'bin'}:/usr/bin:/bin",
        }
        program, *rest = shlex.split(line)
        found = shutil.which(program, path=env["PATH"])
        assert found is not None, f"{program} is not installed"
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        ended = subprocess.run(
            [found, *rest],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
        seconds = time.monotonic() - began
        return Ran(code=ended.returncode, text=ended.stdout, seconds=seconds)

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of every file of the environment but bytecode, by path."""
        return _files(self.folder / "env")

    def distributions(self) -> set[str]:
        """Names of what is installed, in lower case and with hyphens."""
        found = (self.folder / "env").glob("lib/python*/site-packages/*.dist-info")
        return {path.name.split("-")[0].replace("_", "-").lower() for path in found}


def install(wheel: Path, extra: str, *, version: str, folder: Path) -> Installed:
    """Install *wheel* with *extra* into an empty environment of *version* in *folder*.

    Versions are the lock's, for a result that does not change from day to day. uv takes them from
    the cache that `make setup` filled; where it finds no index, pip takes over.
    """
    python = find_python(version)
    assert python is not None, f"no Python {version} on this machine"
    began = time.monotonic()
    env = folder / "env"
    command = [str(python), "-m", "venv", "--without-pip", str(env)]
    subprocess.run(command, check=True, timeout=LIMIT_S)
    for name in ("home", "work"):
        (folder / name).mkdir()
    locked = folder / "constraints.txt"
    locked.write_text(_without_hashes((ROOT / "requirements" / "lock.txt").read_text()))
    inside = str(env / "bin" / "python")
    what = ["install", "--quiet", "--constraint", str(locked)]
    what.append(f"pytest-pdserve[{extra}] @ {wheel.as_uri()}")
    by_uv = [sys.executable, "-m", "uv", "pip", *what, "--python", inside]
    if subprocess.run(by_uv, timeout=LIMIT_S, capture_output=True).returncode != 0:
        by_pip = [sys.executable, "-m", "pip", "--python", inside, *what]
        subprocess.run(by_pip, check=True, timeout=LIMIT_S)
    seconds = time.monotonic() - began
    return Installed(folder=folder, version=version, seconds=seconds, before=_files(env))


def _files(env: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(env)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in env.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _without_hashes(lock: str) -> str:
    """Return the pins of *lock* alone: pip would ask for a hash of the wheel too."""
    return "\n".join(re.findall(r"^([\w.-]+==[^\\\n]*)", lock, re.MULTILINE)) + "\n"
