"""A folder that tries may do anything in, and what each try did: in it, and outside of it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.exit_codes import ExitCode

LIMIT_S = 30.0
"""How long one try may take before it counts as one that hangs."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
)


_OF_PDSERVE = {*ExitCode} - {ExitCode.FAULT_OF_PDSERVE, ExitCode.INTERRUPTED}
_OF_PYTEST = {*pytest.ExitCode} - {pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.INTERRUPTED}
_OWN = ("around", "cache", "home", "state", "template", "tmp")


class _Hangs(KeyboardInterrupt):
    """Ends a try that takes too long; pytest and pdserve end with an interrupt."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one try ended with."""

    code: int
    """Exit code; -1 if there is none."""
    output: str = ""
    """What it printed."""
    trouble: list[str] = field(default_factory=list)
    """What is wrong, a text each."""


def wrong_end(outcome: Outcome, codes: Collection[int]) -> list[str]:
    """Return what is wrong with an exit code, or with what was printed."""
    trouble = [] if outcome.code in codes else [f"exit code {outcome.code}"]
    # In the words of an input that a message quotes, the end of a line is escaped.
    if (
        "Traceback (most recent call last):\n" in outcome.output
        or "INTERNALERROR" in outcome.output
    ):
        trouble.append("a traceback was printed")
    if outcome.code in (ExitCode.BAD_INPUT, ExitCode.ERROR) and not outcome.output.strip():
        trouble.append(f"exit code {outcome.code} without a word")
    return trouble


