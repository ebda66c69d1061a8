"""The ``pdserve`` command: finds the subcommands of this folder, and says what is wrong."""

from __future__ import annotations

import argparse
import codecs
import errno
import importlib
import io
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import Any
from typing import NoReturn

from pytest_pdserve import commands
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.exit_codes import ExitCode

_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EIO)
"""What writing to standard output may end with; of files it is always a ``StoreError``."""
_ERRORS = "pdserve-ascii"
"""Name of the error handler of standard output."""
_LOOKALIKES = str.maketrans({"…": "...", "─": "-"})
"""What our own tables and sentences have beside ASCII; all else is escaped, so that it is told."""
_NOT_COMMANDS = (
    *("arguments", "main", "project", "schemas"),
    *("history_prune", "history_trend"),  # steps of `pdserve history`
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence, and exits as for other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.BAD_INPUT, f"pdserve: {message[:400]}; see {self.prog} --help\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Refuse ``--option=--``, of which argparse before Python 3.13 makes an empty list."""
        found = super()._get_values(action, arg_strings)
        if found == [] and action.nargs is None:
            raise argparse.ArgumentError(action, "expected a value, not '--'")
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    :returns: an :class:`~pytest_pdserve.values.exit_codes.ExitCode`.
    """
    _prepare_streams()
    try:
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is told by the exit code
    except PdserveError as error:
        print(f"pdserve: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT if isinstance(error, ConfigError) else ExitCode.ERROR
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT and error.filename is None:
            return _without_output(error)
        traceback.print_exc()
        print(f"pdserve: a fault of pdserve itself: {error!r}; please report it", file=sys.stderr)
        return ExitCode.FAULT_OF_PDSERVE
    return code


def _prepare_streams() -> None:
    """Let text be printed whose characters the terminal's encoding lacks, e.g. in Latin-1."""
    codecs.register_error(_ERRORS, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_ERRORS)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return what is printed for characters that an encoding lacks, and where they end."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = lacking.translate(_LOOKALIKES).encode("ascii", "backslashreplace")
    return escaped.decode("ascii"), error.end


def _without_output(error: OSError) -> ExitCode:
    """End where standard output takes no more; whoever closed a pipe knows that already."""
    if not isinstance(error, BrokenPipeError):
        said = f"pdserve: standard output cannot be written: {error.strerror}"
        print(said, file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python tries again at its end
    return ExitCode.ERROR


def subcommands() -> dict[str, ModuleType]:
    """Return the module of every subcommand by name.

    Each has ``NAME``, ``TEXT`` (one line of help), ``add_arguments`` (of its parser) and ``run``,
    which takes the parsed options and returns an exit code.
    """
    found = [
        importlib.import_module(f"{commands.__name__}.{module.name}")
        for module in pkgutil.iter_modules(commands.__path__)
        if module.name not in _NOT_COMMANDS
    ]
    return {module.NAME: module for module in sorted(found, key=lambda each: str(each.NAME))}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pdserve", description="Prefill/decode topologies: show, start, measure, judge them."
    )
    parser.add_argument("--version", action="version", version=_version())
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in subcommands().items():
        more = getattr(module, "DESCRIPTION", module.TEXT)
        command = added.add_parser(name, help=module.TEXT, description=more)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _version() -> str:
    """Name and version; where the package is only on ``PYTHONPATH`` it has none."""
    try:
        return f"pytest-pdserve {metadata.version('pytest-pdserve')}"
    except metadata.PackageNotFoundError:
        return "pytest-pdserve, version unknown: not installed, only on PYTHONPATH"


if __name__ == "__main__":
    sys.exit(main())
