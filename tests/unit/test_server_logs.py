"""What servers log while a request of ours fails."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_pdserve.plan.command import Command
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import RefusedError
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.server_logs import ServerLogs
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.record import NodeLoad

DATA = Path(__file__).parents[1] / "data" / "logs"
URL = "http://127.0.0.1:1/v1/completions"
COMMAND = Command(name="x", node="n", argv=("x",))
WORKER = "(Worker pid=3) ERROR 11-27 12:00:00 [x.py:1] CUDA error: an illegal memory access\n"
API_SERVER = "(APIServer pid=1) ERROR 11-27 12:00:00 [x.py:1] request failed\n"


@dataclass(frozen=True, kw_only=True)
class Logging:
    """A process of which only the log matters."""

    log: Path
    command: Command
    pid: int | None = None

    def poll(self) -> int | None:
        return None

    def cpu_samples(self) -> Sequence[tuple[float, float]]:
        return ()

    def watch(self) -> None: ...

    def node_load(self) -> NodeLoad | None:
        return None


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Logs of a prefill and a decode instance."""

    folder: Path

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def write(self, name: str, text: str) -> None:
        with self.log(name).open("a") as file:
            file.write(text)

    @property
    def logs(self) -> ServerLogs:
        return ServerLogs(
            servers=tuple(
                Server(
                    name=f"{role}[0]",
                    role=role,
                    url="http://x",
                    process=Logging(log=self.log(role), command=COMMAND),
                )
                for role in ("prefill", "decode")
            )
        )


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(folder=tmp_path)
    for role in ("prefill", "decode"):
        made.write(role, f"(Worker pid=3) ERROR 11-27 11:00:00 [x.py:1] {role} began badly\n")
    return made


def told(shelf: Shelf, meanwhile: Callable[[], None]) -> str:
    """What is told of a request during which *meanwhile* happened; nobody waits."""
    logs, clock = shelf.logs, iter(range(100))
    before = logs.sizes()
    meanwhile()
    return logs.errors_since(before, clock=lambda: float(next(clock)), sleep=lambda _: None)


def test_the_innermost_error_of_all_servers_is_told_with_its_place(shelf: Shelf) -> None:
    def meanwhile() -> None:
        shelf.write("prefill", API_SERVER)
        shelf.write("decode", WORKER)

    assert told(shelf, meanwhile) == (
        f"decode[0] logged meanwhile, in line 2 of {shelf.log('decode')} (Worker): CUDA error: an "
        "illegal memory access"
    )


def test_what_was_logged_before_is_not_told(shelf: Shelf) -> None:
    assert told(shelf, lambda: None) == ""


def test_an_error_that_is_written_late_is_waited_for(shelf: Shelf) -> None:
    logs, clock = shelf.logs, iter(range(100))
    before = logs.sizes()
    said = logs.errors_since(
        before,
        clock=lambda: float(next(clock)),
        sleep=lambda _: shelf.write("decode", WORKER),
    )
    assert said.startswith("decode[0] logged meanwhile, in line 2 of ")


REFUSED = (DATA / "seen_0.32_handshake_decode.txt").read_text()
PREFILL = (DATA / "seen_0.32_handshake_prefill.txt").read_text()


@pytest.mark.parametrize(
    ("prefill", "words"),
    [
        (PREFILL, "prefill[0]: they differ, dtype is bfloat16 and float32 (line 10 of "),
        (
            PREFILL.replace("dtype=torch.float32", "dtype=torch.bfloat16"),
            "prefill[0]: their logs show no difference (line 10 of ",
        ),
        ("", "engine 03c7c97c-5819-4f7e-9262-92275f6e8bde (line 10 of "),
    ],
    ids=["they differ", "nothing differs", "the other is unknown"],
)
def test_a_refused_handshake_is_told_with_its_pair_and_what_differs(
    prefill: str, words: str, tmp_path: Path
) -> None:
    shelf = Shelf(folder=tmp_path)
    started, refused = ("".join(lines) for lines in _parts(REFUSED))
    shelf.write("prefill", prefill)
    shelf.write("decode", started)
    said = told(shelf, lambda: shelf.write("decode", refused))
    number = started.count("\n") + 1
    assert said == (
        f"decode[0] refused the KV handshake with {words}{shelf.log('decode')}: RuntimeError: NIXL "
        "compatibility hash mismatch)"
    ).replace("line 10 ", f"line {number} ")


def _parts(text: str) -> tuple[list[str], list[str]]:
    """Lines of a log before its first error, and from it on."""
    lines = text.splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if " ERROR " in line)
    return lines[:first], lines[first:]


def fail(shelf: Shelf, error: PathError, logged: str) -> PathError:
    """The error of a request that failed with *error* while a server logged something."""

    def ask() -> None:
        with shelf.logs.explaining_errors(URL):
            shelf.write("decode", logged)
            raise error

    with pytest.raises(PathError) as raised:
        ask()
    return raised.value


def test_an_answer_of_a_failing_server_keeps_its_status_and_says_the_cause(shelf: Shelf) -> None:
    error = fail(shelf, AnswerError(URL, "answered 500 Error", status=500), WORKER)
    assert isinstance(error, AnswerError)
    assert error.status == 500
    assert str(error) == (
        f"{URL} answered 500 Error; decode[0] logged meanwhile, in line 2 of "
        f"{shelf.log('decode')} (Worker): CUDA error: an illegal memory access"
    )


def test_a_stream_that_breaks_off_says_the_cause_too(shelf: Shelf) -> None:
    error = fail(shelf, PathError("it stopped in the middle"), WORKER)
    assert str(error).startswith("it stopped in the middle; decode[0] logged meanwhile, ")


def test_a_request_that_is_rejected_is_our_own_mistake(shelf: Shelf) -> None:
    error = RefusedError(URL, "answered 400 Bad Request", status=400)
    assert fail(shelf, error, WORKER) is error
