"""The two sides of a gate: a stack, and the system that serves with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.stacks.building import build_stack
from pytest_pdserve.backends.stacks.building import stacks_folder
from pytest_pdserve.backends.stacks.installed import versions_at
from pytest_pdserve.backends.stacks.parsing import CURRENT
from pytest_pdserve.backends.stacks.parsing import parse_stack
from pytest_pdserve.backends.stacks.using import system_with_stack
from pytest_pdserve.results.building import Provenance
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.serving.provenance import measured_on
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.gate import GatedStack
from pytest_pdserve.values.gate_state import Side
from pytest_pdserve.values.stack import PARTS
from pytest_pdserve.values.stack import SERVE_ARGS
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.stack import public_version
from pytest_pdserve.values.system import System

OURS = "pytest-pdserve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One side of a comparison."""

    side: Side
    """A or B."""
    stack: Stack
    """Its stack; built, once servers may start."""
    system: System
    """The system with that stack."""

    def described(self, versions: Mapping[str, str]) -> GatedStack:
        """Return it as a verdict names it.

        :param versions: as its processes showed them.
        """
        found = {name: versions[name] for name in sorted(versions) if name != OURS}
        if self.stack.serve_args:
            found[SERVE_ARGS] = " ".join(self.stack.serve_args)
        return GatedStack(name=self.stack.text, components={**dict(self.stack.pins), **found})

    def provenance(self, allocation: Allocation, common: Provenance) -> Provenance:
        """Return what its records say of where they come from.

        :param common: what both sides share.
        """
        hardware, python = allocation.describe_nodes(), self.stack.python
        versions = dict(common.versions)
        if python is not None:
            own = {name: value for name, value in versions_at(python).items() if name != OURS}
            kept = {k: v for k, v in versions.items() if k not in {*PARTS, "torch"}}
            versions = {**kept, **own}
        return Provenance(
            versions=public(versions),
            host=measured_on(hardware, self.system),
            fingerprint=fingerprint(hardware, self.system),
            cluster=allocation.describe(),
            client_kind=common.client_kind,
            client_offsets=common.client_offsets,
        )


def public(versions: Mapping[str, str]) -> dict[str, str]:
    """Return *versions* with those of the serving packages as a stack pins them.

    Which build of a version it is, as ``+cpu``, is the same for both sides.
    """
    return {k: public_version(v) if k in PARTS else v for k, v in versions.items()}


def read_arm(side: Side, text: str, system: System) -> Arm:
    """Read the stack of one side; nothing is built.

    :raises ConfigError: if it is malformed, or *system* cannot use it.
    """
    stack = parse_stack(text, system)
    if stack.image is not None:
        raise ConfigError(
            f"stack {text!r:.200}: a gate cannot compare container images yet, since all servers "
            "of an allocation run in one; name versions, an environment (python:PATH) or arguments"
        )
    if system.simulated and (stack.builds or stack.python):
        raise ConfigError(
            f"stack {text!r:.200}: system {system.name!r} is simulated and runs no program; name "
            "arguments of its engines alone, e.g. 'serve-args:--max-num-batched-tokens=2048'"
        )
    if system.simulated:
        backend_of(system).check(system_with_stack(system, stack))
    return Arm(side=side, stack=stack, system=system)


def built_arm(arm: Arm, system: System, progress: Progress, cache: Path | None = None) -> Arm:
    """Return *arm* with its environment built, and the system that serves from it.

    :raises ConfigError: if the environment has no ``vllm`` or no router.
    :raises InstallError: if its versions cannot be installed.
    """
    stack = build_stack(arm.stack, system, cache or stacks_folder(), progress=progress)
    return Arm(side=arm.side, stack=stack, system=system_with_stack(system, stack))


def swapped_text(into: Stack, other: Stack, component: str) -> str:
    """Return the text of stack *into* with one component of *other*.

    :raises ConfigError: if a stack is an environment that pdserve has not built, of which no single
        component can be exchanged.
    """
    for stack in (into, other):
        if stack.python is not None and not stack.builds:
            raise ConfigError(
                f"stack {stack.text!r:.200} is an environment of its own, of which no component "
                "can be swapped; name versions, or leave --attribute out"
            )
    pins, arguments = dict(into.pins), into.serve_args
    if component == SERVE_ARGS:
        arguments = other.serve_args
    else:
        pins.pop(component, None)
        pins |= {component: other.pins[component]} if component in other.pins else {}
    if into.builds or component in pins:
        words = [f"{name}=={version}" for name, version in pins.items()]
    else:
        words = [CURRENT]
    return shlex.join([*words, *(f"serve-args:{argument}" for argument in arguments)])
