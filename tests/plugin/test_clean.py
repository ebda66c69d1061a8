"""``pdserve clean``: what a session left that was killed together with its guard, and no more."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.hosts.image import lock_path
from pytest_pdserve.backends.hosts.inventory import inventory_folder
from pytest_pdserve.commands.main import main
from pytest_pdserve.values.exit_codes import ExitCode
from tests.support.house import STUBS
from tests.support.house import House
from tests.support.house import wait_text
from tests.support.killed import OBEDIENT
from tests.support.killed import STUBBORN
from tests.support.killed import Written
from tests.support.killed import inventories
from tests.support.killed import left_session
from tests.support.killed import live_session
from tests.support.killed import parent
from tests.support.killed import start_session
from tests.support.killed import wait_ended
from tests.support.killed import wait_until

Capture = pytest.CaptureFixture[str]
PDSERVE = [sys.executable, "-m", "pytest_pdserve.commands.main"]
TRUE, FALSE = ["true"], ["sh", "-c", "echo no such daemon >&2; exit 3"]


@pytest.fixture(autouse=True)
def temporary(house: House, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where locks and temporary folders lie."""
    folder = house.path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def headline(written: Written, said: str) -> str:
    inventory = written.read()
    return f"session since {inventory.since}, {inventory.run_folder}: {said}\n"


def killed(written: Written) -> str:
    return headline(written, f"killed, was pid {written.read().session.pid}")


# Sessions that are really killed.


def test_what_ignores_sigterm_ends_and_the_session_is_forgotten(
    house: House, capsys: Capture
) -> None:
    start_session(house, parent(STUBBORN, then=STUBBORN)).kill()
    assert len(house.survivors()) == 2
    assert main(["clean"]) == ExitCode.OK
    assert (house.survivors(), inventories()) == ([], [])
    assert capsys.readouterr().out.endswith("\n  removed\n")


@pytest.mark.slow
def test_a_pytest_that_is_killed_together_with_its_guard(house: House) -> None:
    house.suites("sweep")
    house.may_be_interrupted()
    house.faults(every={"ignore_term": True, "child": True}, bench={"hang": True})
    process = house.start("--topology", "1p1d")
    wait_text(process, house.path / "pytest.log", "path proven")
    session = live_session(process)
    wait_until(lambda: len(session.inventory.read().groups) == 4, 30)
    session.kill()
    left = session.inventory.read()
    names = [group.name.partition(" ")[0] for group in left.groups]
    assert names == ["prefill[0]", "decode[0]", "router", "bench"]
    assert [left.run_folder] == [str(run) for run in house.runs.iterdir()]
    assert len(house.survivors()) >= 4
    assert main(["clean"]) == ExitCode.OK
    assert (house.survivors(5.0), inventories()) == ([], [])


@pytest.mark.slow
def test_a_guard_that_hangs_is_ended_too(house: House) -> None:
    session = start_session(house)
    os.kill(session.guard, signal.SIGSTOP)
    session.kill_session()
    assert main(["clean"]) == ExitCode.OK
    assert (house.survivors(5.0), inventories()) == ([], [])