class World:
    """A project that is copied anew for each try, and what lies around it."""

    def __init__(self, root: Path, limit_s: float = LIMIT_S) -> None:
        self.root = root
        self.template = root / "template"
        self.project = root / "around" / "project"
        self._limit_s = limit_s
        self._written: list[str] | None = None
        """What was opened to be written by the try that runs; None between tries."""
        self._allowed: tuple[str, ...] = ()
        around = self.project.parent
        for folder in ("home", "state", "cache", "tmp"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        around.mkdir(exist_ok=True)
        (around / "neighbour.txt").write_text("not ours\n")
        sys.addaudithook(self._audit)

    def settle(self) -> None:
        """Live in this world: home, state and temporary files lie in it."""
        names = {"HOME": "home", "XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache"}
        names["TMPDIR"] = "tmp"
        os.environ.update({name: str(self.root / folder) for name, folder in names.items()})
        os.environ.update(COLUMNS="100", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
        for name in ("PDSERVE_API_KEY", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
            os.environ.pop(name, None)
        sys.dont_write_bytecode = True

    def begin(self) -> None:
        """Copy the project anew and go there."""
        os.chdir(self.root)
        for folder, own in ((self.root, _OWN), (self.project.parent, ("neighbour.txt",))):
            for entry in os.scandir(folder):
                if entry.name not in own:
                    _remove(Path(entry.path))
        shutil.copytree(self.template, self.project, symlinks=True)
        _empty(self.root / "state")
        os.chdir(self.project)

    def pdserve(
        self, *argv: str, encoding: str = "utf-8", allowed: tuple[str, ...] = ()
    ) -> Outcome:
        """Run ``pdserve``; return its exit code, and what is wrong with how it ended."""
        outcome = self.watch(lambda: main(argv), encoding=encoding, allowed=allowed)
        outcome.trouble += wrong_end(outcome, _OF_PDSERVE)
        return outcome

    def pytest(self, *argv: str, encoding: str = "utf-8", allowed: tuple[str, ...] = ()) -> Outcome:
        """Run pytest in the project, with the plugin and nothing else."""
        watching = _Raised()
        plugins = ("pytest_pdserve.plugin.hooks", "no:cacheprovider", "no:faulthandler")
        own = ["-s", *(word for name in plugins for word in ("-p", name)), *argv]
        outcome = self.watch(
            lambda: int(pytest.main(own, plugins=[watching])), encoding=encoding, allowed=allowed
        )
        outcome.trouble += [*wrong_end(outcome, _OF_PYTEST), *watching.faults]
        return outcome

    def library(self, function: Callable[[], Any]) -> Outcome:
        """Call what reads an answer; it returns, or raises an error that users may meet."""

        def call() -> int:
            try:
                function()
            except PdserveError as error:
                print(error)
                return 4
            return 0

        return self.watch(call)

    def watch(
        self,
        function: Callable[[], int],
        *,
        encoding: str = "utf-8",
        allowed: tuple[str, ...] = (),
    ) -> Outcome:
        """Run *function* within the time; note its output, its end, and writes outside.

        :param allowed: folders beside the project that it was told to write to.
        """
        before, import_path = self._surroundings(), [*sys.path]
        inside = (self.project, *(self.root / name for name in ("state", "cache", "tmp")))
        self._allowed = (*(f"{path}/" for path in inside), *allowed)
        outcome = Outcome(code=-1)
        buffer = io.BytesIO()
        with _redirected(buffer, encoding), self._watching() as hung:
            try:
                outcome.code = function()
            except SystemExit as ended:
                outcome.code = ended.code if isinstance(ended.code, int) else 1
            except _Hangs:
                outcome.code = 2
            except Exception:
                outcome.trouble.append(f"a traceback:\n{traceback.format_exc()}")
        sys.path[:] = import_path
        outcome.output = buffer.getvalue().decode(encoding, "replace")
        if hung:
            outcome.trouble.append(f"no end within {self._limit_s:g} s, in:\n{hung[0]}")
        outcome.trouble += [f"written outside: {path}" for path in dict.fromkeys(self._taken())]
        changed = set(before.items()) ^ set(self._surroundings().items())
        others = {path for path, _ in changed if not self._is_allowed(path)}
        outcome.trouble += [f"changed outside: {path}" for path in sorted(others)]
        return outcome

    @contextlib.contextmanager
    def _watching(self) -> Iterator[list[str]]:
        """Interrupt what takes too long; the list then has the place where it was."""
        hung: list[str] = []

        def interrupt(_: int, frame: FrameType | None) -> None:
            hung.append("".join(traceback.format_stack(frame)[-6:]))
            raise _Hangs

        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, self._limit_s, 1.0)  # again, should it be swallowed
        self._written = []
        try:
            yield hung
        except _Hangs:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._written is None:
            return
        if event == "open":
            path, _, flags = arguments
            paths = (path,) if isinstance(flags, int) and flags & _WRITING else ()
        elif event in _CHANGES:
            paths = arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]
        else:
            return
        for path in paths:
            if isinstance(path, str | bytes):
                self._written.append(os.path.join(os.getcwd(), os.fsdecode(path)))

    def _taken(self) -> list[str]:
        """Paths outside of what is allowed that were opened to be written."""
        written, self._written = self._written or [], None
        real = [os.path.normpath(path) for path in written]
        return [path for path in real if not self._is_allowed(path)]

    def _is_allowed(self, path: str) -> bool:
        """Whether a path is in a folder that may be written to, or is one above it."""
        above = any(folder.startswith(f"{path}/") for folder in self._allowed)
        return above or f"{path}/".startswith((*self._allowed, "/dev/"))

    def _surroundings(self) -> dict[str, tuple[int, int]]:
        """Every file around the project, with its size and time of change."""
        found = {}
        for folder in (self.root, self.project.parent, self.root / "home"):
            for entry in os.scandir(folder):
                status = entry.stat(follow_symlinks=False)
                if not entry.is_dir(follow_symlinks=False):
                    found[entry.path] = (status.st_size, status.st_mtime_ns)
                else:
                    found[entry.path] = (0, 0)
        return found


class _Raised:
    """Notes what tests raise that no user should meet."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """Note an error that is neither of pdserve nor an end of a test."""
        known = (
            *(PdserveError, AssertionError, KeyboardInterrupt),
            *(pytest.skip.Exception, pytest.fail.Exception, pytest.xfail.Exception),
        )
        if call.excinfo is not None and not isinstance(call.excinfo.value, known):
            error = call.excinfo.value
            said = "".join(traceback.format_exception(error)[-6:])
            self.faults.append(f"a traceback:\n{said}")


@contextlib.contextmanager
def _redirected(buffer: io.BytesIO, encoding: str) -> Iterator[None]:
    """Have standard output and error go to *buffer*, as to a terminal of that encoding."""
    out, error = (
        io.TextIOWrapper(buffer, encoding=encoding, errors=errors, write_through=True)
        for errors in ("strict", "backslashreplace")
    )
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            yield
    finally:
        out.detach()
        error.detach()


def _remove(folder: Path) -> None:
    def force(function: Callable[..., Any], path: str, _: Any) -> None:
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700)
        function(path)

    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, onerror=force)
    elif os.path.lexists(folder):
        folder.unlink()


def _empty(folder: Path) -> None:
    _remove(folder)
    folder.mkdir()
