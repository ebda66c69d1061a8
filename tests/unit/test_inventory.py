"""What a session writes down of itself, and what of it is proven to be left."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pytest_pdserve.backends.hosts.inventory import HostId
from pytest_pdserve.backends.hosts.inventory import Inventory
from pytest_pdserve.backends.hosts.inventory import InventoryFile
from pytest_pdserve.backends.hosts.inventory import MalformedInventoryError
from pytest_pdserve.backends.hosts.inventory import ProcessId
from pytest_pdserve.backends.hosts.inventory import StartedGroup
from pytest_pdserve.backends.hosts.inventory import inventory_folder
from pytest_pdserve.backends.hosts.inventory import parse_inventory
from pytest_pdserve.backends.hosts.leftovers import LivingGroup
from pytest_pdserve.backends.hosts.leftovers import SeenProcess
from pytest_pdserve.backends.hosts.leftovers import SessionState
from pytest_pdserve.backends.hosts.leftovers import living_group
from pytest_pdserve.backends.hosts.leftovers import state_of
from pytest_pdserve.commands.main import main
from pytest_pdserve.values.exit_codes import ExitCode

SINCE = "2026-11-27T12:00:00.000Z"
HERE = HostId(name="h03", machine_id="m", boot_id="b", pid_namespace="pid:[1]")
GROUP = StartedGroup(
    name="decode[1]", leader=ProcessId(pid=100, started=5000), program="vllm", since=SINCE
)
INVENTORY = Inventory(
    schema_version=1,
    host=HERE,
    session=ProcessId(pid=90, started=4000),
    guard=ProcessId(pid=91, started=4001),
    since=SINCE,
    run_folder="/runs/20261127T120000-stub",
    temporary_folder="/tmp",
    stop_s=10.0,
    groups=(GROUP,),
)
US = 1000


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InventoryFile:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("VLLM_API_KEY", "a-secret-of-the-session")
    file = InventoryFile(tmp_path / "run", 10.0, pytest.fail)
    file.guarded_by(os.getppid())
    return file


def written(file: InventoryFile) -> Inventory:
    return parse_inventory(file.path.read_bytes())


def test_a_file_says_what_runs_and_holds_no_environment(file: InventoryFile) -> None:
    file.add_group("decode[1]", os.getpid(), "vllm")
    file.add_command(["docker", "rm", "--force", "pdserve-a"], "container", "decode[1]")
    with file.holding(Path("/tmp/a.lock")):
        found = written(file)
    (group,), (command,) = found.groups, found.commands
    assert group.leader == ProcessId.of(os.getpid()) == found.session
    assert (group.name, group.program) == ("decode[1]", "vllm")
    assert command.argv == ("docker", "rm", "--force", "pdserve-a")
    assert found.locks == ("/tmp/a.lock",)
    assert written(file).locks == ()
    assert "a-secret" not in file.path.read_text()
    assert oct(file.path.parent.stat().st_mode)[-3:] == "700"


def test_what_has_ended_is_taken_out(file: InventoryFile) -> None:
    file.add_group("decode[1]", os.getpid(), "vllm")
    file.add_command(["true"], "container", "decode[1]")
    file.remove_groups([os.getpid()])
    file.remove_command(["true"])
    assert written(file).empty


def test_a_job_gets_its_id_when_that_is_known(file: InventoryFile) -> None:
    argv = ["scancel", "--name=pdserve-a"]
    file.add_command(argv, "job", "pdserve-a")
    (first,) = written(file).commands
    file.add_command(argv, "job", "pdserve-a", "4711")
    assert written(file).commands == (replace(first, id="4711"),)


def test_a_file_goes_when_its_session_ends_in_order(file: InventoryFile) -> None:
    file.close()
    assert list(inventory_folder().iterdir()) == []


def test_a_file_stays_until_what_is_left_is_taken_out(file: InventoryFile) -> None:
    file.add_command(["true"], "job", "pdserve-a")
    file.close()
    assert len(written(file).commands) == 1
    file.remove_command(["true"])
    assert list(inventory_folder().iterdir()) == []


def test_two_allocations_of_a_process_have_two_files(file: InventoryFile, tmp_path: Path) -> None:
    other = InventoryFile(tmp_path / "run", 10.0, pytest.fail)
    other.add_command(["true"], "job", "pdserve-a")
    assert written(file).commands == ()


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    inventory_folder().parent.write_text("no folder")
    said: list[str] = []
    file = InventoryFile(tmp_path / "run", 10.0, said.append)
    for _ in range(2):
        file.add_group("decode[1]", os.getpid(), "vllm")
    assert said == [
        "the inventory of this session cannot be saved, so `pdserve clean` will not find its "
        f"processes: {file.path} cannot be written: Not a directory"
    ]


def test_a_name_that_no_file_can_hold_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    said: list[str] = []
    file = InventoryFile(tmp_path / "run-\udcff", 10.0, said.append)
    file.add_group("decode[1]", os.getpid(), "vllm")
    (line,) = said
    assert line.endswith(f"processes: {file.path} cannot be written: a name in it is not UTF-8")


def test_a_folder_that_hangs_is_said_once_and_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("pytest_pdserve.backends.hosts.inventory._PATIENCE_S", 0.01)
    said: list[str] = []
    file = InventoryFile(tmp_path / "run", 10.0, said.append)
    file.path.parent.mkdir(parents=True)
    partial = file.path.with_name(f".{file.path.name}.{os.getpid()}.partial")
    os.mkfifo(partial)  # opening it hangs until somebody reads
    before = threading.active_count()
    for _ in range(3):
        file.add_group("decode[1]", os.getpid(), "vllm")
    writers = threading.active_count() - before
    os.close(os.open(partial, os.O_RDONLY | os.O_NONBLOCK))
    assert writers == 1
    (line,) = said
    assert line.endswith(f"processes: {file.path} takes longer than 0.01 s to write")


# What can be acted on.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:-1], "Input data was truncated"),
        (
            lambda text: text.replace('"schema_version":1', '"schema_version":2'),
            "schema_version = 2, this pytest-pdserve reads 1",
        ),
        (lambda text: text.replace('"pid":100', '"pid":1'), "no session starts process 1"),
        (lambda text: text.replace('"pid":91', '"pid":1'), "no session starts process 1"),
        (
            lambda text: text.replace('"pid":100', '"pid":-1'),
            "Expected `int` >= 1 - at `$.groups[0].leader.pid`",
        ),
        (
            lambda text: text.replace('"pid":100', f'"pid":{2**63}'),
            "Expected `int` <= 2147483647 - at `$.groups[0].leader.pid`",
        ),
        (
            lambda text: text[:-1] + ',"x":' + "[" * 100_000,
            "maximum recursion depth exceeded",
        ),
        (
            lambda text: text.replace('"commands":[]', '"commands":[{"kind":"file"}]'),
            "Invalid enum value 'file' - at `$.commands[0].kind`",
        ),
        (
            lambda text: re.sub('"guard":.*?},', "", text),
            "Object missing required field `guard`",
        ),
        (
            lambda text: text.replace("decode[1]", r"a\u001b[31m"),
            "Expected `str` matching regex ",
        ),
    ],
    ids=[
        "cut short",
        "another version",
        "a group that is everything",
        "a guard that is everything",
        "a negative id",
        "an id that no system has",
        "deep",
        "another kind",
        "a field that is missing",
        "a name that steers the terminal",
    ],
)
def test_a_malformed_file_is_refused(change: Callable[[str], str], said: str) -> None:
    text = msgspec.json.encode(INVENTORY).decode()
    assert parse_inventory(text.encode()) == INVENTORY
    assert change(text) != text
    with pytest.raises(MalformedInventoryError, match=f"^{re.escape(said)}"):
        parse_inventory(change(text).encode())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_named_and_left(
    file: InventoryFile, capsys: pytest.CaptureFixture[str]
) -> None:
    os.chown(file.path, US, US)
    assert main(["clean"]) == ExitCode.ERROR
    assert capsys.readouterr().err == (
        f"pdserve: {file.path} cannot be used: it belongs to user {US}; it is kept: remove it "
        "once none of its processes runs\n"
    )
    assert file.path.exists()


# Whose session it is.


@pytest.mark.parametrize(
    ("there", "here", "lives", "state"),
    [
        ({}, {}, True, SessionState.IN_USE),
        ({}, {}, False, SessionState.KILLED),
        ({"name": "h04"}, {}, False, SessionState.OTHER_HOST),
        ({"machine_id": "n"}, {}, False, SessionState.OTHER_HOST),
        ({"boot_id": "a"}, {}, False, SessionState.EARLIER_BOOT),
        ({"boot_id": "a"}, {}, True, SessionState.EARLIER_BOOT),
        (
            {"boot_id": "a", "machine_id": ""},
            {"machine_id": ""},
            False,
            SessionState.OTHER_HOST,
        ),
        ({"machine_id": ""}, {"machine_id": ""}, False, SessionState.KILLED),
        ({"pid_namespace": "pid:[2]"}, {}, False, SessionState.OTHER_NAMESPACE),
    ],
    ids=[
        "its process lives",
        "its process is gone",
        "another name",
        "another machine of that name",
        "an earlier boot",
        "an earlier boot, and its id is used again",
        "another boot of a machine without an id",
        "a machine without an id",
        "a container with ids of its own",
    ],
)
def test_where_a_session_stands(
    there: dict[str, str], here: dict[str, str], lives: bool, state: SessionState
) -> None:
    inventory = replace(INVENTORY, host=replace(HERE, **there))
    assert state_of(inventory, replace(HERE, **here), lives=lives) is state


# Whose process group it is.


def seen(
    pid: int, *, started: int = 5000, group: int = 100, uid: int = US, runs: bool = True
) -> SeenProcess:
    return SeenProcess(pid=pid, group=group, started=started, uid=uid, runs=runs)


def living(*pids: int, proven: bool = True) -> LivingGroup:
    return LivingGroup(group=GROUP, pids=pids, proven=proven)


@pytest.mark.parametrize(
    ("processes", "writers", "expected"),
    [
        ([], [], None),
        ([seen(100)], [], living(100)),
        ([seen(100), seen(101, started=6000), seen(102, group=7)], [], living(100, 101)),
        ([seen(100, runs=False)], [], None),
        ([seen(100, runs=False), seen(101)], [], living(101)),
        ([seen(100, started=9000), seen(101, started=9001)], [101], None),
        ([seen(100, started=9000, group=7), seen(101)], [101], None),
        ([seen(101, started=6000)], [101], living(101)),
        ([seen(101), seen(102)], [102], living(101, 102)),
        ([seen(101, started=6000)], [], living(101, proven=False)),
        ([seen(101, started=4999)], [101], None),
        ([seen(101, uid=0)], [101], None),
    ],
    ids=[
        "nothing lives",
        "the leader",
        "leader and members",
        "a leader that nobody waited for",
        "a member of a leader that nobody waited for",
        "the number leads another group",
        "the number is another process's",
        "a member that writes for us",
        "one member proves the others",
        "a member that nothing proves",
        "older than the group",
        "another user's",
    ],
)
def test_what_lives_of_a_group(
    processes: list[SeenProcess], writers: list[int], expected: LivingGroup | None
) -> None:
    found = living_group(GROUP, processes, uid=US, writes_for_us=lambda pid: pid in writers)
    assert found == expected
