"""pytest itself over real parts: ended in the middle, and pointed at an endpoint that is up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]


def members(session: int) -> list[str]:
    """What still runs of a process session: pytest, and all that it started but its guard."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {process.name()}")
    return found


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            arguments, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_text(process: subprocess.Popen[bytes], log: Path, text: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_nothing_is_left_when_pytest_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "pytest.log"
    runs = str(tmp_path / "runs")
    arguments = [*PYTEST, "suites/smoke", "--topology", "1p1d", "--pdserve-runs", runs]
    process = start(arguments, log)
    wait_text(process, log, "starting 2 instances", 60)
    time.sleep(6.0)
    assert len(members(process.pid)) > 2
    os.kill(process.pid, number)
    process.wait(timeout=60)
    deadline = time.monotonic() + 25
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert members(process.pid) == []


@pytest.mark.slow
def test_serve_holds_an_endpoint_that_the_suites_can_measure(tmp_path: Path) -> None:
    log, runs = tmp_path / "serve.log", str(tmp_path / "runs")
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", "serve", "--topology", "1p1d"]
    server = start([*command, "--runs", runs], log)
    try:
        wait_text(server, log, "Ctrl-C ends it", 240)
        said = dict(line.split(maxsplit=1) for line in log.read_text().splitlines() if "  " in line)
        key = Path(said["key"].split(" (")[0])
        assert key.stat().st_mode & 0o777 == 0o600
        suites = subprocess.run(
            [
                *PYTEST,
                *("suites/smoke", "suites/sweep", "-k", "answers or 32-16"),
                *("--topology", "1p1d", "--pdserve-base-url", said["endpoint"]),
                *("--pdserve-runs", runs),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "PDSERVE_API_KEY": key.read_text(),
                "XDG_STATE_HOME": str(tmp_path / "state"),
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
    assert "1p1d       random-32-16-n16-c4" in suites.stdout
    assert "neither the path nor KV transfers are proven" in suites.stdout
    assert members(server.pid) == []
