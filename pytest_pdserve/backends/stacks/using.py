"""Replaces the servers of a system by those of a stack; the client stays the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_pdserve.backends.stacks.installed import python_of_system
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.system import CLIENTS_OF_VLLM
from pytest_pdserve.values.system import Programs
from pytest_pdserve.values.system import System


def system_with_stack(system: System, stack: Stack) -> System:
    """Return *system* with servers and router of *stack*.

    The benchmark client stays that of *system*, so that both sides of a comparison have the same.

    :param stack: already built, if it pins versions.
    :raises ConfigError: if the environment has no ``vllm`` or no router.
    """
    model = replace(system.model, serve_args=(*system.model.serve_args, *stack.serve_args))
    changed = replace(system, model=model)
    if stack.image is not None:
        return replace(changed, container=replace(system.container, image=stack.image, tag=""))
    if stack.python is None:
        return changed
    bench = system.bench
    if bench.python is None and (bench.client or "vllm") in CLIENTS_OF_VLLM:
        bench = replace(bench, python=python_of_system(system))
    return replace(changed, programs=programs_of(stack), bench=bench)


def programs_of(stack: Stack) -> Programs:
    """Return the programs of the environment of *stack*.

    :raises ConfigError: if one does not exist.
    """
    found = {}
    for key, name in (("vllm", "vllm"), ("router", "vllm-router")):
        program = Path(str(stack.python)).parent / name
        if not program.is_file():
            raise ConfigError(
                f"stack {stack.text!r}: {program} does not exist; expected an environment that has "
                f"vllm and vllm-router installed"
            )
        found[key] = str(program)
    return Programs(**found)