@pytest.mark.slow
def test_two_cleans_at_once_remove_everything_once(house: House) -> None:
    count = house.path / "count"
    start_session(house, commands=[["sh", "-c", f"echo >> {count}; sleep 0.2"]]).kill()
    both = [subprocess.Popen([*PDSERVE, "clean"], stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert (house.survivors(), inventories()) == ([], [])
    assert len(count.read_text().splitlines()) == 2, "before and after the group has ended"
    assert sum(text.endswith("\n  removed\n") for text in said) == 1, said


@pytest.mark.slow
def test_a_live_session_is_left_alone(house: House, capsys: Capture) -> None:
    session = start_session(house, commands=[FALSE])
    before, living = session.inventory.path.read_bytes(), house.survivors()
    said = headline(session.inventory, f"in use by pid {session.process.pid}, left alone")
    assert main(["clean"]) == ExitCode.OK
    assert capsys.readouterr() == (said, "")
    assert (session.inventory.path.read_bytes(), house.survivors()) == (before, living)
    session.end_in_order()


@pytest.mark.slow
def test_a_session_that_ends_in_order_leaves_nothing_to_clean(
    house: House, capsys: Capture
) -> None:
    start_session(house, commands=[TRUE]).end_in_order()
    assert inventories() == []
    assert main(["clean"]) == ExitCode.OK
    assert capsys.readouterr().out == f"nothing is left of any session ({inventory_folder()})\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "commands", "left"),
    [
        pytest.param(OBEDIENT, [], 0, id="it could"),
        pytest.param(STUBBORN, [], 1, id="it had to kill"),
        pytest.param(OBEDIENT, [FALSE], 1, id="a command failed", marks=pytest.mark.slow),
    ],
)
def test_the_guard_removes_the_inventory_if_it_could_clean_up(
    server: str, commands: list[list[str]], left: int, house: House
) -> None:
    session = start_session(house, server, commands=commands)
    guard = session.guard
    session.kill_session()
    wait_ended(guard)
    assert len(inventories()) == left


@pytest.mark.slow
def test_containers_of_a_killed_session_on_this_machine(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    engine = house.path / "engines"
    (engine / "bin").mkdir(parents=True)
    program = engine / "bin" / "docker"
    stub = STUBS / "container_stub.py"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{stub}" docker "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{engine / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PDSTUB_ENGINE", str(engine))
    (engine / "images-login.json").write_text(json.dumps({"nixl:1": "sha256:a"}))
    house.suites("sweep")
    house.system(container={"kind": "docker", "image": "nixl:1", "gpus": ""})
    house.faults(every={"ignore_term": True, "never_ready": True})
    process = house.start("--topology", "1p1d")
    wait_until(lambda: len(list(engine.glob("container-*.json"))) == 2, 60)
    session = live_session(process)
    wait_until(lambda: len(session.inventory.read().commands) == 2, 30)
    session.kill()
    for group in session.inventory.read().groups:
        os.killpg(group.leader.pid, signal.SIGKILL)  # clients; their containers live on
    assert main(["clean"]) == ExitCode.OK
    listed = r"^ +container +(\S+) .* docker rm --force pdserve-\S+$"
    out = capsys.readouterr().out
    assert re.findall(listed, out, re.MULTILINE) == ["prefill[0]", "decode[0]"]
    assert list(engine.glob("container-*.json")) == []
    assert (house.survivors(5.0), inventories()) == ([], [])


# What is listed, and what is proven to be the session's.


def test_a_dry_run_lists_what_is_left_and_touches_nothing(house: House, capsys: Capture) -> None:
    with left_session(house, commands=[TRUE]) as left:
        before, living, pid = left.path.read_bytes(), house.survivors(), str(left.group)
        (group,), (command,) = left.read().groups, left.read().commands
        assert main(["clean", "--dry-run"]) == ExitCode.OK
        said, expected = capsys.readouterr().out, killed(left)
        assert said.startswith(expected)
        lines = said.removeprefix(expected).splitlines()
        rows = [line.split() for line in lines if "─" not in line]
        assert rows[:-1] == [
            ["kind", "name", "id", "since", "what"],
            ["process", "group", "decode[0]", pid, group.since, "vllm,", "pids", pid],
            ["container", "decode[0]", command.since, "true"],
        ]
        assert lines[-1] == (
            "  would end 1 process group (SIGTERM, SIGKILL after 0.2 s); run 1 command; "
            "forget the session; --dry-run touches nothing"
        )
        assert (left.path.read_bytes(), house.survivors()) == (before, living)


def test_a_reused_process_id_is_not_signalled(house: House, capsys: Capture) -> None:
    def start_earlier(data: dict[str, Any]) -> None:
        data["groups"][0]["leader"]["started"] -= 1

    with left_session(house) as left:
        left.change(start_earlier)
        living, said = house.survivors(), killed(left)
        assert main(["clean"]) == ExitCode.OK
        assert capsys.readouterr().out == f"{said}  nothing of it is left\n  removed\n"
        assert house.survivors() == living != []


def test_a_group_without_its_leader_whose_member_writes_to_the_run(house: House) -> None:
    with left_session(house, parent(STUBBORN, then="print('up', flush=True)")) as left:
        wait_until(lambda: not Path(f"/proc/{left.group}").exists(), 20)
        assert len(house.survivors()) == 1
        assert main(["clean"]) == ExitCode.OK
        assert (house.survivors(), inventories()) == ([], [])


def test_a_group_without_its_leader_that_may_be_a_strangers_is_left(
    house: House, capsys: Capture
) -> None:
    server = parent(OBEDIENT, then="print('up', flush=True)", output="-3")
    with left_session(house, server) as left:
        group = left.group
        wait_until(lambda: not Path(f"/proc/{group}").exists(), 20)
        (pid,) = (process.pid for process in house.processes())
        assert main(["clean"]) == ExitCode.ERROR
        assert capsys.readouterr().err == (
            f"pdserve: process group {group} (decode[0]; pids {pid}) is left: its leader is gone "
            f"and no process in it writes to {left.run}, so it may not belong to this session; if "
            f"it does, end it with kill -KILL -- -{group}\n"
        )
        assert len(house.survivors()) == 1
        assert inventories() == [left.path]


def test_another_hosts_session_is_left_alone(house: House, capsys: Capture) -> None:
    with left_session(house, commands=[FALSE]) as left:
        left.change(lambda data: data["host"].update(name="h04"))
        before, living = left.path.read_bytes(), house.survivors()
        assert main(["clean"]) == ExitCode.OK
        where = f"run pdserve clean there, or remove {left.path} if the host no longer exists"
        assert capsys.readouterr().out == headline(left, f"on host h04, left alone: {where}")
        assert (left.path.read_bytes(), house.survivors()) == (before, living)


def test_of_an_earlier_boot_only_commands_and_locks_are_left(house: House, temporary: Path) -> None:
    lock, ran = temporary / "image.lock", temporary / "ran"
    lock.touch()
    with left_session(house, commands=[["touch", str(ran)]], locks=[lock]) as left:
        left.change(lambda data: data["host"].update(boot_id="earlier"))
        living = house.survivors()
        assert main(["clean"]) == ExitCode.OK
        assert (ran.exists(), lock.exists(), inventories()) == (True, False, [])
        assert house.survivors() == living != []


def test_a_malformed_file_is_named_and_left(house: House, capsys: Capture) -> None:
    path = inventory_folder() / "h04.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert main(["clean"]) == ExitCode.ERROR
    assert capsys.readouterr() == (
        "",
        f"pdserve: {path} cannot be used: Input data was truncated; it is kept: remove it once "
        "none of its processes runs\n",
    )
    assert inventories() == [path]


def test_what_a_session_left_that_was_killed_while_it_wrote(house: House) -> None:
    with left_session(house) as left:
        left.path.with_name(f".{left.path.name}.4711.partial").touch()
        assert main(["clean"]) == ExitCode.OK
    assert inventories() == []


# What is no process.


def test_sockets_of_servers_that_had_to_be_killed(house: House, temporary: Path) -> None:
    path, other = temporary / "rpc", temporary / "other"
    server = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r})\n{STUBBORN}"
    with left_session(house, server), socket.socket(socket.AF_UNIX) as mine:
        mine.bind(str(other))
        assert main(["clean"]) == ExitCode.OK
    assert (path.exists(), other.exists()) == (False, True)


def test_shared_memory_of_servers_that_had_to_be_killed(house: House) -> None:
    server = (
        "from multiprocessing import resource_tracker, shared_memory\n"
        "resource_tracker.register = lambda *_: None\n"
        "memory = shared_memory.SharedMemory(create=True, size=64)\n"
        f"print(memory.name, flush=True)\n{STUBBORN}"
    )
    with left_session(house, server) as left:
        memory = Path("/dev/shm") / (left.run / "decode-0.log").read_text().split()[0]
        assert memory.exists()
        assert main(["clean"]) == ExitCode.OK
    assert not memory.exists()


@pytest.mark.parametrize(
    ("of", "ticks", "age_s", "stays"),
    [
        ("group", 0, 0, False),
        ("group", 0, 3600, True),
        ("group", -1, 0, True),
        ("another", 0, 0, True),
    ],
    ids=[
        "of its process",
        "older than its process",
        "of a process that got its id",
        "of another process",
    ],
)
def test_the_login_of_a_registry(
    of: str, ticks: int, age_s: int, stays: bool, house: House, temporary: Path
) -> None:
    def start_earlier(data: dict[str, Any]) -> None:
        data["groups"][0]["leader"]["started"] += ticks

    with left_session(house) as left:
        pid = left.group if of == "group" else os.getpid()
        folder = temporary / f"pdserve-login-{pid}-abc"
        folder.mkdir()
        (folder / "config.json").touch()
        made = folder.stat().st_mtime - age_s
        os.utime(folder, (made, made))
        left.change(start_earlier)
        assert main(["clean"]) == ExitCode.OK
    assert folder.exists() is stays


@pytest.mark.parametrize("used", [False, True], ids=["free", "another session holds it"])
def test_the_lock_of_an_image(used: bool, house: House) -> None:
    lock = lock_path("nixl:1")
    lock.touch()
    with left_session(house, locks=[lock]), lock.open("r+") as file:
        if used:
            fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["clean"]) == ExitCode.OK
    assert lock.exists() is used
    assert inventories() == []


