"""The search of the built site finds what users look for on the page where it belongs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.wheel import ROOT

FIRST = 3
"""The page must be among so many results."""
WANTED = {
    "CUDA_VISIBLE_DEVICES": "gpu-host",
    "first red night": "tutorial/red-night",
    "expected.toml": "judging",
    "kv_load_failure_policy": "reference/system",
    "exit code 6": "reference/results",
    "spread": "glossary",
    "sinfo down": "slurm",
    "EFA": "transfer",
    "tokens differ": "records",
    "baseline accept": "baselines",
    "Connection refused": "endpoints",
    "since when is it slower": "trend",
}
"""Page of each query."""


def found_by(site: Path, queries: Sequence[str]) -> dict[str, list[str]]:
    """Return the pages that the site's own search finds for each query, the best first."""
    (worker,) = site.glob("assets/javascripts/workers/search.*.min.js")
    index = site / "search" / "search_index.json"
    command = ["node", str(ROOT / "tests/support/search.js"), str(worker), str(index), *queries]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    pages = [[place.partition(".html")[0] for place in places] for places in results]
    return dict(zip(queries, pages, strict=True))


def not_found(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the queries whose page is not among the first results, each with what is."""
    return [
        f"{query}: expected {page}, found {found[query][:FIRST]}"
        for query, page in WANTED.items()
        if page not in found[query][:FIRST]
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation."""
    if shutil.which("node") is None and not os.environ.get("CI"):
        pytest.skip("the site's search runs in node, which is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    return folder


@pytest.mark.slow
def test_what_a_user_searches_is_found_on_the_page_where_it_belongs(site: Path) -> None:
    assert not_found(found_by(site, tuple(WANTED))) == []


@pytest.mark.slow
def test_a_word_of_no_page_is_not_found(site: Path) -> None:
    assert found_by(site, ("zebrafish",)) == {"zebrafish": []}


def test_a_page_behind_the_first_results_is_not_found() -> None:
    found = {query: ["a", "b", "c", page] for query, page in WANTED.items()}
    assert len(not_found(found)) == len(WANTED)
