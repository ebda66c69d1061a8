"""Tries that change an input file, or put something else in its place."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.compatibility import FILE as COMPATIBILITY
from pytest_pdserve.results.compatibility import load_packages
from pytest_pdserve.results.store import load_bench_result
from pytest_pdserve.values.errors import PdserveError
from tests.support.fuzz.changes import changed
from tests.support.fuzz.world import Outcome
from tests.support.fuzz.world import World

ENCODINGS = ("utf-8", "utf-8", "latin-1", "ascii")
_SYSTEMS = ("mine", "real", "cont", "att", "my-p5-efa", "my-onehost-slurm", "my-local-cpu")
_TOPOLOGIES = ("dp", "1p1d", "1p3d", "route2", "all", "2x1p1d", "1p1d-tp1")
_READING_RUNS = (
    ("judge",),
    ("judge", "--format", "json"),
    ("judge", "--strict", "--partial"),
    ("show",),
    ("show", "--format", "json"),
    ("calibrate",),
    ("baseline", "propose"),
    ("baseline", "propose", "--every-session", "--any-version", "--last", "1"),
    ("baseline", "diff", "--all"),
    ("baseline", "accept", "--approver", "ann", "--note", "n"),
)
MAX_WORK = 2000
"""Tokens that a session of a changed system may generate in all."""


def system(rng: random.Random, world: World) -> Outcome:
    """Change a system file, and plan, judge or collect."""
    name = rng.choice((*_SYSTEMS, "my-article", "my-simulated"))
    _change(rng, world.project / "baselines" / name / "system.toml")
    asked = ("--system", name, "--topology", rng.choice(_TOPOLOGIES))
    kind = rng.random()
    if kind < 0.5:
        return world.pdserve("plan", *asked, encoding=rng.choice(ENCODINGS))
    if kind < 0.8:
        return _reading(rng, world, asked[:2])
    return world.pytest("suites", "-q", *asked, *_only_if_short(world, name, asked[3]))


def _only_if_short(world: World, name: str, topologies: str) -> tuple[str, ...]:
    """Only collect where a session would start servers, or compute for long."""
    try:
        found = load_system(name, [world.project / "baselines"])
        loads = found.sweep.workloads()
    except PdserveError:
        return ()
    work = sum(
        load.num_prompts * sum(load.lengths or (1000, 1000))
        for load in loads
        if isinstance(load.num_prompts, int)
    )
    short = found.simulated and work * (found.sweep.repeats or 1) < MAX_WORK
    return ("--pdserve-first-runs", "1") if short and topologies != "all" else ("--co",)


def claims(rng: random.Random, world: World) -> Outcome:
    """Change the claims, and judge a stored session or a new one by them."""
    _change(rng, world.project / "suites" / "claims.toml")
    if rng.random() < 0.7:
        return world.pdserve("judge", encoding=rng.choice(ENCODINGS))
    return world.pytest("suites", "-q", "--pdserve-first-runs", "1")


def expected(rng: random.Random, world: World) -> Outcome:
    """Change the expected changes."""
    _change(rng, world.project / "baselines" / "mine" / "expected.toml")
    if rng.random() < 0.8:
        return world.pdserve("judge", "--strict", encoding=rng.choice(ENCODINGS))
    return world.pytest("suites", "-q", "--pdserve-first-runs", "1")


def baseline(rng: random.Random, world: World) -> Outcome:
    """Change a baseline or a proposal, of any version."""
    folder = world.project / "baselines" / "mine"
    path = folder / rng.choice(("sweep.json", "sweep.json", "sweep.proposal.json"))
    if rng.random() < 0.2:
        old = rng.choice(("baseline-1.json", "baseline-2.json"))
        path.write_bytes((world.project / "old" / old).read_bytes())
    _change(rng, path)
    if rng.random() < 0.85:
        return _reading(rng, world, ())
    return world.pytest("suites", "-q", "--pdserve-first-runs", "1")


def record(rng: random.Random, world: World) -> Outcome:
    """Change records and session files of a runs folder."""
    runs = world.project / "runs"
    paths = sorted([*runs.glob("*/session.json"), *runs.glob("*/*/*")])
    for _ in range(rng.choice((1, 1, 4))):
        path = rng.choice(paths)
        if rng.random() < 0.1 and path.suffix == ".json":
            old = rng.choice(("record-1-measured.json", "record-1-simulated.json"))
            path.write_bytes((world.project / "old" / old).read_bytes())
        _change(rng, path)
    if rng.random() < 0.85:
        return _reading(rng, world, ("--system", rng.choice(("mine", "mine", "real"))))
    return world.pytest("suites", "-q", "--pdserve-first-runs", "1")


def imported(rng: random.Random, world: World) -> Outcome:
    """Change a result of another tool, and import it."""
    path = rng.choice(sorted((world.project / "imports").iterdir()))
    _change(rng, path)
    given = ("--dataset", rng.choice(("random", "sharegpt"))) if rng.random() < 0.5 else ()
    return world.pdserve(
        *("import", "--system", "real", "--topology", rng.choice(_TOPOLOGIES[:3]), *given),
        str(path),
        encoding=rng.choice(ENCODINGS),
    )


def series(rng: random.Random, world: World) -> Outcome:
    """Change a file of runs or of nights."""
    command, name = rng.choice((("calibrate", "runs.csv"), ("selftest", "nights.csv")))
    path = world.project / "series" / name
    _change(rng, path)
    return world.pdserve(command, "--series", str(path), encoding=rng.choice(ENCODINGS))


def settings(rng: random.Random, world: World) -> Outcome:
    """Change the settings of pytest; what pytest itself refuses is its own."""
    path = world.project / "pyproject.toml"
    if rng.random() < 0.5:
        path = path.with_name(rng.choice(("pytest.ini", "tox.ini", "setup.cfg", "pytest.toml")))
        title = "tool:pytest" if path.name == "setup.cfg" else "pytest"
        path.write_text(f"[{title}]\npdserve_system = mine\npdserve_strict = true\n")
    _change(rng, path)
    return world.pdserve(rng.choice(("plan", "judge", "show")), encoding=rng.choice(ENCODINGS))


def other_readers(rng: random.Random, world: World) -> Outcome:
    """Change figures, the table of versions, or the client's result, which have no command."""
    figures = world.project / "baselines" / "my-article" / "figures.toml"
    results = sorted((world.project / "imports").glob("vllm*.json"))
    path = world.project / "other"
    readers: list[tuple[Path, Callable[[Path], object]]] = [
        (figures, load_figures),
        (COMPATIBILITY, load_packages),
        (rng.choice(results), load_bench_result),
    ]
    source, reader = rng.choice(readers)
    path.write_bytes(changed(rng, source.read_bytes()))
    return world.library(lambda: reader(path))


