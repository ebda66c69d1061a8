"""However a session ends, nothing of it runs on, and no record is lost or half-written."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_pdserve.results.store import load_record
from tests.support.drawn import write_nights
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.house import wait_text

PHASES: dict[str, dict[str, dict[str, object]]] = {
    "stand-up": {"decode_0": {"never_ready": True}},
    "warm-up": {"decode_0": {"first_ms": 8000}},
    "benchmark": {"bench": {"hang": True}},
    "teardown": {"every": {"ignore_term": True}},
}
LOGS = {"stand-up": "logs/decode-0", "warm-up": "logs/router", "benchmark": f"{WORKLOAD}.0.bench"}


@pytest.fixture(autouse=True)
def sweep(house: House) -> None:
    house.suites("sweep")
    house.may_be_interrupted()


def wait_phase(house: House, process: subprocess.Popen[bytes], phase: str) -> None:
    """Wait until a session of 1p1d is in *phase*."""
    log = house.path / "pytest.log"
    wait_text(process, log, "stopping" if phase == "teardown" else "starting 2 instances")
    if phase in LOGS:
        wait_logs(house, process, (LOGS[phase],))


def wait_logs(house: House, process: subprocess.Popen[bytes], names: Sequence[str]) -> None:
    """Wait until a log of 1p1d is there that has one of *names*."""
    deadline = time.monotonic() + 60
    while not any(list(house.runs.glob(f"*/1p1d/{name}.log")) for name in names):
        assert time.monotonic() < deadline
        assert process.poll() is None, (house.path / "pytest.log").read_text()[-3000:]
        time.sleep(0.05)


def check_left(house: House, phase: str) -> None:
    """Nothing runs; what is written is whole."""
    assert house.survivors(10.0) == []
    assert [path for path in house.runs.rglob("*.partial")] == []
    paths = [p for p in house.runs.glob("*/*/random-*.0.record.json")]
    assert len(list(map(load_record, paths))) == (phase == "teardown")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["TERM", "INT"],
)
def test_a_signal_in_each_phase(number: signal.Signals, phase: str, house: House) -> None:
    house.faults(**PHASES[phase])
    process = house.start("--topology", "1p1d")
    wait_phase(house, process, phase)
    assert len(house.processes()) > 2
    process.send_signal(number)
    assert process.wait(timeout=30) == pytest.ExitCode.INTERRUPTED
    check_left(house, phase)


@pytest.mark.slow
@pytest.mark.parametrize(
    "waits",
    [
        lambda house: house.hang_at(64),
        lambda house: house.from_start(2, token_ms=5, never_ready=True),
    ],
    ids=["another cell runs", "the servers start anew"],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_signal_while_a_postponed_test_waits(
    number: signal.Signals, waits: Callable[[House], None], house: House
) -> None:
    """The cell of 32 tokens is suspicious; then the next hangs, or the second start does."""
    lens = {"input_lens": [32, 64]}
    house.system(sweep=lens, judgement_floors={"mean_itl_ms": 0.3})
    house.faults(every={"token_ms": 20})
    write_nights(house.baseline, {("1p1d", WORKLOAD): {"mean_itl_ms": [10.0] * 20}})
    before = house.baseline.read_bytes()
    waits(house)
    process = house.start("--topology", "1p1d", "-k", "32-8 or 64-8")
    log = house.path / "pytest.log"
    wait_text(
        process, log, "test_sweep[1p1d-32-8] runs again later, on a fresh start: mean_itl_ms "
    )
    wait_logs(house, process, ("random-64-8-n8-c4.0.bench", "logs-2/decode-0"))
    process.send_signal(number)
    assert process.wait(timeout=30) == pytest.ExitCode.INTERRUPTED
    assert house.survivors(10.0) == []
    said = "Seen in 1 start; it takes 3 to confirm: the session ended before it could run again."
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("SUSPICIOUS: ")]
    assert line.startswith(f"SUSPICIOUS: 1p1d {WORKLOAD}: mean_itl_ms ")
    assert said in line
    assert house.baseline.read_bytes() == before


@pytest.mark.slow
def test_a_second_signal_while_the_first_is_answered(house: House) -> None:
    house.faults(every={"ignore_term": True}, bench={"hang": True})
    process = house.start("--topology", "1p1d")
    wait_phase(house, process, "benchmark")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.4)
    process.wait(timeout=30)
    check_left(house, "benchmark")


@pytest.mark.slow
def test_the_guard_ends_what_a_killed_pytest_leaves(house: House) -> None:
    house.faults(every={"ignore_term": True, "child": True}, bench={"hang": True})
    process = house.start("--topology", "1p1d")
    wait_phase(house, process, "benchmark")
    assert len(house.processes()) >= 7
    process.kill()
    process.wait(timeout=10)
    check_left(house, "benchmark")


@pytest.mark.slow
def test_a_killed_decode_instance_is_an_error_that_names_it(house: House) -> None:
    house.faults(bench={"hang": True})
    process = house.start("--topology", "1p1d")
    wait_phase(house, process, "benchmark")
    (decode,) = [p for p in house.processes() if "kv_consumer" in p.cmdline()]
    decode.kill()
    assert process.wait(timeout=30) == pytest.ExitCode.TESTS_FAILED
    text = (house.path / "pytest.log").read_text()
    assert "decode[0] on local1 was ended by signal 9 " in text
    assert "1 skipped, 1 error in " in text
    check_left(house, "benchmark")


def test_children_of_servers_end_with_them(house: House) -> None:
    house.faults(every={"child": True})
    house.run("--topology", "1p1d").assert_outcomes(passed=1, skipped=1)
    assert house.survivors() == []


@pytest.mark.slow
def test_a_signal_at_any_time(house: House) -> None:
    chance = random.Random(2)
    for _ in range(20):
        process = house.start("--topology", "1p1d")
        time.sleep(chance.uniform(0.5, 5.0))
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        assert house.survivors(10.0) == []
        shutil.rmtree(house.runs, ignore_errors=True)


@contextlib.contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """A file system of its own at *folder*; only root can have one."""
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() or not mount or not umount:
        pytest.skip("only root can mount a small disk")
    options = ["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if subprocess.run([mount, *options], check=False, capture_output=True).returncode:
        pytest.skip("this root cannot mount a small disk")
    try:
        yield
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("kib", "said"),
    [
        (20, "(the disk is full: 0 KiB free)"),
        (28, ".requests.parquet cannot be written: No space left on device; free space, or choose"),
        (36, ".record.json cannot be written: No space left on device; free space, or choose"),
    ],
)
def test_a_full_disk(kib: int, said: str, house: House) -> None:
    with small_disk(house.runs, kib):
        result = house.run("--topology", "1p1d")
        result.assert_outcomes(errors=1, skipped=1)
        text = result.stdout.str()
        assert f"{house.runs}/" in text
        assert said in text
        check_left(house, "benchmark")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "said"),
    [
        pytest.param(1000, f"bench {WORKLOAD} exited with code 1; ", marks=pytest.mark.slow),
        (5800, "cannot be written: File too large; free space, or choose another --pdserve-runs"),
    ],
)
def test_a_file_that_the_disk_does_not_take(limit: int, said: str, house: House) -> None:
    command = [sys.executable, "-m", "pytest", "suites", "--system=stub", "--topology=1p1d"]
    result = subprocess.run(
        command,
        cwd=house.path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert said in result.stdout
    assert "1 skipped, 1 error in " in result.stdout
    check_left(house, "benchmark")
