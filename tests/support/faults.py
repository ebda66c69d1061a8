"""A judge with a fault in its source, asked about the cases whose answers are known."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from types import ModuleType

import pytest

from pytest_pdserve.values.record import Record

ROOT = Path(__file__).parents[2]
AGAIN = ("pytest_pdserve.judge.", "pytest_pdserve.values.rules", "tests.support.")
"""Modules that are imported anew, so that they see the fault."""
CASES = ("tests.support.known_cases", "tests.support.known_claims")
RIGHT: dict[str, str] = json.loads((ROOT / "tests" / "data" / "known_answers.json").read_text())
"""What a sound judge says of each known case, as it was checked by hand."""


class _Loader(SourceFileLoader):
    """Loads a module from a source that is not that of its file."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.get_filename(fullname), "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    """Finds one module by another source."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != self.module:
            return None
        file = str(source_path(fullname))
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, file, self.source))


def source_path(module: str) -> Path:
    """The file of a module."""
    return ROOT / Path(*module.split(".")).with_suffix(".py")


def answers(make_record: Callable[..., Record]) -> Iterator[tuple[str, str]]:
    """What the judge says of every known case, by its name; an exception is an answer too."""
    cases, claims = (importlib.import_module(name) for name in CASES)
    of_cells, of_claims = cases.KnownCases(make_record), claims.KnownClaims(make=make_record)
    parts = (of_cells.cells, of_cells.topologies, of_cells.faults, of_cells.alarms)
    for part in (*parts, of_claims.expected, of_claims.claims):
        for name, ask in part().items():
            yield name, _answer(ask)


def wrong_answer(make_record: Callable[..., Record]) -> str:
    """The first case that the judge answers otherwise than a sound one; empty if there is none."""
    return next((name for name, said in answers(make_record) if said != RIGHT[name]), "")


def _answer(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:  # a faulty judge may raise anything
        return f"raised {type(error).__name__}"


def plant(patch: pytest.MonkeyPatch, module: str, source: str) -> None:
    """Have the judge imported anew, one *module* of it by another *source*, until *patch* ends."""
    for name in CASES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.startswith(AGAIN) and name != __name__]:
        parent, _, leaf = name.rpartition(".")
        if parent not in sys.modules:  # a folder without a module of its own, already set aside
            continue
        patch.setattr(sys.modules[parent], leaf, sys.modules[name])  # undone with the rest
        patch.delitem(sys.modules, name)
    patch.setattr(sys, "meta_path", [_Finder(module, source), *sys.meta_path])
