"""The ``pdserve`` command."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.commands.main import subcommands
from tests.support.house import House
from tests.support.house import wait_text
from tests.support.said import said_by

PDSERVE = [sys.executable, "-m", "pytest_pdserve.commands.main"]


def commands(text: str) -> dict[str, list[str]]:
    """Words of each command that ``plan`` prints, by ``name on node``."""
    blocks = re.split(r"^# (.+ on \w+)$", text, flags=re.MULTILINE)
    return {
        name: block.replace("\\\n", " ").split()
        for name, block in zip(blocks[1::2], blocks[2::2], strict=True)
    }


def test_plan_of_the_articles_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--topology", "1p3d", "--system", "p5-efa"]) == 0
    planned = commands(capsys.readouterr().out)
    assert list(planned) == [
        "prefill[0] on node0",
        *(f"decode[{n}] on node{n + 1}" for n in range(3)),
        "router on node0",
        "client on node0",
        *(f"bench random-{n}-256-n1024, by the client on node0" for n in (512, 1024, 2048, 4096)),
        *(f"bench random-512-{n}-n1024, by the client on node0" for n in (512, 1024, 2048, 4096)),
    ]
    for name, words in planned.items():
        if name.startswith(("router", "bench", "client")):
            continue
        role = "kv_producer" if name.startswith("prefill") else "kv_consumer"
        text = " ".join(words)
        for pair in (
            "--tensor-parallel-size 8",
            f"--kv-transfer-config.kv_role {role}",
            "--kv-transfer-config.kv_load_failure_policy fail",
            "--kv-transfer-config.kv_connector_extra_config.backends+ LIBFABRIC",
        ):
            assert pair in text
        assert "FI_PROVIDER=efa" in words
        assert "VLLM_NIXL_SIDE_CHANNEL_PORT=5600" in words
    router = " ".join(planned["router on node0"])
    assert "--policy consistent_hash --vllm-pd-disaggregation" in router
    assert router.count("--decode 'http://") == 3


def test_plan_of_a_machine_touches_nothing(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(house.path.iterdir())
    assert main(["plan", "--topology", "dp"]) == 0
    planned = commands(capsys.readouterr().out)
    assert sum(name.startswith("aggregated[0]") for name in planned) == 4
    assert "client on local0" in planned
    assert sum(name.startswith("bench ") for name in planned) == len(planned) - 5 == 8
    assert sum("--headless" in words for words in planned.values()) == 3
    assert set(house.path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--topology", "2x4"], "topology '2x4' is not of the form"),
        (["plan", "--system", "moon"], "system 'moon' is unknown; known are "),
        (["plan", "--topology", "route3"], "topology 'route3' needs a number of nodes that 3 "),
        (["serve", "--topology", "dp,1p3d"], "pdserve serve takes one topology, got 2"),
        (["serve", "--system", "far"], "system 'far' is of kind 'attached', which starts no "),
        (["serve", "--topology", "4p1d"], "topology '4p1d' needs 5 nodes "),
        (["serve", "--system", "stub", "--runs", "tox.ini"], "runs folder {folder}/tox.ini "),
    ],
)
def test_bad_input_is_one_sentence_and_code_4(
    arguments: list[str], said: str, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.system("far", cluster={"kind": "attached"})
    assert main(arguments) == 4
    assert said_by(capsys).err.startswith(f"pdserve: {said.format(folder=house.path)}")
    assert house.survivors() == []


def test_a_fault_of_our_own_is_told_from_everything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("not thought of")

    monkeypatch.setattr(subcommands()["selftest"], "run", fails)
    assert main(["selftest"]) == 3
    said = said_by(capsys).err
    assert said.startswith("Traceback")
    assert said.endswith(
        "pdserve: internal error of pdserve: RuntimeError('not thought of'); please report it\n"
    )


def test_help_of_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "serve"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert "pdserve_topology, else 1p3d)" in capsys.readouterr().out


def serve(house: House, topology: str = "1p1d") -> tuple[subprocess.Popen[bytes], Path]:
    log = house.path / "serve.log"
    command = [*PDSERVE, "serve", "--system", "stub", "--topology", topology]
    return house.spawn(command, log), log


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=["INT", "TERM"],
)
def test_serve_holds_a_topology_until_interrupted(number: signal.Signals, house: House) -> None:
    process, log = serve(house)
    wait_text(process, log, "Ctrl-C ends it.")
    said = dict(re.findall(r"^(endpoint|logs|key|try|measure) +(.*)$", log.read_text(), re.M))
    key = Path(said["key"].removesuffix(" (only you can read it)"))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text() not in log.read_text()
    assert {path.name for path in Path(said["logs"]).iterdir()} == {
        "prefill-0.log",
        "decode-0.log",
        "router.log",
    }
    assert f" --pdserve-base-url {said['endpoint']} " in said["measure"]
    answer = subprocess.run(
        ["/bin/sh", "-c", said["try"]], capture_output=True, text=True, check=True, timeout=20
    )
    assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 16
    process.send_signal(number)
    assert process.wait(timeout=20) == 0
    assert house.survivors() == []
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_serve_says_when_an_instance_dies(house: House) -> None:
    process, log = serve(house, "dp")
    wait_text(process, log, "Ctrl-C ends it.")
    endpoint = re.findall(r"^endpoint +(.*)$", log.read_text(), re.MULTILINE)[0]
    with urllib.request.urlopen(f"{endpoint}/health", timeout=5) as response:
        assert response.status == 200
    headless = [process for process in house.processes() if "--headless" in process.cmdline()]
    assert len(headless) == 3
    headless[0].kill()
    assert process.wait(timeout=20) == 7
    assert re.search(
        r"pdserve: aggregated\[0\]/rank\d on local\d was ended by signal 9 ", log.read_text()
    )
    assert house.survivors() == []


def test_serve_ends_in_the_middle_of_a_stand_up(house: House) -> None:
    house.faults(decode_0={"never_ready": True})
    process, log = serve(house)
    wait_text(process, log, "starting 2 instances")
    time.sleep(0.5)
    process.terminate()
    assert process.wait(timeout=20) == 2
    assert house.survivors() == []
