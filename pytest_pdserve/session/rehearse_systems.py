"""Build the system of a combination: program, arguments and model of each server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.hosts.facts import program_path
from pytest_pdserve.backends.stacks import system_with_stack
from pytest_pdserve.plan.vllm import REVISION
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.rehearsal import Combination
from pytest_pdserve.values.rehearsal import Side
from pytest_pdserve.values.roles import DECODE
from pytest_pdserve.values.roles import PREFILL
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.system import RoleServing
from pytest_pdserve.values.system import RoleTransfer
from pytest_pdserve.values.system import System

CHECKED = "enforce_handshake_compat"
"""Key of vLLM's NIXL connector: whether compatibility hashes are compared (0.32: true)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Both sides of an upgrade, with built stacks."""

    system: System
    """System that they run on."""
    stacks: Mapping[Side, Stack]
    """Stacks, already built."""
    models: Mapping[Side, Path]
    """Folder of each side's model, if they serve two revisions; else empty."""
    folder: Path
    """Folder for links to the models, on a file system that nodes share."""

    def of(self, combination: Combination) -> System:
        """Return the system of *combination*.

        :raises ConfigError: if an environment lacks a program.
        """
        side = {PREFILL: combination.prefill, DECODE: combination.decode}
        own = {name: system_with_stack(self.system, self.stacks[s]) for name, s in side.items()}
        router = system_with_stack(self.system, self.stacks[combination.router]).programs.router
        model, transfer = self.system.model, self.system.kv_transfer
        roles = dict(model.roles)
        for name, of_side in side.items():
            given = roles.get(name, RoleServing())
            roles[name] = replace(
                given,
                serve_args=(*given.serve_args, *self.stacks[of_side].serve_args),
                program=self._program(own[name].programs.vllm),
                revision=self._revision(of_side),
            )
        if not combination.hash_checked:
            transfer = replace(transfer, roles={name: self._unchecked(name) for name in side})
        return replace(
            self.system,
            programs=replace(self.system.programs, router=router),
            model=replace(model, roles=roles),
            kv_transfer=transfer,
        )

    def _unchecked(self, role: str) -> RoleTransfer:
        given = self.system.kv_transfer.roles.get(role, RoleTransfer())
        return replace(given, extra_config={**given.extra_config, CHECKED: False})

    def _program(self, name: str) -> str:
        """Return the program's path, since it is started from another working folder."""
        return (program_path(name) or name) if self.models else name

    def _revision(self, side: Side) -> str | None:
        return str(self.folder / side) if side in self.models else None

    def link_models(self) -> None:
        """Link the model of each side to the same path below a folder of the side.

        :raises StoreError: if a link cannot be made.
        """
        for side, model in self.models.items():
            link = self.folder / side / REVISION
            try:
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                os.symlink(model.absolute(), link)
            except OSError as error:
                raise StoreError(f"{link} cannot be made: {error.strerror}") from error
