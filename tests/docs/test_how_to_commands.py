"""Commands of how-to and reference pages run, and exit as the pages say."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import sys
from collections.abc import Callable
from collections.abc import Iterator
from datetime import datetime
from datetime import timedelta
from pathlib import Path

import pytest

from pytest_pdserve.values.record import Record
from tests.support.doc_lines import ALONE
from tests.support.doc_lines import SIMULATED
from tests.support.doc_lines import STORED
from tests.support.doc_lines import STUBS
from tests.support.doc_lines import PageLines
from tests.support.doc_pages import DOCS
from tests.support.doc_projects import nightlies
from tests.support.doc_projects import shelf_of_nights
from tests.support.doc_projects import simulated_file
from tests.support.house import STUBS as STUB_FILES
from tests.support.house import WITHOUT_UNUSED
from tests.support.house import House
from tests.support.house import wait_text
from tests.support.stacks import VERSIONS
from tests.support.stacks import make_environment
from tests.support.typist import Typist
from tests.support.typist import params
from tests.support.wheel import ROOT

HERE = ("local-cpu", "local-fabric", "gpu-host", "gpu-host-2", "h200")
"""Systems of the pages whose servers are stubs here."""
TRANSFER = STUB_FILES / "transfer"
"""A stand-in for NIXL."""
BYTECODE = shutil.ignore_patterns("__pycache__")


@pytest.fixture
def typist(
    loaded: None,
    pytester: pytest.Pytester,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Typist:
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    return Typist(pytester=pytester, capsys=capsys)


@pytest.mark.slow
@pytest.mark.parametrize("part", params(STORED))
def test_commands_on_stored_sessions_run(
    part: PageLines, typist: Typist, make_record: Callable[..., Record]
) -> None:
    folder = typist.pytester.path
    shelf_of_nights(folder, make_record)
    nightlies(folder)
    assert "\n\n".join(typist.wrong(part)) == ""


@pytest.mark.parametrize("part", params(SIMULATED))
def test_commands_on_simulated_systems_run(part: PageLines, typist: Typist) -> None:
    folder = typist.pytester.path
    typist.pytester.makeini(f"[pytest]\naddopts = {' '.join(WITHOUT_UNUSED)}\n")
    for name in ("NAME", "mine", "simulated", "p5-efa"):
        simulated_file(folder, name)
    shutil.copytree(ROOT / "suites", folder / "suites", ignore=BYTECODE)
    later = (datetime.now() + timedelta(hours=6)).strftime("%H:%M")
    assert "\n\n".join(typist.wrong(part, {"06:00": later})) == ""


@pytest.mark.parametrize("part", params(ALONE))
def test_commands_that_need_no_servers_run(part: PageLines, typist: Typist) -> None:
    shutil.copytree(ROOT / "suites", typist.pytester.path / "suites", ignore=BYTECODE)
    assert "\n\n".join(typist.wrong(part)) == ""


@pytest.mark.parametrize("part", params(STUBS))
def test_commands_that_start_servers_run_with_stub_engines(
    part: PageLines, typist: Typist, house: House
) -> None:
    if part.page == "docs/figures.md":
        house.pytester.makeini("[pytest]\naddopts = --import-mode=importlib\n")
    shutil.copytree(ROOT / "suites", house.path / "suites", ignore=BYTECODE)
    stub_nixl = {
        "PYTHONPATH": str(STUB_FILES / "transfer"),
        "PDSTUB_NIXL": str(house.path / "nixl"),
    }
    for name in HERE:
        few = name == "gpu-host-2" or part.page == "docs/transfer.md"
        house.system(
            name,
            cluster={"nodes": 2 if few else 4},
            model={"path": "tiny"} if part.page == "docs/rehearse.md" else {},
            pd_env={**stub_nixl, "UCX_TLS": "tcp"},
            transfer={"sizes_mib": [1], "repeats": 3, "prompt_lens": [256]},
        )
    next_stack = make_environment(house.path / "next", {**VERSIONS, "nixl": "1.4.1"})
    with contextlib.ExitStack() as stack:
        replace = {"/opt/vllm-next": str(next_stack)}
        if part.page == "docs/endpoints.md":
            replace |= stack.enter_context(served(house))
        assert "\n\n".join(typist.wrong(part, replace)) == ""


@contextlib.contextmanager
def served(house: House) -> Iterator[dict[str, str]]:
    """Serve 1p3d; yield the page's addresses with those of the servers, in the page's order."""
    log = house.path / "serve.log"
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", "serve"]
    server = house.spawn([*command, "--topology", "1p3d"], log)
    try:
        wait_text(server, log, "Ctrl-C ends it.")
        (line,) = re.findall(r"^measure +(.*)$", log.read_text(), re.MULTILINE)
        here = re.findall(r"http://127\.0\.0\.1:\d+", line)
        there = re.findall(r"http://10[\d.]+:\d+", (DOCS / "endpoints.md").read_text())
        (key,) = re.findall(r"^key +(\S+) ", log.read_text(), re.MULTILINE)
        house.monkeypatch.setenv("PDSERVE_API_KEY", Path(key).read_text().strip())
        yield dict(zip(dict.fromkeys(there), here, strict=True))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=20)
