"""One night in four steps: run, report, history, notify. Each step starts from files on disk."""

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
from pytest_pdserve.nightly.changes import trouble_events
from pytest_pdserve.nightly.changes import undelivered_events
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
from pytest_pdserve.nightly.running import SessionCommand
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
from pytest_pdserve.values.exit_codes import combined_code
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
    """Settings of a night."""

    command: SessionCommand
    """Command that runs the session."""
    system: System
    folder: NightlyFolder
    """Folder of the state and the report."""
    history: Path
    """Folder of the history."""
    runs: Path
    """Folder of records."""
    notify: tuple[str, ...] = ()
    """Command that receives events; empty for none."""
    partial: bool = False
    """True if the night may leave out cells for the deadline without being NOT JUDGED."""


@dataclass(slots=True, kw_only=True)
class Night:
    """A running night, which has the lock."""

    plan: Plan
    night: date
    """Date of the night."""
    lock: int
    """Descriptor of the locked file."""
    say: Callable[[str], None]
    """Prints a line."""
    warn: Callable[[str], None]
    """Prints a line about an error."""
    clean: Callable[[], object]
    """Removes what killed sessions left on this host."""
    session: Callable[[SessionCommand, int], int] = run_session
    """Runs a session, which inherits the lock, and returns pytest's exit code."""
    notifier: Callable[..., Notifier] = Notifier
    """Creates the notifier from a command and a folder."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """Returns the current time, with a time zone."""
    state: NightlyState = field(init=False)
    """State that earlier nights left."""
    codes: list[ExitCode] = field(default_factory=list)
    """Exit codes of the steps and verdicts so far."""

    def __post_init__(self) -> None:
        """Read the state.

        :raises ConfigError: if it is malformed.
        """
        self.state = self.plan.folder.load_state() or NightlyState(system=self.plan.system.name)

    def do(self, steps: Sequence[Step]) -> ExitCode:
        """Run the given steps in their order.

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
        return combined_code(self.codes)

    def _save(self, **fields: object) -> None:
        self.state = replace(self.state, ended_at=utc_text(datetime.now(UTC)), **fields)  # type: ignore[arg-type]
        self.plan.folder.write_state(self.state)

    def _run(self) -> None:
        """Run the session, unless tonight's has ended and its report was not read yet."""
        if self._resume():
            if not self.plan.folder.other_report.exists():
                self._run_baselines_stack()
            return
        for form in FORMATS:  # an older report must never be taken for tonight's
            self.plan.folder.report(form).unlink(missing_ok=True)
        self.plan.folder.other_report.unlink(missing_ok=True)
        self._save(begun=self.night.isoformat())
        if self._time_is_over():
            self._write_unmeasured(f"no time is left until {self.plan.command.until}")
            return
        code = self.session(self.plan.command, self.lock)
        self.codes.append(code_of_session(code))
        if not self.plan.folder.report("json").exists():
            self._write_unmeasured(f"pytest ended with exit code {code} and left no report")
        self._run_baselines_stack()

    def _run_baselines_stack(self) -> None:
        """Run the baseline's stack on what is newly slow, if it differs from tonight's."""
        report = self.plan.folder.load_report()
        if report is None or not report.ended:
            return
        stack, found = stack_before(report), suspects(self._seen(report), self.state.followed)
        if not (stack and found):
            return
        if self._time_is_over():
            self.warn("no time is left to run the baseline's stack on what is slow")
            return
        self.say(
            "to tell a slow stack from slow nodes, the baseline's stack runs on the same nodes: "
            + stack
        )
        code = self.session(
            replace(
                self.plan.command,
                topology=topologies(found),
                report=self.plan.folder.other_report,
                runs=self.plan.folder.other_runs,
                stack=stack,
            ),
            self.lock,
        )
        if code not in (0, 1):
            self.warn(
                f"the session of the baseline's stack did not complete: pytest exited with {code}"
            )

    def _time_is_over(self) -> bool:
        until = self.plan.command.until
        return until is not None and until <= self.now()

    def _seen(self, report: Report) -> dict[str, Observation]:
        return observations(report, expected_by(self.plan.system, self.plan.command.rootdir))

    def _write_unmeasured(self, why: str) -> None:
        reason = Reason(subject="pytest", why=why)
        report = unmeasured_report(self.plan.system, ended=False, errors=(reason,))
        write_report(report, self.plan.folder.report("json"), "json")

    def _resume(self) -> bool:
        """Resume a night that was killed; tell whether its session is tonight's and has ended."""
        begun = self.state.begun
        if begun is None:
            return False
        report = self.plan.folder.load_report()
        if report is not None and report.ended and report.measured:
            self.say(f"the night of {begun} was killed after its session; it is resumed")
            if begun == self.night.isoformat():
                return True
            self._tell(self._events(report))
            return False
        self.say(f"the night of {begun} was killed while it measured; it is replaced")
        self.clean()
        return False

    def _report(self) -> None:
        """Find what changed, and write the report in every format."""
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
        """Return the events of a report that is read for the first time, and store them."""
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
        trouble_since, machine_events = trouble_events(self.state, tonight)
        events = (*events, *machine_events)
        # Without a notifier no events are queued.
        new = events if self.plan.notify else ()
        waiting = undelivered_events(self.state.undelivered, new)
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
        """Add new sessions to the history; a failure is an ERROR, and no verdict is lost."""
        try:
            for line in push(self.plan.history, self.plan.runs, self.plan.system.name):
                self.say(line)
        except PdserveError as error:
            self.warn(f"the history was not written: {error}")
            self.codes.append(ExitCode.ERROR)

    def _notify(self) -> None:
        """Deliver events to the notifier; undelivered ones are tried again next night."""
        if not self.plan.notify or not self.state.undelivered:
            return
        notifier = self.notifier(argv=self.plan.notify, folder=self.plan.command.rootdir)
        for line in deliver(notifier, self.state.undelivered, self._delivered):
            self.warn(line)

    def _delivered(self, event: Event) -> None:
        waiting = tuple(each for each in self.state.undelivered if each != event)
        self._save(undelivered=waiting)
