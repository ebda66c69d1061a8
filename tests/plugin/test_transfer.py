"""``pdserve transfer``, ``suites/transfer`` and preflight, with real agents and a stand-in NIXL."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.results.transfer import load_transfer
from pytest_pdserve.values.exit_codes import ExitCode
from tests.support.house import STUBS
from tests.support.house import House

Transfer = Callable[..., int]
NO_AGENT = """
import psutil

def test_no_agent(pdserve_cluster):
    running = psutil.Process().children(recursive=True)
    assert not [each for each in running if "agent.py" in " ".join(each.cmdline())]
"""


@pytest.fixture
def transfers(house: House) -> Callable[..., None]:
    """A function that writes a system of three nodes, with faults of its stand-in NIXL."""

    def write(*, transfer: dict[str, Any] | None = None, **faults: str) -> None:
        env = {
            "PYTHONPATH": str(STUBS / "transfer"),
            "PDSTUB_NIXL": str(house.path / "nixl"),
            **{f"PDSTUB_NIXL_{name.upper()}": value for name, value in faults.items()},
        }
        spec = {"sizes_mib": [1], "in_flight": [1], "repeats": 3}
        house.system(
            cluster={"nodes": 3},
            pd_env={**env, "UCX_TLS": "tcp"},
            transfer={**spec, **(transfer or {})},
        )

    return write


@pytest.fixture
def transfer(house: House) -> Iterator[Transfer]:
    """The command, on the system called ``stub``; its handlers of signals are taken back."""
    kept = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield lambda *words: main(["transfer", "--system", "stub", *words])
    for number, handler in kept:
        signal.signal(number, handler)


def said_of(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without what changes from run to run."""
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.out + said.err


def widen(house: House) -> None:
    """Let transfers of 2 ms take 22, so that only those of 60 are slow on a busy machine."""
    path = house.path / "baselines" / "stub" / "transfer.json"
    baseline = json.loads(path.read_text())
    for reference in baseline["references"]:
        reference |= {"spread": 2.0, "runs": [[2.0] * len(run) for run in reference["runs"]]}
    path.write_text(json.dumps(baseline))


