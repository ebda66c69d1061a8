"""One night, step by step: run, report, history, notify. Each begins with what lies on disk."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from pathlib import Path

from pytest_pdserve.nightly.changes import Tonight
from pytest_pdserve.nightly.changes import advance
from pytest_pdserve.nightly.changes import still_undelivered
from pytest_pdserve.nightly.changes import trouble_events
from pytest_pdserve.nightly.changes import what_changed
from pytest_pdserve.nightly.expecting import expected_by
from pytest_pdserve.nightly.folder import NightlyFolder
from pytest_pdserve.nightly.notifying import Notifier
from pytest_pdserve.nightly.notifying import deliver
from pytest_pdserve.nightly.observations import Observation
from pytest_pdserve.nightly.observations import observations
from pytest_pdserve.nightly.observations import troubles
from pytest_pdserve.nightly.outcome import code_of_session
from pytest_pdserve.nightly.outcome import codes_of_report
from pytest_pdserve.nightly.pushing import push
from pytest_pdserve.nightly.running import Asked
from pytest_pdserve.nightly.running import run_session
from pytest_pdserve.nightly.settling import settle
from pytest_pdserve.nightly.settling import stack_before
from pytest_pdserve.nightly.settling import suspects
from pytest_pdserve.nightly.settling import topologies
from pytest_pdserve.nightly.summary import nightly_markdown
from pytest_pdserve.report.document import unmeasured_report
from pytest_pdserve.report.writing import FORMATS
from pytest_pdserve.report.writing import report_text
from pytest_pdserve.report.writing import write_report
from pytest_pdserve.results.files import write_bytes
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.exit_codes import first_of
from pytest_pdserve.values.nightly import STEPS
from pytest_pdserve.values.nightly import Event
from pytest_pdserve.values.nightly import NightlyState
from pytest_pdserve.values.nightly import Step
from pytest_pdserve.values.report import Reason
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.sessions import utc_text
from pytest_pdserve.values.system import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a night is to do."""

    asked: Asked
    """What is measured."""
    system: System
    """The system."""
    folder: NightlyFolder
    """Where the night's files lie."""
    history: Path
    """Folder of the history."""
    runs: Path
    """Folder of records."""
    notify: tuple[str, ...] = ()
    """Command that events are given to; empty for none."""
    partial: bool = False
    """Whether cells may be left out for the deadline without the night being NOT JUDGED."""


