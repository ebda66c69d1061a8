"""What a session of several topologies spends beside its loads, held against the article's way.

    python benchmarks/session/compare.py [--topologies dp,1p3d] [--cells 2] [--only article,ours]
                                         [--prompts 4]

On this machine, with real servers on the CPU (system ``local-cpu``), in one run, one way after the
other:

``article``  a launcher per topology, a client command per cell: articles_way.py
``ours``     ``pytest suites/sweep``, with references of its own: none, so that nothing runs again
``shared``   the same with ``--pdserve-share-engines``

Non-measuring time is the wall time of the way, from its start to its end, less the durations that
the client reports of its loads. Exit code 1: a way failed, lacks cells, or (if ours was asked and
all is measured) every way of ours spends more than half of the article's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

from articles_way import Launcher
from articles_way import WayError
from articles_way import measure_all
from articles_way import read_caches

from pytest_pdserve.backends.hosts.groups import Groups
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import baseline_folders
from pytest_pdserve.results.store import PHASES_FILE
from pytest_pdserve.serving.model import make_tiny_model
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies

ROOT = Path(__file__).parents[2]
SYSTEM = "local-cpu"
WAYS = ("article", "ours", "shared")
TARGET = 0.5
"""The largest accepted share of the article's non-measuring time."""
_END_S = 90.0
"""For pytest to end its servers, and to write what it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Where the time of one way went, in seconds."""

    way: str
    total_s: float
    load_s: float
    start_s: float
    """Starting servers until they answer; of our sessions also warming them up."""
    client_s: float
    stop_s: float
    starts: int
    cells: int
    poll_s: float = 0.0
    """Of the starts, between the last server's answer and the poll that saw it."""
    rerun_s: float = 0.0

    @property
    def outside_s(self) -> float:
        """The non-measuring time."""
        return self.total_s - self.load_s

    @property
    def rest_s(self) -> float:
        """Of it, all but starts, client and stops."""
        return self.outside_s - self.start_s - self.client_s - self.stop_s


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def measure(options: argparse.Namespace, folder: Path, groups: Groups) -> Iterator[Row]:
    """Run the ways that were asked, one after the other; yield a row of each."""
    topologies = parse_topologies(options.topologies)
    project = make_project(folder, options.prompts)
    system = with_model_path(load_system(SYSTEM, baseline_folders(project)))
    cells = len(system.sweep.workloads())
    cells = min(options.cells or cells, cells)
    deadline = time.monotonic() + options.limit
    make_tiny_model(Path(system.model.path))
    read_caches(groups)
    for way in options.only:
        if way == "article":
            launcher = Launcher(
                system=system,
                cells=cells,
                folder=folder / way,
                groups=groups,
                deadline=deadline,
                poll_s=options.poll,
            )
            yield article(launcher, topologies)
        else:
            argv = pytest_command(system, topologies, cells, folder / way)
            argv += ["--rootdir", str(project)]
            if way == "shared":
                argv.append("--pdserve-share-engines")
            yield ours(way, argv, folder / way, groups, deadline)


def make_project(folder: Path, prompts: int | None) -> Path:
    """Return a project with the system of all ways: ours, with *prompts* a load if it is given."""
    shipped = load_system(SYSTEM, baseline_folders(ROOT)).source
    text = Path(shipped).read_text()
    if prompts is not None:
        text, changed = re.subn(r"(?m)^num_prompts = .*$", f"num_prompts = {prompts}", text)
        if changed != 1:
            raise WayError(f"{shipped} has {changed} lines with num_prompts, expected 1")
    own = folder / "project" / "baselines" / SYSTEM / Path(shipped).name
    own.parent.mkdir(parents=True)
    own.write_text(text)
    return folder / "project"


def article(launcher: Launcher, topologies: Sequence[Topology]) -> Row:
    """Measure the article's way."""
    began = time.monotonic()
    spent = measure_all(launcher, topologies, say)
    return Row(
        way="article",
        total_s=time.monotonic() - began,
        load_s=sum(each.load_s for each in spent),
        start_s=sum(each.start_s for each in spent),
        client_s=sum(each.client_s for each in spent),
        stop_s=sum(each.stop_s for each in spent),
        starts=len(spent),
        cells=sum(each.cells for each in spent),
        poll_s=sum(each.poll_s for each in spent),
    )


def pytest_command(
    system: System, topologies: Sequence[Topology], cells: int, folder: Path
) -> list[str]:
    """Return the command of a session of the first *cells* of the sweep on *topologies*."""
    workloads = system.sweep.workloads()
    tests = ["suites/sweep"]
    if cells < len(workloads):
        tests = [
            f"suites/sweep/test_sweep.py::test_sweep[{topology.id}-{each.input_len}-{each.output_len}]"
            for topology in topologies
            for each in workloads[:cells]
        ]
    argv = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *tests]
    argv += ["--topology", ",".join(topology.id for topology in topologies), "--system", SYSTEM]
    argv += ["--pdserve-no-record", "--pdserve-first-runs", "1"]
    return [*argv, "--pdserve-runs", str(folder / "runs")]