def test_a_pair_in_both_directions_leaves_records_and_a_baseline(
    house: House,
    transfers: Callable[..., None],
    transfer: Transfer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    transfers()
    assert transfer("--pair", "0,local2", "--json", "found.json") == ExitCode.OK
    assert "NEW" in capsys.readouterr().out
    paths = sorted(house.runs.glob("*/transfer/*.json"))
    assert [path.name for path in paths] == [
        "UCX-local0-from-local2.json",
        "UCX-local2-from-local0.json",
    ]
    measured = load_transfer(paths[0]).measured
    assert (measured.provider, measured.memory) == ("UCX_TLS=tcp", "DRAM")
    shapes = [(f.shape.id, f.shape.descriptors, f.shape.descriptor_bytes) for f in measured.figures]
    assert shapes == [("32tok", 4, 8192), ("1MiB", 1, 2**20)]
    assert all(len(figure.ms) == 3 and min(figure.ms) >= 1.0 for figure in measured.figures)
    rows = json.loads((house.path / "found.json").read_text())["transfers"]
    assert [(row["reader"], row["shape"], row["verdict"]) for row in rows] == [
        ("local0", "32tok", "NEW"),
        ("local0", "1MiB", "NEW"),
        ("local2", "32tok", "NEW"),
        ("local2", "1MiB", "NEW"),
    ]


def test_a_node_that_has_become_slow_is_a_fail_that_names_it(
    house: House,
    transfers: Callable[..., None],
    transfer: Transfer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    transfers()
    assert transfer("--accept", "--case", "32tok") == ExitCode.OK
    widen(house)
    house.monkeypatch.setenv("PDSTUB_NIXL_SLOW", "local1")
    assert transfer("--case", "32tok") == ExitCode.FAIL
    said = said_of(capsys)
    assert "FAIL 4 of 6" in said
    assert "FAIL local1 <- local0 by UCX (UCX_TLS=tcp, DRAM), 32tok: " in said
    assert "repeat  pdserve transfer --system stub --backends UCX --pair local1,local0" in said
    assert "local1 is slow in all of its 4 pairs that were measured" in said
    assert all(len(line) <= 80 for line in said.splitlines() if " · " in line)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("faults", "words", "message"),
    [
        (
            {"other": "local1"},
            (),
            "local0 reading from local1 by UCX (UCX_TLS=tcp) failed: 32tok: 4 of 4 pieces of 8,192 "
            "bytes hold other bytes than were sent",
        ),
        (
            {"wrong": "local1"},
            (),
            "local0 reading from local1 by UCX (UCX_TLS=tcp) failed: 32tok: 4 of 4 pieces of 8,192 "
            "bytes hold other bytes than were sent",
        ),
        (
            {"fails": "local1"},
            (),
            "local0 reading from local1 by UCX (UCX_TLS=tcp) failed: 32tok: NIXL reports that the "
            "transfer failed (state ERR)",
        ),
        (
            {},
            ("--backends", "LIBFABRIC"),
            "the NIXL agent of local0 cannot use backend LIBFABRIC: RuntimeError: "
            "NIXL_ERR_NOT_FOUND: no plugin for backend LIBFABRIC",
        ),
    ],
    ids=["bytes of its own", "wrong bytes", "state ERR", "plugin missing"],
)
def test_a_transfer_that_fails_is_an_error_and_never_a_figure(
    faults: dict[str, str],
    words: tuple[str, ...],
    message: str,
    house: House,
    transfers: Callable[..., None],
    transfer: Transfer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    transfers(**faults)
    assert transfer("--pair", "0,1", "--accept", *words) == ExitCode.ERROR
    said = said_of(capsys)
    assert message in said
    assert ("--pair local0,local1" in said) is bool(faults)
    assert not [*house.runs.glob("*/transfer/*.json")]
    assert not (house.path / "baselines/stub/transfer.json").exists()
    assert house.survivors(5.0) == []


@pytest.mark.slow
def test_preflight_names_a_slow_node_before_anything_is_started(
    house: House, transfers: Callable[..., None]
) -> None:
    house.suites("smoke")
    transfers(transfer={"preflight": True, "floor_gb_s": 0.001}, slow="local2")
    result = house.run("--topology", "1p2d")
    said = result.stdout.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(errors=1, skipped=2)
    assert "slow before any model is loaded: 1 of 2 pairs" in said
    assert "local2 is slow in all of its 1 pair that were measured" in said
    assert "expected at least 0.001 GB/s ([transfer] floor_gb_s of " in said
    assert "pdserve transfer --system stub --backends UCX --pair local2,local0" in said
    assert [*house.runs.glob("*/1p2d/logs/*")] == []
    kept = {path.name for path in house.runs.glob("*/transfer/*.json")}
    assert kept == {
        "1p2d-UCX-local1-from-local0.json",
        "1p2d-UCX-local2-from-local0.json",
        "1p2d-again-UCX-local2-from-local0.json",
    }


def test_preflight_without_anything_to_reach_is_refused(
    house: House, transfers: Callable[..., None]
) -> None:
    house.suites("smoke")
    transfers(transfer={"preflight": True})
    result = house.run("--topology", "1p1d")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "expected a minimum rate of pairs; set floor_gb_s" in result.stdout.str()
    assert os.listdir(house.path).count("nixl") == 0


@pytest.mark.slow
def test_the_suite_judges_every_shape_by_the_accepted_runs(
    house: House, transfers: Callable[..., None], transfer: Transfer
) -> None:
    house.suites("transfer")
    transfers(transfer={"sizes_mib": [1], "prompt_lens": [32]})
    assert transfer("--accept", "--case", "32tok") == ExitCode.OK
    widen(house)
    house.monkeypatch.setenv("PDSTUB_NIXL_SLOW", "local0")
    result = house.run("-rA")
    result.assert_outcomes(failed=1, passed=1)
    said = result.stdout.str()
    assert "FAILED suites/transfer/test_transfer.py::" in said
    assert "local0 is slow in all of its 4 pairs that were measured" in said
    assert "[1MiB]" in next(line for line in said.splitlines() if line.startswith("PASSED"))
    assert len([*house.runs.glob("*/transfer/32tok-UCX-*.json")]) == 6


def test_a_system_that_starts_nothing_has_no_transfers(
    house: House, transfer: Transfer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transfer("--system", "simulated") == ExitCode.BAD_INPUT
    assert "is of kind 'simulated', which starts nothing on nodes" in said_of(capsys)


@pytest.mark.slow
def test_agents_of_the_suite_do_not_run_beside_other_suites(
    house: House, transfers: Callable[..., None]
) -> None:
    house.suites("transfer")
    transfers(transfer={"sizes_mib": [1], "prompt_lens": [32]})
    later = house.path / "suites" / "transfer_later"
    shutil.copytree(house.path / "suites" / "transfer", later)
    (house.path / "suites" / "transfer_between").mkdir()
    (house.path / "suites" / "transfer_between" / "test_between.py").write_text(NO_AGENT)
    (later / "test_transfer.py").rename(later / "test_transfer_later.py")
    result = house.run("suites/transfer", "suites/transfer_between", "suites/transfer_later", "-v")
    said = result.stdout.str()
    result.assert_outcomes(passed=5)
    assert said.index("test_between.py::test_no_agent") > said.index("test_transfer.py::")
    assert sorted(path.name for path in house.runs.glob("*/transfer/agents*")) == [
        "agents-2-UCX",
        "agents-UCX",
    ]
