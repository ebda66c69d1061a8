"""The ``pdserve`` command: run a subcommand, and report errors."""

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

_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO)
"""Errors of writing to standard output; errors of files are always a ``StoreError``."""
_ERRORS = "pdserve-ascii"
"""Name of the error handler of standard output."""
_LOOKALIKES = str.maketrans({"…": "...", "─": "-"})
"""Replacements for the non-ASCII characters of tables and messages; others are escaped."""
_NOT_COMMANDS = (
    *("arguments", "main", "project", "schemas"),
    *("history_prune", "history_trend"),  # steps of `pdserve history`
)


class _Parser(argparse.ArgumentParser):
    """Reports bad arguments in one sentence, and exits as for other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.BAD_INPUT, f"pdserve: {message[:400]}; see {self.prog} --help\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Reject ``--option=--``, which argparse before Python 3.13 turns into an empty list."""
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
            sys.stdout.flush()  # so that a write error sets the exit code
    except PdserveError as error:
        print(f"pdserve: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT if isinstance(error, ConfigError) else ExitCode.ERROR
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS and error.filename is None:
            return _without_output(error)
        traceback.print_exc()
        print(f"pdserve: internal error of pdserve: {error!r}; please report it", file=sys.stderr)
        return ExitCode.FAULT_OF_PDSERVE
    return code


def _prepare_streams() -> None:
    """Print characters that the terminal's encoding lacks, e.g. in Latin-1, in ASCII."""
    codecs.register_error(_ERRORS, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_ERRORS)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement of characters that an encoding lacks, and their end."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = lacking.translate(_LOOKALIKES).encode("ascii", "backslashreplace")
    return escaped.decode("ascii"), error.end


def _without_output(error: OSError) -> ExitCode:
    """Discard further output after a write error; report it unless the reader closed a pipe."""
    if not isinstance(error, BrokenPipeError):
        message = f"pdserve: standard output cannot be written: {error.strerror}"
        print(message, file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
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
        prog="pdserve", description="Show, start, measure and judge prefill/decode topologies."
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
    """Return name and version, which is unknown if the package is only on ``PYTHONPATH``."""
    try:
        return f"pytest-pdserve {metadata.version('pytest-pdserve')}"
    except metadata.PackageNotFoundError:
        return "pytest-pdserve, version unknown: not installed, only on PYTHONPATH"


if __name__ == "__main__":
    sys.exit(main())
