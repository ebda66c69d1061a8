"""Installs the folder of fabric libraries: download, unpack, compile, test, move into place.

Packages come from the index of the user's own pip configuration, and must match the hashes of
``requirements.txt``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.fabric import folder as folders
from pytest_pdserve.backends.fabric.folder import Installed
from pytest_pdserve.backends.fabric.folder import fabric_digest
from pytest_pdserve.backends.fabric.folder import find_installed
from pytest_pdserve.backends.fabric.folder import library_env
from pytest_pdserve.backends.fabric.probe import AgentProbe
from pytest_pdserve.backends.fabric.probe import probe_agent
from pytest_pdserve.backends.hosts.facts import run_quietly
from pytest_pdserve.results.files import write_json
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import InstallError
from pytest_pdserve.values.errors import StoreError

COMPILERS = ("cc", "gcc", "clang")
"""C compilers, in the order of preference."""
PROVIDER = "tcp"
"""libfabric provider with which the folder is tested."""
_DOWNLOAD_S = 1800.0
_COMPILE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Files to extract from a wheel."""

    wheel: str
    """Beginning of the wheel's file name."""
    members: tuple[str, ...]
    """Patterns of the files to extract; those that begin with ``!`` exclude files."""
    into: str
    """Subfolder to which they are extracted."""
    keeps_paths: bool = False
    """True if files keep their paths in the wheel."""

    def takes(self, member: str) -> bool:
        """Return whether to extract a file of the wheel."""
        wanted = [each for each in self.members if not each.startswith("!")]
        unwanted = [each[1:] for each in self.members if each.startswith("!")]
        return any(fnmatchcase(member, each) for each in wanted) and not any(
            fnmatchcase(member, each) for each in unwanted
        )


# Only the files in use: Intel's MPI runtime alone is ten times as large.
_PARTS = (
    _Part(
        wheel="impi_rt-",
        members=(
            *("*/lib/libfabric.so.1", "*/lib/libtcp-fi.so"),
            *("*/lib/libshm-fi.so", "*/lib/librxm-fi.so"),
        ),
        into=folders.LIBRARIES,
    ),
    _Part(wheel="impi_rt-", members=("*/bin/libfabric/fi_info",), into="bin"),
    _Part(wheel="impi_rt-", members=("*/licensing/*",), into="licences/impi-rt"),
    _Part(wheel="nvidia_cuda_runtime-", members=("*/libcudart.so.13",), into=folders.LIBRARIES),
    _Part(wheel="nvidia_cuda_runtime-", members=("*/licenses/*",), into="licences/cuda-runtime"),
    _Part(wheel="tcmlib-", members=("*/lib/libhwloc.so.15",), into=folders.LIBRARIES),
    _Part(wheel="tcmlib-", members=("*/licensing/*",), into="licences/tcmlib"),
    _Part(wheel="nixl-", members=("*",), into=folders.PACKAGES, keeps_paths=True),
    _Part(
        wheel="nixl_cu13-",
        # Headers, and plugins that the wheel carries a second time.
        members=("*", "!*.data/*", "!*.libs/nixl/*", "!nixl_ep*"),
        into=folders.PACKAGES,
        keeps_paths=True,
    ),
)


def install_fabric(folder: Path, progress: Progress) -> AgentProbe:
    """Install the libraries into *folder*, unless they are installed, and test them.

    :returns: provider and interfaces of a NIXL agent that uses the libraries.
    :raises ConfigError: if pip or a compiler is missing, or the folder has other files.
    :raises InstallError: if a package cannot be downloaded or used.
    :raises StoreError: if the folder cannot be written.
    """
    if find_installed(folder) is not None:
        return _test(folder, f"{folder} is installed, but cannot be used; remove it and install")
    _check_replaceable(folder)
    compiler = find_compiler()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with _naming_disk_errors(folder):
            wheels, staging = partial / "wheels", partial / "made"
            wheels.mkdir(parents=True)
            progress("downloading libfabric, NIXL and the CUDA runtime (165 MB)")
            _download(wheels)
            progress("unpacking them, and compiling the stand-in for libcuda")
            _unpack(wheels, staging)
            _compile(compiler, staging / folders.LIBRARIES / "libcuda.so.1")
            progress("creating a NIXL agent with them")
            probe = _test(staging, "the downloaded libraries cannot be used")
            write_json(staging / folders.MANIFEST, asdict(_read_versions(staging)))
            _move_into_place(staging, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return probe


def find_compiler() -> str:
    """Return the path of a C compiler.

    :raises ConfigError: if none is found.
    """
    for name in COMPILERS:
        if path := shutil.which(name):
            return path
    raise ConfigError(
        f"a C compiler is missing: none of {', '.join(COMPILERS)} is on PATH, and the stand-in for "
        "libcuda is compiled here; install one, e.g. Debian's package gcc"
    )


@contextlib.contextmanager
def _naming_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(f"{folder} cannot be written: {why}") from error


def _check_replaceable(folder: Path) -> None:
    """Raise if the folder has files that no earlier pdserve has installed."""
    if not is_there(folder) or is_there(folder / folders.MANIFEST):
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ConfigError(
            f"{folder} exists and is not a folder of `pdserve fabric install`; name another one by "
            "--folder"
        )


def _download(wheels: Path) -> None:
    if find_spec("pip") is None:
        raise ConfigError(
            f"pip is missing: {sys.executable} has no package pip, which downloads the libraries; "
            "run `python -m ensurepip`, or install it as you install packages"
        )
    argv = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
        *("--disable-pip-version-check", "--progress-bar", "off", "--only-binary", ":all:"),
        *("--no-deps", "--require-hashes", "--requirement", str(folders.REQUIREMENTS)),
        *("--dest", str(wheels)),
    ]
    code, text = _run(argv, _DOWNLOAD_S)
    if code:
        raise InstallError(download_trouble(text))


