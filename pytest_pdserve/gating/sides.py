"""The two sides of a gate: each is a stack, and the system with that stack."""

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
from pytest_pdserve.values.stack import IMAGE
from pytest_pdserve.values.stack import PARTS
from pytest_pdserve.values.stack import SERVE_ARGS
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.stack import public_version
from pytest_pdserve.values.system import System

OWN_PACKAGE = "pytest-pdserve"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSide:
    """One side of a gate."""

    side: Side
    """A (baseline) or B (candidate)."""
    stack: Stack
    """Its stack; it is built before servers start."""
    system: System
    """The system with that stack."""

    def described(self, versions: Mapping[str, str]) -> GatedStack:
        """Return the stack with its components, for a verdict.

        :param versions: versions found in its processes.
        """
        found = {name: versions[name] for name in sorted(versions) if name != OWN_PACKAGE}
        if self.stack.serve_args:
            found[SERVE_ARGS] = " ".join(self.stack.serve_args)
        return GatedStack(name=self.stack.text, components={**dict(self.stack.pins), **found})

    def provenance(self, allocation: Allocation, common: Provenance) -> Provenance:
        """Return the provenance of the records of this side.

        :param common: provenance that both sides share.
        """
        hardware, python = allocation.describe_nodes(), self.stack.python
        versions = dict(common.versions)
        if python is not None:
            own = {
                name: value for name, value in versions_at(python).items() if name != OWN_PACKAGE
            }
            kept = {k: v for k, v in versions.items() if k not in {*PARTS, "torch"}}
            versions = {**kept, **own}
        return Provenance(
            versions=public_versions(versions),
            host=measured_on(hardware, self.system),
            fingerprint=fingerprint(hardware, self.system),
            cluster=allocation.describe(),
            client_kind=common.client_kind,
            client_offsets=common.client_offsets,
        )


def public_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """Return *versions* with the public versions of the serving packages.

    The local part of a version, such as ``+cpu``, is the same for both sides.
    """
    return {k: public_version(v) if k in PARTS else v for k, v in versions.items()}


def parse_side(side: Side, text: str, system: System) -> GateSide:
    """Parse the stack of one side; nothing is built.

    :raises ConfigError: if it is malformed, or *system* cannot use it.
    """
    stack = parse_stack(text, system)
    if system.simulated and (stack.builds or stack.python):
        raise ConfigError(
            f"stack {text!r:.200}: system {system.name!r} is simulated and runs no program; name "
            "only arguments of its engines, e.g. 'serve-args:--max-num-batched-tokens=2048'"
        )
    if system.simulated:
        backend_of(system).check(system_with_stack(system, stack))
    return GateSide(side=side, stack=stack, system=system)


def build_side(
    side: GateSide, system: System, progress: Progress, cache: Path | None = None
) -> GateSide:
    """Build the environment of a side; return the side with it.

    :raises ConfigError: if the environment has no ``vllm`` or no router.
    :raises InstallError: if its versions cannot be installed.
    """
    stack = build_stack(side.stack, system, cache or stacks_folder(), progress=progress)
    return GateSide(side=side.side, stack=stack, system=system_with_stack(system, stack))


def swapped_text(into: Stack, other: Stack, component: str) -> str:
    """Return the text of stack *into* with one component of *other*.

    :raises ConfigError: if a stack is an environment that pdserve has not built, whose components
        cannot be swapped.
    """
    for stack in (into, other):
        if stack.python is not None and not stack.builds:
            raise ConfigError(
                f"stack {stack.text!r:.200} is an environment that pdserve did not build, so no "
                "component can be swapped; name versions, or leave --attribute out"
            )
    pins, arguments, image = dict(into.pins), into.serve_args, into.image
    if component == SERVE_ARGS:
        arguments = other.serve_args
    elif component == IMAGE:
        image = other.image
    else:
        pins.pop(component, None)
        pins |= {component: other.pins[component]} if component in other.pins else {}
    if image is not None:
        words = [f"image:{image}"]
    elif into.builds or component in pins:
        words = [f"{name}=={version}" for name, version in pins.items()]
    else:
        words = [CURRENT]
    return shlex.join([*words, *(f"serve-args:{argument}" for argument in arguments)])
