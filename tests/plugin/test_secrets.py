"""Secrets planted in every channel of a session; none is in what the session leaves or shows."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.test_plan_is_run import DOCKER
from tests.support.house import ENDPOINT_PORT
from tests.support.house import House
from tests.support.house import only_sentence
from tests.support.house import wait_text
from tests.support.planted import SECRETS
from tests.support.planted import leaks
from tests.support.planted import logs
from tests.support.planted import pass_through
from tests.support.planted import sampled

KEY = "an endpoint's own key"
URL = f"http://127.0.0.1:{ENDPOINT_PORT}"


@pytest.fixture(autouse=True)
def planted(house: House) -> None:
    """A project whose system passes two secrets through; a third is only there."""
    house.suites("sweep", "smoke")
    pass_through(house)
    for name, value in SECRETS.items():
        house.monkeypatch.setenv(name, value)


def run(house: House, *arguments: str) -> tuple[str, set[str]]:
    """A session in a process of its own: what it shows, and every argument list meanwhile."""
    junit = house.path / "junit.xml"
    process = house.start(*arguments, f"--junitxml={junit}", "-rA", "-s", "--showlocals")
    seen = set(sampled(process))
    return (house.path / "pytest.log").read_text(), seen


def test_servers_and_client_that_print_their_environment(house: House) -> None:
    house.faults(every={"tell_environment": True})
    shown, arguments = run(house, "--topology", "1p1d", "-k", "sweep")
    assert "1 passed" in shown
    assert len(house.records()) == 1
    assert leaks([house.path], arguments) == []
    printed = logs(house)
    # prefill, decode and client were given them, and servers print them twice
    assert {name: printed.count(f"<{name}>") for name in SECRETS} == dict.fromkeys(SECRETS, 5)
    assert "'VLLM_API_KEY': '<redacted>'" in printed
    assert len([line for line in arguments if " --host " in line]) >= 3  # all were looked at


@pytest.mark.slow
def test_a_server_that_ends_after_printing_its_environment(house: House) -> None:
    house.faults(decode_0={"tell_environment": True, "exit_at_start": 3})
    shown, arguments = run(house, "--topology", "1p1d")
    assert "decode[0] on local1 exited with code 3" in shown
    assert "'MY_LOGIN': '<MY_LOGIN>'" in shown
    assert "MY_LOGIN" in (house.path / "junit.xml").read_text()
    assert leaks([house.path], arguments) == []


@pytest.mark.slow
def test_a_server_that_answers_with_the_key_that_it_was_shown(house: House) -> None:
    house.faults(decode_0={"tell_key": True})
    shown, arguments = run(house, "--topology", "1p1d", "-k", "sweep or answers")
    assert "no: Bearer <redacted> <MY_LOGIN>" in shown
    (record,) = house.records()
    said = {each["check"]: each["message"] for each in record["findings"]}
    assert "no: Bearer <redacted> <MY_LOGIN>" in said["completed"]
    assert leaks([house.path], arguments) == []


@pytest.mark.slow
def test_an_endpoint_that_answers_with_the_key_that_it_was_shown(house: House) -> None:
    house.monkeypatch.setenv("VLLM_API_KEY", KEY)
    house.faults(every={"tell_key": True})
    log = house.path.parent / f"{house.path.name}-endpoint.log"
    argv = [house.programs["vllm"], "serve", str(house.path / "model")]
    server = house.spawn([*argv, "--port", str(ENDPOINT_PORT)], log)
    house.monkeypatch.delenv("VLLM_API_KEY")
    house.monkeypatch.setenv("PDSERVE_API_KEY", KEY)
    try:
        wait_text(server, log, "starts")
        shown, arguments = run(house, "--topology", "1p1d", "--pdserve-base-url", URL)
    finally:
        server.terminate()
        server.wait(10)
    assert "500" in shown
    assert leaks([house.path], arguments, KEY) == []


@pytest.mark.slow
def test_containers_are_given_names_and_no_values(house: House) -> None:
    folder = house.path / "bin"
    folder.mkdir()
    engine = folder / "docker"
    engine.write_text(DOCKER.format(python=sys.executable, log=str(house.path / "docker.jsonl")))
    engine.chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"
    house.monkeypatch.setenv("PATH", path)
    pass_through(house, container={"kind": "docker", "image": "i:1", "devices": [], "gpus": ""})
    house.faults(decode_0={"tell_environment": True})
    shown, arguments = run(house, "--topology", "1p1d", "-k", "sweep")
    assert "1 passed" in shown
    assert "'MY_LOGIN': '<MY_LOGIN>'" in logs(house)
    (record,) = house.records()
    asked = {each["name"]: " ".join(each["argv"]) for each in record["processes"]}
    given = {name for name, argv in asked.items() if "--env MY_LOGIN --env HF_TOKEN" in argv}
    assert given == {*asked} - {"router"}
    assert leaks([house.path], arguments) == []


@pytest.mark.slow
def test_a_session_that_is_ended_by_a_signal(house: House) -> None:
    house.may_be_interrupted()
    house.faults(every={"tell_environment": True}, bench={"tell_environment": True, "hang": True})
    process = house.start("--topology", "1p1d", "-k", "sweep")
    wait_text(process, house.path / "pytest.log", "path proven")
    while process.poll() is None and not list(house.runs.rglob("*.bench.log")):
        continue
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == pytest.ExitCode.INTERRUPTED
    assert "<MY_LOGIN>" in logs(house)
    assert leaks([house.path], set()) == []


@pytest.mark.parametrize(
    "tables",
    [
        {"env": {"A_TOKEN": "plant-ed"}},
        {"env": {"A": "hf_plant-ed"}},
        {"pd_env": {"A_PASSWORD": "plant-ed"}},
        {"model.decode": {"env": {"A_KEY": "plant-ed"}}},
        {"model": {"serve_args": ["--api-key", "plant-ed"]}},
        {"model": {"serve_args": ["--hf-token=plant-ed"]}},
        {"router": {"args": ["--api-key", "plant-ed"]}},
        {"bench": {"args": ["--header", "Authorization=Bearer plant-ed-0123456789"]}},
        {"container": {"kind": "docker", "image": "i", "args": ["--env", "A_KEY=plant-ed"]}},
        {"cluster": {"kind": "attached"}, "attached": {"base_url": "http://u:plant-ed@h:1"}},
    ],
    ids=lambda tables: " ".join(tables),
)
def test_a_secret_in_a_system_file_ends_the_session_before_anything_is_written(
    tables: dict[str, Any], house: House
) -> None:
    file = house.system("planted", **{k: v for k, v in tables.items() if k != "model.decode"})
    if decode := tables.get("model.decode"):
        with file.open("a") as text:
            text.write(f'[model.decode.env]\nA_KEY = "{decode["env"]["A_KEY"]}"\n')
    said = only_sentence(house.run("--system", "planted", "--topology", "1p1d"))
    assert said.startswith(f"{file}: /")
    assert "plant-ed" not in said
    assert not house.runs.exists()
    assert not (house.path / "state").exists()


@pytest.mark.parametrize(
    "url", ["http://user:plant-ed@h:1", "user:plant-ed@h:1", "http:/user:plant-ed@h"]
)
def test_a_password_in_the_url_of_an_endpoint_is_not_shown(url: str, house: House) -> None:
    said = only_sentence(house.run("--pdserve-base-url", url))
    assert said == "--pdserve-base-url holds a password; put the key into PDSERVE_API_KEY"


def test_a_variable_that_is_not_set_is_missed_before_anything_starts(house: House) -> None:
    house.monkeypatch.delenv("HF_TOKEN")
    said = only_sentence(house.run("--topology", "1p1d"))
    assert said == (
        f"{house.path}/baselines/stub/system.toml: /pass_env/1: 'HF_TOKEN' is not set in the "
        "environment of this session; export it, or remove it from pass_env"
    )
