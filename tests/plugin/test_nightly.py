"""``pdserve nightly``: its lock, its deadline, its notifier, and what a night that died leaves."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from pathlib import Path

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.commands.main import main
from pytest_pdserve.nightly.folder import NightlyFolder
from pytest_pdserve.nightly.locking import BusyError
from pytest_pdserve.nightly.locking import locked
from pytest_pdserve.nightly.night import Night
from pytest_pdserve.nightly.night import Plan
from pytest_pdserve.nightly.notifying import Notifier
from pytest_pdserve.nightly.notifying import deliver
from pytest_pdserve.nightly.running import SessionCommand
from pytest_pdserve.nightly.running import run_session
from pytest_pdserve.report.document import unmeasured_report
from pytest_pdserve.report.writing import write_report
from pytest_pdserve.results.kinds import NIGHTLY_EVENT
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.nightly import STEPS
from pytest_pdserve.values.nightly import Event
from pytest_pdserve.values.nightly import NightlyState
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.sessions import SessionRef
from tests.support.reports import cell
from tests.support.reports import report_of
from tests.support.simulated import SimulatedProject

NIGHT = date(2026, 11, 28)
EVENT = Event(kind="new", key="sim/a", title="a is slower", system="sim", since=NIGHT, night=NIGHT)
TAKES = "import json, pathlib, sys\n" + (
    "with pathlib.Path('told').open('a') as file: file.write(sys.stdin.read() + '\\n')\n"
)
"""A notifier that writes down what it gets."""
REFUSES = "import sys\nprint('401: Bad credentials, token', 'hunter2hunter2')\nsys.exit(1)\n"


@dataclass(kw_only=True)
class Bench:
    """Nights of one project with a session of its own making."""

    root: Path
    night: date = NIGHT
    notify: tuple[str, ...] = ()
    until: datetime | None = None
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    sessions: int = 0
    cleaned: int = 0

    @property
    def folder(self) -> NightlyFolder:
        return NightlyFolder(path=self.root / "nightly" / "sim")

    def do(self, report: Report | None, steps: Sequence[str] = STEPS) -> ExitCode:
        """Do a night whose session leaves *report*; None for one that leaves none."""

        def session(asked: SessionCommand, _: int) -> int:
            self.sessions += 1
            if report is not None:
                write_report(report, asked.report, "json")
            return 0 if report is not None else -9

        plan = Plan(
            command=SessionCommand(
                suites=("suites",),
                system="sim",
                report=self.folder.report("json"),
                rootdir=self.root,
                until=self.until,
            ),
            system=load_system("sim", (self.root / "baselines",)),
            folder=self.folder,
            history=self.root / "history",
            runs=self.root / "runs",
            notify=self.notify,
        )
        with locked(self.folder.lock, wait=False) as held:
            night = Night(
                plan=plan,
                night=self.night,
                lock=held,
                say=self.said.append,
                warn=self.warned.append,
                clean=self._clean,
                session=session,
                notifier=quick,
            )
            return night.do(steps)  # type: ignore[arg-type]

    def _clean(self) -> None:
        self.cleaned += 1

    @property
    def state(self) -> NightlyState:
        state = self.folder.load_state()
        assert state is not None
        return state

    def told(self) -> list[Event]:
        """Events that the notifier took."""
        path = self.root / "told"
        lines = path.read_text().splitlines() if path.exists() else []
        return [NIGHTLY_EVENT.parse(json.loads(line), path) for line in lines]

    def notifier(self, program: str) -> None:
        self.notify = (sys.executable, "-S", "-c", program)


def quick(**fields: object) -> Notifier:
    """A notifier that is not waited for long."""
    return Notifier(**fields, pause_s=0.0)  # type: ignore[arg-type]


@pytest.fixture
def bench(sim: SimulatedProject) -> Bench:
    return Bench(root=sim.path)


def slow(session: str = "20261128T220000-sim") -> Report:
    """The report of a session with one regression."""
    return report_of(cell(), system="sim", session=SessionRef(id=session))


def test_a_night_leaves_its_report_in_each_format_its_state_and_its_events(bench: Bench) -> None:
    bench.notifier(TAKES)
    assert bench.do(slow()) is ExitCode.FAIL
    (event,) = bench.told()
    assert (event.kind, event.night) == ("new", NIGHT)
    assert bench.state.undelivered == ()
    assert bench.state.begun is None
    text = bench.folder.report("md").read_text()
    assert text.startswith("## Night of 2026-11-28\n\n- **New**: 1p3d random-512-256-n4 is slower ")
    assert "## FAIL on sim: 1 FAIL" in text
    assert bench.folder.report("prom").is_file()
    assert bench.said[0] == "FAIL on sim: 1 FAIL"


def test_a_report_that_is_made_again_names_what_is_still_followed(bench: Bench) -> None:
    bench.do(slow())
    bench.night += timedelta(days=1)  # after midnight
    bench.do(None, ["report"])
    head = bench.folder.report("md").read_text().splitlines()[:3]
    assert head[0] == "## Night of 2026-11-28"
    assert head[2].startswith(
        "- **Still followed**: 1p3d random-512-256-n4 is slower on sim, since"
    )


def test_events_wait_for_a_notifier_whoever_runs_a_night_without_one(bench: Bench) -> None:
    bench.notifier(REFUSES)
    bench.do(slow())
    bench.notify = ()
    bench.night += timedelta(days=1)
    bench.do(slow("20261129T220000-sim"))
    assert [event.kind for event in bench.state.undelivered] == ["new"]


def test_no_session_starts_after_the_deadline(bench: Bench) -> None:
    bench.until = datetime.now(UTC) - timedelta(seconds=1)
    assert bench.do(slow()) is not ExitCode.OK
    assert bench.sessions == 0
    assert "no time is left until" in bench.folder.report("md").read_text()


def test_the_report_of_the_night_before_is_not_shown_as_tonights(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.do(slow())
    monkeypatch.chdir(bench.root)
    with locked(bench.folder.lock, wait=False):
        assert main(["nightly", "--system", "sim", str(bench.root / "suites")]) != 0
    assert not bench.folder.report("md").exists()
    assert bench.folder.report("json").exists()


@pytest.mark.parametrize("system", ["..", "../other"])
def test_a_report_outside_of_the_folder_of_nights_is_never_removed(
    system: str, bench: Bench
) -> None:
    reports = [bench.root / "report.md", bench.root / "other" / "report.md"]
    (bench.root / "nightly").mkdir(exist_ok=True)
    (bench.root / "other").mkdir()
    for report in reports:
        report.write_text("mine")
    code = main(["nightly", "--system", system, "--rootdir", str(bench.root)])
    assert code == ExitCode.BAD_INPUT
    assert all(report.read_text() == "mine" for report in reports)


def test_steps_alone_do_what_the_whole_night_does(bench: Bench) -> None:
    bench.notifier(TAKES)
    assert bench.do(slow(), ["run"]) is ExitCode.OK
    assert bench.told() == []
    assert bench.do(None, ["report"]) is ExitCode.FAIL
    assert bench.do(None, ["report"]) is ExitCode.FAIL
    assert [event.kind for event in bench.state.undelivered] == ["new"]
    assert bench.do(None, ["notify"]) is ExitCode.OK
    assert bench.do(None, ["notify"]) is ExitCode.OK
    assert [event.kind for event in bench.told()] == ["new"]
    assert bench.sessions == 1


def test_a_notifier_that_fails_is_named_and_tried_again_and_changes_no_verdict(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "hunter2hunter2")
    bench.notifier(REFUSES)
    assert bench.do(slow()) is ExitCode.FAIL
    (line,) = bench.warned
    assert line.startswith("the notifier failed for new sim/1p3d/random-512-256-n4/speed: it ")
    assert "exited with code 1: 401: Bad credentials, token" in line
    assert "hunter2" not in line
    bench.notifier(TAKES)
    bench.night += timedelta(days=1)
    bench.do(slow("20261129T220000-sim"))
    assert [event.kind for event in bench.told()] == ["new", "still"]


def test_a_notifier_that_hangs_is_ended_and_one_that_is_not_there_is_said(tmp_path: Path) -> None:
    taken: list[Event] = []
    hangs = Notifier(
        argv=(sys.executable, "-S", "-c", "import time; time.sleep(600)"),
        folder=tmp_path,
        tries=1,
        limit_s=0.2,
    )
    other = replace(EVENT, key="sim/b")
    said = deliver(hangs, (EVENT, replace(EVENT, kind="gone"), other), taken.append)
    assert said[0].endswith("new sim/a: it did not end in 0.2 s and was killed")
    assert said[2] == "1 more events wait for the next night"
    absent = Notifier(argv=("./no-such-notifier",), folder=tmp_path, tries=1)
    (line,) = deliver(absent, (EVENT,), taken.append)
    assert line.endswith("./no-such-notifier cannot be started: No such file or directory")
    assert taken == []


def test_a_second_night_leaves_with_one_sentence(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(bench.folder.lock, wait=False):
        code = main(["nightly", "--system", "sim", "--rootdir", str(bench.root), "suites"])
    assert code == ExitCode.ERROR
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "pdserve: another pdserve nightly of this system is running (it has locked "
        f"{bench.folder.lock}); --wait waits for it"
    )


def test_a_night_that_died_after_its_session_is_taken_up(bench: Bench) -> None:
    bench.do(slow(), ["run"])
    assert bench.state.begun == "2026-11-28"
    assert bench.do(None) is ExitCode.FAIL
    assert bench.sessions == 1
    assert [each.since for each in bench.state.followed] == [NIGHT]
    assert bench.said[0] == "the night of 2026-11-28 was killed after its session; it is resumed"


def test_the_next_night_reads_the_report_of_one_that_died_before_it_runs(bench: Bench) -> None:
    bench.notifier(TAKES)
    bench.do(slow(), ["run"])
    bench.night += timedelta(days=1)
    bench.do(slow("20261129T220000-sim"))
    assert bench.sessions == 2
    assert [(event.kind, event.night) for event in bench.told()] == [
        ("new", NIGHT),
        ("still", bench.night),
    ]


def test_a_night_that_died_while_it_measured_is_replaced(bench: Bench) -> None:
    bench.do(replace(slow(), ended=False, measured=False), ["run"])
    assert bench.do(slow()) is ExitCode.FAIL
    assert (bench.sessions, bench.cleaned) == (2, 1)
    assert bench.said[0] == "the night of 2026-11-28 was killed while it measured; it is replaced"


def test_a_session_that_leaves_no_report_is_red_and_told(bench: Bench) -> None:
    bench.notifier(TAKES)
    bench.do(slow())
    bench.night += timedelta(days=1)
    assert bench.do(None) is ExitCode.ERROR
    assert [event.kind for event in bench.told()] == ["new", "cluster-trouble"]
    assert bench.told()[1].evidence[0] == (
        "pytest: pytest ended with exit code -9 and left no report"
    )
    assert "FAIL" not in bench.folder.report("md").read_text()


def test_a_night_that_measured_nothing_is_red(bench: Bench) -> None:
    system = load_system("sim", (bench.root / "baselines",))
    assert bench.do(unmeasured_report(system)) is ExitCode.NOT_JUDGED


def test_a_disk_that_is_full_is_said_before_anything_is_measured(bench: Bench) -> None:
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", "nightly", "--system", "sim"]
    done = subprocess.run(
        [*command, "suites"],
        cwd=bench.root,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8)),
    )
    assert done.returncode == ExitCode.ERROR, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"pdserve: {bench.folder.state} cannot be written: File too large; free space, or make "
        f"{bench.folder.path} writable"
    )
    assert not bench.folder.report("json").exists()


@pytest.mark.slow
def test_a_session_that_outlives_the_deadline_is_ended(tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text(
        "import pathlib, time\n"
        "def test_long():\n"
        "    pathlib.Path('began').touch()\n"
        "    time.sleep(600)\n"
    )
    asked = SessionCommand(
        suites=("test_long.py",),
        system="simulated",
        report=tmp_path / "report.json",
        rootdir=tmp_path,
        until=datetime.now(UTC) + timedelta(hours=1),
    )
    began = tmp_path / "began"

    def clock() -> float:
        """Tell the time; an hour passes once the test has begun."""
        while clocks and not began.exists():
            time.sleep(0.05)
        clocks.append(0.0)
        return 3600.0 * (len(clocks) > 1)

    clocks: list[float] = []
    with contextlib.chdir(tmp_path), locked(tmp_path / "lock", wait=False) as held:
        assert run_session(asked, held, clock=clock) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "run,send"], "'send' is not a step; these are run, report, history, notify"),
        (
            ["--until", "6"],
            "until '6': expected a local time such as 06:00, or a time with its offset from UTC",
        ),
        (
            ["--until", ""],
            "until '': expected a local time such as 06:00, or a time with its offset",
        ),
        (["--only", "report"], "expected the report of a night; do the step run first"),
        ([], "suites is not there: name suites, or set the ini key pdserve_nightly_suites"),
    ],
    ids=["a step that is none", "a time that is none", "no time", "no report", "no suites"],
)
def test_bad_input_ends_with_4_and_one_sentence(
    arguments: list[str], said: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    if not arguments:
        (bench.root / "suites").rename(bench.root / "elsewhere")
    try:
        code = main(["nightly", "--system", "sim", "--rootdir", str(bench.root), *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == ExitCode.BAD_INPUT
    assert said in capsys.readouterr().err.splitlines()[-1]


WAITS = """
import pathlib, time
def test_waits():
    pathlib.Path("started").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
