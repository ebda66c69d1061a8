"""Draw the pictures of README and docs again: ``make pictures``.

Those of the article come from ``baselines/article``. Distributions and the trend are of simulated
sessions that are made for it and thrown away, and their captions say so. docs/simulation.png holds
the simulation against the article's figures, as ``fit_simulation.py`` draws it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fit_simulation import ROOT
from fit_simulation import draw
from fit_simulation import read_figures
from fit_simulation import simulate_sweep
from nights import write_nights
from page_pictures import draw_page

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.simulation.constants import fitted

DOCS = ROOT / "docs"
PICTURES = DOCS / "pictures"
ARTICLE = (
    *("output-throughput", "request-throughput", "mean-ttft-ms", "mean-itl-ms"),
    "mean-itl-ms-by-throughput",
)
"""Figures of the article that docs/figures.md shows."""


def plot(source: str, folder: Path, *arguments: str) -> Path:
    """Run ``pdserve plot`` in *folder*, and return where its files are."""
    out = folder / "figures"
    command = (sys.executable, "-m", "pytest_pdserve.commands.main", "plot", source)
    project = ("--rootdir", str(folder), "--out", str(out))
    subprocess.run([*command, *project, *arguments], cwd=folder, check=True)
    return out


def keep(out: Path, names: Mapping[str, str]) -> None:
    """Copy SVGs from *out* into the docs: name there, by name in *out*."""
    PICTURES.mkdir(exist_ok=True)
    for name, kept in names.items():
        shutil.copyfile(out / f"{name}.svg", PICTURES / f"{kept}.svg")


def project(folder: Path) -> Path:
    """Make an empty project."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def simulated_session(folder: Path) -> Path:
    """Simulate two loads on four topologies, and return the session's folder."""
    command = (sys.executable, "-m", "pytest", str(ROOT / "suites" / "sweep"), "--quiet")
    asked = (
        "--system",
        "simulated",
        "--topology",
        "dp,route4,1p3d,2p2d",
        "-k",
        "2048-256 or 512-512",
    )
    once = (
        "--pdserve-first-runs",
        "1",
        "--pdserve-no-record",
        "--pdserve-runs",
        str(folder / "runs"),
    )
    own = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    whole = [*command, "--rootdir", str(folder), *asked, *once]
    subprocess.run(whole, cwd=folder, env=own, check=True)
    (session,) = (folder / "runs").iterdir()
    return session


def simulated_nights(folder: Path) -> None:
    """Import 90 simulated nights into a history in *folder*."""
    write_nights(folder / "runs")
    command = (sys.executable, "-m", "pytest_pdserve.commands.main", "history", "import")
    subprocess.run(command, cwd=folder, check=True)


def main() -> None:
    """Draw all pictures."""
    with tempfile.TemporaryDirectory(prefix="pdserve-pictures-") as name:
        there = Path(name)
        keep(plot("article", project(there / "article")), {each: each for each in ARTICLE})
        folder = project(there / "session")
        out = plot(str(simulated_session(folder)), folder)
        keep(out, {"ttft-distribution": "ttft-distribution"})
        folder = project(there / "nights")
        simulated_nights(folder)
        out = plot("history", folder, "--metric", "mean_itl_ms", "--topology", "1p3d")
        (trend,) = out.glob("trend-*-1p3d-random-512-256-n1024-mean-itl-ms.svg")
        keep(out, {trend.stem: "trend"})
        draw_page(project(there / "page"), PICTURES)
    system = load_system("simulated", [ROOT / "baselines"])
    article = read_figures(ROOT / "benchmarks" / "article.csv")
    draw(article, simulate_sweep(system, fitted()), DOCS / "simulation.png")


if __name__ == "__main__":
    main()
