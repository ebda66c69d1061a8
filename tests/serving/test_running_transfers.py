"""Real vLLM over TCP on a system that promises more: an ERROR before the first cell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.house import ROOT

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def test_a_system_that_promises_more_than_tcp_reaches_is_an_error(tmp_path: Path) -> None:
    text = (ROOT / "baselines" / "local-cpu" / "system.toml").read_text()
    file = tmp_path / "baselines" / "cpu-promise" / "system.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text.replace("[transfer]\n", "[transfer]\nfloor_gb_s = 20\n"))
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)),
            *(str(ROOT / "suites" / "sweep"), "-k", "32-16"),
            *("--system", "cpu-promise", "--topology", "1p1d", "--pdserve-runs", "runs"),
        ],
        cwd=tmp_path,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    said = result.stdout
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, said
    assert "slow in the running deployment: 1 of 1 pairs" in said
    assert "decode[0] on local1 <- prefill[0] on local0 by UCX (UCX_TLS=tcp), 256 tokens: " in said
    assert f"expected at least 10 GB/s (half of 20: [transfer] floor_gb_s of {file})" in said
    assert "UCX_TLS=tcp leaves only TCP" in said
    assert "repeat  pdserve transfer --system cpu-promise --backends UCX --pair local1" in said
    assert [*tmp_path.rglob("*.record.json")] == []
