"""Real vLLM over real LIBFABRIC on this machine, and what keeps it from starting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.fabric.checking import check_libraries
from pytest_pdserve.backends.fabric.folder import default_folder
from pytest_pdserve.backends.fabric.folder import find_installed
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.errors import ConfigError

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        find_installed(default_folder()) is None,
        reason="libfabric is not installed: run `pdserve fabric install`",
    ),
]

ROOT = Path(__file__).parents[2]


def suites(tmp_path: Path, topology: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run suites on ``local-fabric``; their records are in ``runs``, and nothing else is kept."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments),
            *("--system", "local-fabric", "--topology", topology),
            *("--pdserve-first-runs", "1", "--pdserve-runs", str(tmp_path / "runs")),
        ],
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow  # 110 s of make test, which has 12 minutes
def test_prefill_and_decode_move_their_cache_over_libfabric(tmp_path: Path) -> None:
    cell = ("suites/smoke", "suites/sweep", "-k", "smoke or 32-16")
    result = suites(tmp_path, "1p1d", *cell)
    assert result.returncode == 0, result.stdout
    assert "1p1d: path proven with 2 requests" in result.stdout
    (path,) = (tmp_path / "runs").rglob("*.record.json")
    record = json.loads(path.read_text())
    assert {finding["severity"] for finding in record["findings"]} <= {"note"}
    # 32 tokens take a block of 128, each token 8 layers x (4 + 4) heads x 64 x 4 bytes.
    assert record["metrics"]["kv_bytes_per_request"] == 128 * 8 * 8 * 64 * 4
    assert record["metrics"]["kv_transfers"] == 16
    assert record["versions"]["nixl"] == "1.4.1"
    assert record["versions"]["libfabric"].startswith("2.2")
    assert record["cluster"]["provider"] == "tcp"
    loaded = {process["name"]: process["env"] for process in record["processes"]}
    assert "FI_PROVIDER_PATH" in loaded["decode[0]"]


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["dp", "route2", "route4", "1p3d", "2p2d"])
def test_each_of_the_articles_topologies_passes_the_smoke_suite(
    topology: str, tmp_path: Path
) -> None:
    result = suites(tmp_path, topology, "suites/smoke")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FI_PROVIDER", "nosuch", "FI_PROVIDER = 'nosuch': fi_getinfo failed No data available"),
        ("FI_TCP_IFACE", "lo", "FI_TCP_IFACE = 'lo': fi_enable failed for rail 0"),
        ("LD_LIBRARY_PATH", "", "libfabric.so.1: cannot open shared object file"),
    ],
    ids=["provider", "interface", "library"],
)
def test_what_is_missing_is_told_before_a_model_loads(variable: str, value: str, said: str) -> None:
    system = load_system("local-fabric", SHIPPED)
    with pytest.raises(ConfigError) as caught:
        check_libraries(replace(system, pd_env={**system.pd_env, variable: value}))
    assert said in str(caught.value)