def something_else(rng: random.Random, world: World) -> Outcome:
    """Put a pipe, a socket, a device, a folder, a loop or nothing where a file is expected."""
    project = world.project
    path, argv = rng.choice(
        (
            (project / "baselines" / "mine" / "system.toml", ("plan",)),
            (project / "baselines" / "mine" / "sweep.json", ("judge",)),
            (project / "baselines" / "mine" / "sweep.json", ("baseline", "propose")),
            (project / "baselines" / "mine" / "sweep.proposal.json", ("baseline", "diff")),
            (project / "baselines" / "mine" / "expected.toml", ("judge",)),
            (project / "baselines" / "mine", ("judge",)),
            (project / "baselines", ("plan",)),
            (project / "suites" / "claims.toml", ("judge",)),
            (project / "suites", ("judge",)),
            (project / "runs", ("judge",)),
            (project / "runs", ("show",)),
            (project / "series" / "runs.csv", ("calibrate", "--series", "series/runs.csv")),
            (project / "series" / "nights.csv", ("selftest", "--series", "series/nights.csv")),
            (project / "imports" / "vllm-0.6.6.json", _IMPORT),
            *((each, ("judge",)) for each in sorted((project / "runs").glob("*/session.json"))),
            *((each, ("judge",)) for each in sorted((project / "runs").glob("*/dp/*.json"))),
            *((each, ("show",)) for each in sorted((project / "runs").glob("*/dp"))),
        )
    )
    _replace(rng, path)
    if rng.random() < 0.2 and path.name != "suites":
        return world.pytest("suites", "-q", "--pdserve-first-runs", "1", "--system", "mine")
    return world.pdserve(*argv)


_IMPORT = ("import", "--system", "real", "--topology", "dp", "imports/vllm-0.6.6.json")


def _replace(rng: random.Random, path: Path) -> None:
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    made = rng.choice(_PLACED)
    made(path)
    if not os.path.lexists(path) and rng.random() < 0.1:
        path.write_bytes(b"")


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's whole path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 * 2**30)


def _ring(path: Path) -> None:
    other = path.with_name(f"{path.name}.ring")
    path.symlink_to(other)
    other.symlink_to(path)


_PLACED: tuple[Callable[[Path], object], ...] = (
    lambda path: None,
    lambda path: path.mkdir(),
    lambda path: path.write_bytes(b""),
    lambda path: os.mkfifo(path),
    lambda path: path.symlink_to(path),
    lambda path: path.symlink_to(path.with_name("nowhere")),
    lambda path: path.symlink_to(path.parent),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/dev/null"),
    lambda path: path.symlink_to("/proc/self/mem"),
    _socket,
    _sparse,
    _ring,
)


def _change(rng: random.Random, path: Path) -> None:
    path.write_bytes(changed(rng, path.read_bytes()))


def _reading(rng: random.Random, world: World, asked: tuple[str, ...]) -> Outcome:
    return world.pdserve(*rng.choice(_READING_RUNS), *asked, encoding=rng.choice(ENCODINGS))
