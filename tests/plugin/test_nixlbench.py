"""NIXL's own benchmark beside ``pdserve transfer``: a stand-in program on PATH."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.values.exit_codes import ExitCode
from tests.support.house import STUBS
from tests.support.house import House

TABLE = """\
Block Size (B)      Batch Size     B/W (GB/Sec)   Avg Lat. (us)  Avg Prep (us)
--------------------------------------------------------------------------------
1024                8              12.500000      0.7            1.2
"""


@pytest.fixture
def bench(house: House, tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """A function that runs the command beside a ``nixlbench`` which runs a line of shell."""
    house.system(
        cluster={"nodes": 2},
        pd_env={
            "PYTHONPATH": str(STUBS / "transfer"),
            "PDSTUB_NIXL": str(house.path / "nixl"),
            "UCX_TLS": "tcp",
        },
        transfer={"sizes_mib": [1], "in_flight": [1], "repeats": 3, "block_size": 16},
    )
    folder = tmp_path / "bin"
    folder.mkdir()
    house.monkeypatch.setenv("PATH", str(folder), prepend=":")
    house.monkeypatch.setenv("NIXL_ETCD_ENDPOINTS", "http://h01:2379")
    kept = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]

    def run(shell: str) -> int:
        program = folder / "nixlbench"
        program.write_text(f'#!/bin/sh\necho "$@" >> "{house.path}/asked"\n{shell}\n')
        program.chmod(0o755)
        words = ["--system", "stub", "--case", "32tok", "--json", "found.json"]
        return main(["transfer", *words])

    yield run
    for number, handler in kept:
        signal.signal(number, handler)


def test_both_ends_get_the_same_arguments_and_their_rate_is_a_column(
    house: House, bench: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(f"cat <<'END'\n{TABLE}END") == ExitCode.OK
    first, second = (house.path / "asked").read_text().splitlines()
    group = first.split()[1]
    assert (
        first
        == second
        == (
            f"--benchmark_group {group} --backend UCX --etcd_endpoints http://h01:2379 "
            "--initiator_seg_type DRAM --target_seg_type DRAM --op_type READ --check_consistency "
            "--start_block_size 1024 --max_block_size 1024 --start_batch_size 8 --max_batch_size 8 "
            "--total_buffer_size 16384 --num_iter 160 --warmup_iter 16"
        )
    )
    said = capsys.readouterr().out
    assert "nixlbench" in said
    assert "12.50   NEW" in said
    rows = json.loads((house.path / "found.json").read_text())["transfers"]
    assert [row["nixlbench_gb_s"] for row in rows] == [[12.5], [12.5]]


@pytest.mark.parametrize(
    ("shell", "why"),
    [
        ("exit 3", "it exited with code 3"),
        pytest.param("echo 'no etcd'", "it printed no GB/s of this shape", marks=pytest.mark.slow),
    ],
    ids=["fails", "prints no table"],
)
def test_a_benchmark_that_fails_is_told_and_spoils_nothing(
    shell: str,
    why: str,
    house: House,
    bench: Callable[[str], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench(shell) == ExitCode.OK
    said = capsys.readouterr()
    assert f"nixlbench between local0 <- local1, UCX, 32tok failed: {why}; logs " in said.err
    assert "failed   NEW" in said.out
    assert len([*house.runs.glob("*/transfer/UCX-*.json")]) == 2
