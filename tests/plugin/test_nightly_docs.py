"""What docs/nightly.md tells people to write into cron and systemd does what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_pdserve.results.kinds import NIGHTLY_EVENT
from tests.support.simulated import ROOT
from tests.support.simulated import SimulatedProject

PAGE = (ROOT / "docs" / "nightly.md").read_text(encoding="utf-8")
HERE = "/srv/pdserve"
"""Where the page has the project."""
NOTIFIER = "import pathlib, sys\npathlib.Path('told').write_text(sys.stdin.read())\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_line_of_cron_does_a_night(known: SimulatedProject) -> None:
    ((line),) = blocks("cron")
    program = known.path / ".venv" / "bin" / "pdserve"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -m pytest_pdserve.commands.main $@\n")
    program.chmod(0o755)
    keys = {
        "pdserve_topology": "dp",
        "pdserve_nightly_notify": f"\n    {sys.executable}\n    -S\n    tell.py",
    }
    (known.path / "tell.py").write_text(NOTIFIER)
    known.pytester.makeini("[pytest]\n" + "\n".join(f"{k} = {v}" for k, v in keys.items()))
    known.system(night=1, drift_per_night=0.06)
    command = line.strip().split(" ", 5)[5].replace(HERE, str(known.path)).replace("p5-efa", "sim")
    # As cron has it: a shell, and hardly any environment
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(known.path), "SHELL": "/bin/sh"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, timeout=600, cwd="/")
    log = (known.path / "nightly.log").read_text()
    assert done.returncode == 1, log
    event = NIGHTLY_EVENT.parse(json.loads((known.path / "told").read_text()), "told")
    assert (event.kind, event.key) == ("new", "sim/dp/*/speed")
    assert "pdserve: new: dp as a whole is slower on sim, since 2000-01-02\n" in log
    assert "1 session added to" in log
    assert (known.path / "nightly" / "sim" / "report.md").is_file()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("broken", [False, True], ids=["as shown", "with a fault"])
def test_systemd_accepts_the_service_and_its_timer(broken: bool, tmp_path: Path) -> None:
    service, timer = blocks("ini")
    service = service.replace(f"{HERE}/.venv/bin/pdserve", "/bin/true").replace(HERE, "/")
    if broken:
        timer = timer.replace("22:00:00", "25:00:00")
    paths = [tmp_path / f"pdserve-nightly.{kind}" for kind in ("service", "timer")]
    for path, text in zip(paths, (service.replace("User=bench", "User=root"), timer), strict=True):
        path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, paths)], capture_output=True, text=True, timeout=300
    )
    assert bool(done.stderr + done.stdout) is broken, done.stderr


def test_the_event_that_is_shown_is_one() -> None:
    (shown,) = blocks("json")
    NIGHTLY_EVENT.parse(json.loads(shown), "docs/nightly.md")
