"""``pdserve rehearse``: deploy the mixed versions that occur during a rolling upgrade."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pdserve.commands.arguments import add_runs
from pytest_pdserve.commands.arguments import add_system
from pytest_pdserve.commands.project import find_project
from pytest_pdserve.commands.project import system_in
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.exit_codes import ExitCode
from pytest_pdserve.values.rehearsal import MAX_COMBINATIONS
from pytest_pdserve.values.rehearsal import Side

if TYPE_CHECKING:
    from pytest_pdserve.values.rehearsal import Combination
    from pytest_pdserve.values.rehearsal import Rehearsal
    from pytest_pdserve.values.system import System

NAME = "rehearse"
TEXT = "Deploy the mixtures of two versions that occur during a rolling upgrade"
DESCRIPTION = (
    f"{TEXT}. Exit codes: 0 all work, 1 one does not, 4 bad input, 6 one could not be judged, "
    "7 ERROR (docs/rehearse.md)"
)
_ALL = 99
RESEEDED = "reseeded"
"""Value of ``--to-model`` for the tiny model with other weights."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    for flag, side, what in (("--from", "A", "before"), ("--to", "B", "after")):
        parser.add_argument(
            flag,
            dest=side.lower(),
            required=True,
            metavar="STACK",
            help=f"Stack {side}, {what} the upgrade: versions such as 'vllm==0.32.0 nixl==1.5.1', "
            "python:ENVIRONMENT, current, or serve-args:--FLAG=VALUE (docs/stacks.md)",
        )
    add_system(parser)
    add_runs(parser)
    _add_choice(parser)
    parser.add_argument(
        "--plan", action="store_true", help="Print the combinations, and start nothing"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="Folder of rehearsal.json, rehearsal.md and logs; results in it are kept and not "
        "measured again (default: a folder of the runs folder, named after both stacks)",
    )


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose the combinations."""
    parser.add_argument(
        "--to-model",
        metavar="DIR",
        help="Folder of another revision of the model, which B serves under the same path; "
        f"'{RESEEDED}' is the tiny model with other weights (default: both serve the system's)",
    )
    parser.add_argument(
        "--max-combinations",
        type=_count,
        default=MAX_COMBINATIONS,
        metavar="N",
        help=f"Maximum number of combinations (default: {MAX_COMBINATIONS})",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="ID",
        help="Combination to deploy, e.g. prefill-A-decode-B-router-A-hash-off; may be "
        "given several times (default: see --max-combinations)",
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= 99):
        raise argparse.ArgumentTypeError(f"{text!r:.80}: expected a number from 1 to 99")
    return int(text)


def _progress(text: str) -> None:
    print(f"pdserve rehearse: {text}", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
    """Print the combinations, deploy those without a result, print the results."""
    from pytest_pdserve.report.rehearsal import plan_lines
    from pytest_pdserve.results.rehearsal import with_stored_results
    from pytest_pdserve.results.store import check_runs_folder
    from pytest_pdserve.session.rehearse import check_system

    project = find_project(options)
    system = system_in(project)
    check_system(system)
    wanted = _wanted(options, system)
    folder = options.output or project.runs / _folder_name(wanted)
    if options.plan:
        rehearsal = with_stored_results(wanted, folder)
        print("\n".join(plan_lines(rehearsal, rehearsal.left)))
        return ExitCode.OK
    check_runs_folder(folder)
    for number in (signal.SIGTERM, signal.SIGINT):  # a background job inherits SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    with _locked(folder):  # before results are read: another process may be writing them
        rehearsal = with_stored_results(wanted, folder)
        print("\n".join(plan_lines(rehearsal, rehearsal.left)), flush=True)
        return _rehearse(rehearsal, system, folder)


def _wanted(options: argparse.Namespace, system: System) -> Rehearsal:
    """Return the requested rehearsal, without results.

    :raises ConfigError: if neither the stacks nor the models differ.
    """
    from datetime import UTC
    from datetime import datetime

    from pytest_pdserve.backends.stacks import parse_stack
    from pytest_pdserve.serving.provenance import fingerprint
    from pytest_pdserve.values.rehearsal import MODEL
    from pytest_pdserve.values.rehearsal import Rehearsal
    from pytest_pdserve.values.sessions import utc_text
    from pytest_pdserve.values.stack import components

    a, b = parse_stack(options.a, system), parse_stack(options.b, system)
    models = _models(options.to_model, system)
    differences = (*components(a, b), *((MODEL,) if models else ()))
    if not differences:
        raise ConfigError(
            f"--from {options.a!r} and --to {options.b!r} are the same versions and arguments; "
            "give two that differ, or another revision of the model with --to-model"
        )
    return Rehearsal(
        system=system.name,
        fingerprint=fingerprint({}, system),
        a=a,
        b=b,
        differences=differences,
        started_at=utc_text(datetime.now(UTC)),
        models=models,
        chosen=_chosen(differences, options),
    )


def _chosen(differences: Sequence[str], options: argparse.Namespace) -> tuple[Combination, ...]:
    """Return the combinations to deploy.

    :raises ConfigError: if one that is named is not a combination of these two stacks.
    """
    from pytest_pdserve.values.rehearsal import choose_combinations

    if not options.only:
        return choose_combinations(differences, options.max_combinations)
    by_id = {each.id: each for each in choose_combinations(differences, _ALL)}
    for name in options.only:
        if name not in by_id:
            raise ConfigError(f"--only {name!r:.80}: expected one of {', '.join(by_id)}")
    return tuple(each for name, each in by_id.items() if name in options.only)


def _models(to_model: str | None, system: System) -> Mapping[Side, str]:
    """Return the folder of each side's model; empty if both serve the same.

    :raises ConfigError: if one is not a folder.
    """
    from pytest_pdserve.serving.model import is_tiny

    if to_model is None:
        return {}
    if to_model == RESEEDED:
        if not is_tiny(system):
            raise ConfigError(
                f"--to-model {RESEEDED}: system {system.name!r} serves {system.model.path}, and "
                "only the tiny model is made with other weights; name a folder"
            )
        return {"A": system.model.path, "B": f"{system.model.path}-{RESEEDED}"}
    for what, path in (("--to-model", to_model), ("[model] path", system.model.path)):
        if not (Path(path) / "config.json").is_file():
            raise ConfigError(f"{what} {path!r:.200} is not a folder with a config.json")
    return {"A": str(Path(system.model.path).absolute()), "B": str(Path(to_model).absolute())}


def _folder_name(wanted: Rehearsal) -> str:
    """Return the name of the folder: equal for equal rehearsals, so that they are continued."""
    from hashlib import sha256

    models = "".join(f"-{sha256(p.encode()).hexdigest()[:6]}" for p in wanted.models.values())
    digests = f"{wanted.a.digest}-{wanted.b.digest}-{wanted.fingerprint[:6]}"
    return f"rehearsal-{wanted.system}-{digests}{models}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make *folder*, and lock it against other rehearsals while the context is open.

    :raises ConfigError: if another rehearsal has locked it.
    :raises StoreError: if it cannot be made.
    """
    from filelock import FileLock
    from filelock import Timeout

    from pytest_pdserve.values.errors import StoreError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"{folder} is in use by another pdserve rehearse; wait for it") from error
    except OSError as error:
        raise StoreError(f"{folder} cannot be made or locked: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _rehearse(rehearsal: Rehearsal, system: System, folder: Path) -> int:
    """Build both stacks, deploy the remaining combinations, and write and print the results.

    :param folder: folder of the rehearsal, locked.
    """
    from pytest_pdserve.report.rehearsal import rehearsal_lines
    from pytest_pdserve.report.rehearsal import rehearsal_markdown
    from pytest_pdserve.results.files import write_bytes
    from pytest_pdserve.results.rehearsal import write_rehearsal

    if rehearsal.left:
        rehearsal = _deployed(rehearsal, system, folder)
    path = write_rehearsal(rehearsal, folder)
    page = folder / "rehearsal.md"
    write_bytes(page, rehearsal_markdown(rehearsal).encode())
    print("\n".join(rehearsal_lines(rehearsal)))
    print(f"written  {path}\nwritten  {page}")
    return _exit_code(rehearsal)


def _deployed(rehearsal: Rehearsal, system: System, folder: Path) -> Rehearsal:
    """Return *rehearsal* with all results; each is written when it is known."""
    from dataclasses import replace

    from pytest_pdserve.backends.stacks import build_stack
    from pytest_pdserve.backends.stacks import stacks_folder
    from pytest_pdserve.results.rehearsal import write_rehearsal
    from pytest_pdserve.serving.model import make_model
    from pytest_pdserve.serving.model import make_tiny_model
    from pytest_pdserve.session.rehearse import rehearsing
    from pytest_pdserve.session.rehearse_systems import Sides

    cache = stacks_folder()
    a = build_stack(rehearsal.a, system, cache, progress=_progress)
    b = build_stack(rehearsal.b, system, cache, progress=_progress)
    make_model(system)
    if rehearsal.models.get("B", "").endswith(f"-{RESEEDED}"):
        make_tiny_model(Path(rehearsal.models["B"]), reseeded=True)
    models: Mapping[Side, Path] = {side: Path(path) for side, path in rehearsal.models.items()}
    sides = Sides(system=system, stacks={"A": a, "B": b}, models=models, folder=folder / "models")
    with rehearsing(sides, folder, _progress) as stage:
        left = rehearsal.left
        for number, combination in enumerate(left, start=1):
            _progress(f"{number}/{len(left)}: {combination.id}")
            result = stage.rehearse(combination)
            _progress(f"{combination.id} {result.outcome}: {result.why[:200]}")
            rehearsal = replace(rehearsal, a=a, b=b, results=(*rehearsal.results, result))
            write_rehearsal(rehearsal, folder)
    return rehearsal


def _exit_code(rehearsal: Rehearsal) -> int:
    """Return the exit code; combinations with the compatibility hash decide, if there are any."""
    shown = rehearsal.shown
    checked = [each for each in shown if each.combination.hash_checked]
    outcomes = {each.outcome for each in checked or shown}
    if outcomes - {"works", "not shown"}:
        return ExitCode.FAIL
    return ExitCode.NOT_JUDGED if "not shown" in outcomes else ExitCode.OK