"""


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def nightly(bench: Bench) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A function that starts ``pdserve nightly`` with a suite that waits to be told to go on."""
    (bench.root / "suites" / "test_waits.py").write_text(WAITS)
    command = [sys.executable, "-m", "pytest_pdserve.commands.main", "nightly", "--system", "sim"]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with (bench.root / "nightly.log").open("wb") as log:
            argv = [*command, "--topology", "dp", "suites"]
            process = subprocess.Popen(argv, cwd=bench.root, stdout=log, stderr=log)
        started.append(process)
        return process

    yield start
    (bench.root / "go").touch()
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    with locked(bench.folder.lock, wait=True):
        pass  # its session has ended too


@pytest.mark.slow
def test_a_night_that_is_told_to_end_ends_its_session_first(
    bench: Bench, nightly: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = nightly()
    wait_until((bench.root / "started").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == ExitCode.INTERRUPTED
    with locked(bench.folder.lock, wait=False):
        pass
    assert bench.state.begun is not None


@pytest.mark.slow
def test_a_killed_night_leaves_its_session_alone_and_the_next_takes_it_up(
    bench: Bench, nightly: Callable[[], subprocess.Popen[bytes]]
) -> None:
    first = nightly()
    wait_until((bench.root / "started").exists)
    first.kill()
    first.wait()
    with pytest.raises(BusyError), locked(bench.folder.lock, wait=False):
        pass
    (bench.root / "go").touch()
    with locked(bench.folder.lock, wait=True):
        report = bench.folder.load_report()
    assert report is not None
    assert report.ended
    second = nightly()
    assert second.wait(timeout=300) == ExitCode.OK
    assert "was killed after its session; it is resumed" in (bench.root / "nightly.log").read_text()
    assert len(list((bench.root / "runs").iterdir())) == 1