def test_who_waits_for_a_lock_that_is_removed_gets_the_new_one(house: House) -> None:
    lock = lock_path("nixl:1")
    lock.touch()
    script = (
        "import os\n"
        "from pytest_pdserve.backends.hosts.image import Node, locked\n"
        "with locked('nixl:1', Node()) as file:\n"
        f"    assert os.fstat(file.fileno()).st_ino == os.stat({str(lock)!r}).st_ino\n"
    )
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert waiting.stdout is not None
        assert b"waiting for another session" in waiting.stdout.readline()
        lock.unlink()
    waiting.communicate(timeout=20)
    assert waiting.returncode == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (FALSE, "exited with code 3: no such daemon; run it again"),
        (["pdserve-no-such-engine", "rm"], "pdserve-no-such-engine is not on PATH; run `"),
    ],
    ids=["it fails", "it is not installed"],
)
def test_a_command_that_cannot_be_run_is_named_and_kept(
    argv: list[str], said: str, house: House, capsys: Capture
) -> None:
    with left_session(house, commands=[argv]) as left:
        assert main(["clean"]) == ExitCode.ERROR
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("pdserve: container decode[0] may be left: ")
        assert said in line
        assert (house.survivors(), inventories()) == ([], [left.path])


def test_a_container_that_is_gone_already_is_removed(house: House) -> None:
    gone = ["sh", "-c", "echo 'Error: No such container: decode' >&2; exit 1"]
    with left_session(house, commands=[gone]):
        assert main(["clean"]) == ExitCode.OK
    assert inventories() == []