def download_trouble(text: str) -> str:
    """Return the message for a failed download.

    :param text: what pip printed.
    """
    lines = [line.strip() for line in environment_redactor().text(text).splitlines()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if "DO NOT MATCH THE HASHES" in text:
        changed = next((line.split()[0] for line in lines if "==" in line), "a package")
        return (
            f"{changed} was not installed: its file in the package index does not match the "
            f"pinned hash; no part of it was used ({_pinned()})"
        )
    last = errors[-1] if errors else next((line for line in reversed(lines) if line), "it failed")
    return (
        f"pip could not download the libraries: {last:.300}; expected them for Linux on x86_64 in "
        f"the index of your pip configuration (pip config list; {_pinned()})"
    )


def _pinned() -> str:
    return f"pins: {folders.REQUIREMENTS}"


def _unpack(wheels: Path, into: Path) -> None:
    for part in _PARTS:
        wheel = next(wheels.glob(f"{part.wheel}*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if part.takes(member) and not member.endswith("/"):
                    name = member if part.keeps_paths else Path(member).name
                    path = into / part.into / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(member))
                    path.chmod(0o755)


def _compile(compiler: str, library: Path) -> None:
    argv = [compiler, "-shared", "-fPIC", "-o", str(library), str(folders.STUB)]
    code, text = _run([*argv, f"-Wl,-soname,{library.name}"], _COMPILE_S)
    if code:
        error = text.strip().partition("\n")[0]
        raise InstallError(
            f"{compiler} could not compile {folders.STUB}: {error:.300}; install a complete C "
            "compiler, with the C library's development files"
        )


def _test(folder: Path, failure: str) -> AgentProbe:
    """Create a NIXL agent with the libraries of *folder*; raise with *failure* if that fails."""
    env = {**os.environ, **library_env(folder, os.environ), "FI_PROVIDER": PROVIDER}
    probe = probe_agent(env)
    if probe.trouble:
        raise InstallError(
            f"{failure}: NIXL cannot create an agent with LIBFABRIC over {PROVIDER}: "
            f"{probe.trouble}"
        )
    return probe


def _read_versions(folder: Path) -> Installed:
    library_path = f"LD_LIBRARY_PATH={folder / folders.LIBRARIES}"
    output = run_quietly(["env", library_path, str(folder / folders.FI_INFO), "--version"]) or ""
    lines = [line.partition(":")[2].strip() for line in output.splitlines() if "libfabric:" in line]
    found = metadata.distributions(name="nixl", path=[str(folder / folders.PACKAGES)])
    versions = {each.metadata["Name"]: each.version for each in found}
    if not lines or not versions:
        raise InstallError(f"{folder} has no libfabric or no NIXL after unpacking; install again")
    return Installed(digest=fabric_digest(), versions={**versions, "libfabric": lines[0]})


def _move_into_place(staging: Path, folder: Path) -> None:
    """Move *staging* to *folder*, replacing what an earlier pdserve installed there."""
    if is_there(folder):
        folder.rename(staging.with_name("earlier"))
    try:
        staging.rename(folder)
    except OSError:
        if find_installed(folder) is None:  # else another process was faster
            raise


def _run(argv: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Run a command; return its exit code, and its standard output and error as one text."""
    try:
        done = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"it was not done after {timeout_s:g} s"
    return done.returncode, done.stdout