@dataclass(slots=True, kw_only=True)
class Night:
    """A night that is being done, under its lock."""

    plan: Plan
    """What it is to do."""
    night: date
    """Which night it is."""
    held: int
    """Descriptor of the lock."""
    say: Callable[[str], None]
    """Prints a line."""
    warn: Callable[[str], None]
    """Prints a line about what went wrong."""
    clean: Callable[[], object]
    """Removes what killed sessions left."""
    session: Callable[[Asked, int], int] = run_session
    """Runs the session while it holds the lock, and returns pytest's exit code."""
    notifier: Callable[..., Notifier] = Notifier
    """Makes the notifier of a command and a folder."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """Tells the time."""
    state: NightlyState = field(init=False)
    """What is known of earlier nights."""
    codes: list[ExitCode] = field(default_factory=list)
    """What speaks for an exit code."""

    def __post_init__(self) -> None:
        """Read the state.

        :raises ConfigError: if it is malformed.
        """
        self.state = self.plan.folder.load_state() or NightlyState(system=self.plan.system.name)

    def do(self, steps: Sequence[Step]) -> ExitCode:
        """Do the steps that are asked for, in order.

        :raises PdserveError: if a file cannot be read or written.
        """
        acts = {
            "run": self._run,
            "report": self._report,
            "history": self._push,
            "notify": self._notify,
        }
        for step in STEPS:
            if step in steps:
                acts[step]()
        return first_of(self.codes)

    def _save(self, **fields: object) -> None:
        self.state = replace(self.state, ended_at=utc_text(datetime.now(UTC)), **fields)  # type: ignore[arg-type]
        self.plan.folder.write_state(self.state)

    def _run(self) -> None:
        """Run the session, unless one of tonight has ended that nobody read the report of."""
        if self._taken_up():
            if not self.plan.folder.other_report.exists():
                self._run_baselines_stack()
            return
        for form in FORMATS:  # whatever happens now, an older report is not taken for tonight's
            self.plan.folder.report(form).unlink(missing_ok=True)
        self.plan.folder.other_report.unlink(missing_ok=True)
        self._save(begun=self.night.isoformat())
        if self._time_is_over():
            self._write_unmeasured(f"no time was left until {self.plan.asked.until}")
            return
        code = self.session(self.plan.asked, self.held)
        self.codes.append(code_of_session(code))
        if not self.plan.folder.report("json").exists():
            self._write_unmeasured(f"pytest ended with exit code {code} and left no report")
        self._run_baselines_stack()

    def _run_baselines_stack(self) -> None:
        """Run the baseline's stack on what is newly slow, where it is another than tonight's."""
        report = self.plan.folder.load_report()
        if report is None or not report.ended:
            return
        stack, found = stack_before(report), suspects(self._seen(report), self.state.followed)
        if not (stack and found):
            return
        if self._time_is_over():
            self.warn("no time is left to run the baseline's stack on what is slow")
            return
        self.say(f"slow stack or slow nodes? The baseline's stack runs on them too: {stack}")
        code = self.session(
            replace(
                self.plan.asked,
                topology=topologies(found),
                report=self.plan.folder.other_report,
                runs=self.plan.folder.other_runs,
                stack=stack,
            ),
            self.held,
        )
        if code not in (0, 1):
            self.warn(f"the baseline's stack did not run to its end: pytest exited with {code}")

    def _time_is_over(self) -> bool:
        until = self.plan.asked.until
        return until is not None and until <= self.now()

    def _seen(self, report: Report) -> dict[str, Observation]:
        return observations(report, expected_by(self.plan.system, self.plan.asked.rootdir))

    def _write_unmeasured(self, why: str) -> None:
        reason = Reason(subject="pytest", why=why)
        report = unmeasured_report(self.plan.system, ended=False, errors=(reason,))
        write_report(report, self.plan.folder.report("json"), "json")

    def _taken_up(self) -> bool:
        """Take up a night that died; tell whether its session is tonight's and has ended."""
        begun = self.state.begun
        if begun is None:
            return False
        report = self.plan.folder.load_report()
        if report is not None and report.ended and report.measured:
            self.say(f"the night of {begun} died after its session; it is taken up")
            if begun == self.night.isoformat():
                return True
            self._tell(self._events(report))
            return False
        self.say(f"the night of {begun} died while it measured; it is replaced")
        self.clean()
        return False

    def _report(self) -> None:
        """Tell what changed, and write the report in every format."""
        report = self.plan.folder.load_report()
        if report is None:
            raise ConfigError(
                f"{self.plan.folder.report('json')}: expected the report of a night; do the step "
                "run first"
            )
        self.codes += codes_of_report(report, partial=self.plan.partial)
        events = self._events(report)
        self.say(report.headline)
        self._tell(events)
        if report.left_out:
            self.say(f"left out: {', '.join(report.left_out)}")
        text = nightly_markdown(self.state, events) + report_text(report, "md")
        write_bytes(self.plan.folder.report("md"), text.encode())
        write_report(report, self.plan.folder.report("prom"), "prom")
        self.say(f"report: {self.plan.folder.report('md')}")

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            self.say(f"{event.kind}: {event.title}, since {event.since}")

    def _events(self, report: Report) -> tuple[Event, ...]:
        """Return what changed by a report that is read for the first time, and keep it."""
        session = report.session.id if report.session else ""
        begun = self.state.begun
        if begun is None and session == self.state.session:
            return ()
        night = self.night if begun is None else date.fromisoformat(begun)
        other = self.plan.folder.load_report(self.plan.folder.other_report)
        before = self._seen(other) if other is not None and other.ended else {}
        settled = settle(self._seen(report), before, self.state.followed)
        tonight = Tonight(
            night=night,
            system=report.system,
            seen=settled.seen,
            troubles=(*troubles(report), *settled.troubles),
            changed=what_changed(self.state, report),
            measured=report.measured,
        )
        followed, events = advance(self.state, tonight)
        trouble_since, of_machines = trouble_events(self.state, tonight)
        events = (*events, *of_machines)
        # Without a notifier nothing joins what waits for one.
        new = events if self.plan.notify else ()
        waiting = still_undelivered(self.state.undelivered, new)
        self._save(
            night=night.isoformat(),
            begun=None,
            session=session,
            versions=report.versions if report.measured else self.state.versions,
            nodes=report.nodes if report.measured else self.state.nodes,
            followed=followed,
            trouble_since=trouble_since,
            undelivered=waiting,
        )
        return events

    def _push(self) -> None:
        """Add what the history lacks; trouble with it is an ERROR, and no verdict is lost."""
        try:
            for line in push(self.plan.history, self.plan.runs, self.plan.system.name):
                self.say(line)
        except PdserveError as error:
            self.warn(f"the history was not written: {error}")
            self.codes.append(ExitCode.ERROR)

    def _notify(self) -> None:
        """Give events to the notifier; what it does not take is tried again next night."""
        if not self.plan.notify or not self.state.undelivered:
            return
        notifier = self.notifier(argv=self.plan.notify, folder=self.plan.asked.rootdir)
        for line in deliver(notifier, self.state.undelivered, self._delivered):
            self.warn(line)

    def _delivered(self, event: Event) -> None:
        waiting = tuple(each for each in self.state.undelivered if each != event)
        self._save(undelivered=waiting)