def ours(way: str, argv: Sequence[str], folder: Path, groups: Groups, deadline: float) -> Row:
    """Measure a session of ours.

    :raises WayError: if it fails, or is not done in time.
    """
    folder.mkdir(parents=True)
    log = folder / "pytest.log"
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "CI": "1"}
    began = time.monotonic()
    with log.open("wb") as output:
        process = groups.start("pytest", argv, env=env, output=output)
    try:
        code = process.wait(timeout=max(0.0, deadline - began))
    except subprocess.TimeoutExpired:
        raise WayError(f"{way}: pytest was not done in time; {_end(log)}") from None
    finally:
        groups.stop([process.pid], grace_s=_END_S)
    total_s = time.monotonic() - began
    if code:
        raise WayError(f"{way}: pytest ended with code {code}; {_end(log)}")
    (path,) = (folder / "runs").glob(f"*/{PHASES_FILE}")
    phases = json.loads(path.read_text())
    seconds = phases["seconds"]
    say(f"{way}: {total_s:.0f} s; {', '.join(f'{k} {v:.0f}' for k, v in seconds.items())}")
    return Row(
        way=way,
        total_s=total_s,
        load_s=seconds["load"],
        start_s=seconds.get("start", 0.0) + seconds.get("warm-up", 0.0),
        client_s=seconds.get("client", 0.0),
        stop_s=seconds.get("stop", 0.0),
        starts=len(phases["starts"]),
        cells=phases["runs"],
        rerun_s=phases["rerun_s"],
    )


def _end(log: Path) -> str:
    return f"the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def markdown(rows: Sequence[Row]) -> str:
    """Return the table."""
    theirs = next((row for row in rows if row.way == "article"), None)
    lines = [
        "| way | total s | load s | non-measuring s | start | client | stop | rest | starts "
        "| cells | of the article's way |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [row.total_s, row.load_s, row.outside_s, row.start_s]
        times += [row.client_s, row.stop_s, row.rest_s]
        ratio = "-" if theirs is None else f"{row.outside_s / theirs.outside_s:.2f}"
        said = " | ".join(f"{value:.1f}" for value in times)
        lines.append(f"| {row.way} | {said} | {row.starts} | {row.cells} | {ratio} |")
    return "\n".join(lines)


def remarks(rows: Sequence[Row]) -> Iterator[str]:
    """Say what must be known beside the table."""
    by_way = {row.way: row for row in rows}
    theirs = by_way.get("article")
    for way in ("ours", "shared"):
        row = by_way.get(way)
        if row is None:
            continue
        if row.rerun_s:
            yield f"{way}: {row.rerun_s:.0f} s of reruns are in it."
        if theirs is not None:
            met = "met" if row.outside_s <= TARGET * theirs.outside_s else "missed"
            without = row.outside_s / (theirs.outside_s - theirs.poll_s)
            yield (
                f"{way}: at most {TARGET:g} of the article's way is {met}; {without:.2f} if the "
                f"{theirs.poll_s:.0f} s in which its launcher waits for its next poll are left out."
            )


def main() -> int:
    """Measure, print the table, and write it."""
    options = asked()
    os.chdir(ROOT)  # pytest finds its suites here
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="pdserve-ways-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    rows: list[Row] = []
    trouble = ""
    try:
        with closing(Groups(15.0, folder, say)) as groups:
            for row in measure(options, folder, groups):
                rows.append(row)
    except KeyboardInterrupt:
        trouble = "interrupted: the table has what was measured until then"
    except (WayError, PdserveError) as error:
        trouble = str(error)
    minutes = (time.monotonic() - began) / 60
    where = f"{os.cpu_count()} cores, {options.topologies}, {minutes:.1f} min in all"
    text = "\n".join([markdown(rows), "", *remarks(rows), where])
    say(text)
    if options.markdown:
        options.markdown.write_text(text + "\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if trouble:
        say(f"{trouble}\nlogs: {folder}")
        return 1
    if options.keep is None:
        shutil.rmtree(folder)
    return verdict(rows)


def verdict(rows: Sequence[Row]) -> int:
    """Return 1 if cells are missing, or no way of ours meets the target."""
    if len({row.cells for row in rows}) > 1:
        say("the ways did not measure the same number of cells")
        return 1
    theirs = [row.outside_s for row in rows if row.way == "article"]
    best = [row.outside_s for row in rows if row.way != "article"]
    return int(bool(theirs and best) and min(best) > TARGET * theirs[0])


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def asked() -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--topologies", default="all", help="ids, or all five (default: all)")
    add("--cells", type=int, help="cells of the sweep, from the first (default: all)")
    add("--prompts", type=int, help="prompts of each load (default: the system's)")
    add("--only", default=",".join(WAYS), help="ways, in their order (default: %(default)s)")
    add(
        "--poll",
        type=float,
        default=10.0,
        help="seconds between its polls (default: the article's, 10)",
    )
    add("--limit", type=float, default=5400, help="seconds for all (default: %(default)s)")
    add("--markdown", type=_absolute, metavar="FILE", help="where the table is written too")
    add("--json", type=_absolute, metavar="FILE", help="where the figures are written")
    add(
        "--keep",
        type=_absolute,
        metavar="DIR",
        help="where logs and records stay (default: nowhere)",
    )
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(WAYS):
        parser.error(f"--only {', '.join(unknown)}: expected {', '.join(WAYS)}")
    if options.cells is not None and options.cells < 1:
        parser.error(f"--cells {options.cells}: expected a number from 1")
    if options.prompts is not None and options.prompts < 1:
        parser.error(f"--prompts {options.prompts}: expected a number from 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
