"""Stacks: environments and images that servers use instead of those of the system."""

from __future__ import annotations

from pytest_pdserve.backends.stacks.building import build_stack
from pytest_pdserve.backends.stacks.building import stacks_folder
from pytest_pdserve.backends.stacks.parsing import parse_stack
from pytest_pdserve.backends.stacks.running import check_versions
from pytest_pdserve.backends.stacks.running import running_versions
from pytest_pdserve.backends.stacks.using import system_with_stack

__all__ = [
    "build_stack",
    "check_versions",
    "parse_stack",
    "running_versions",
    "stacks_folder",
    "system_with_stack",
]
