"""Provides the container images that stacks name."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.images import Image
from pytest_pdserve.backends.nodes import HeldNodes
from pytest_pdserve.backends.stacks.using import system_with_stack
from pytest_pdserve.values.stack import Stack
from pytest_pdserve.values.system import System


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidedImage:
    """An image that the nodes have."""

    image: Image
    versions: Mapping[str, str]
    """Versions installed in it, and those of drivers."""


def provide_images(
    stacks: Iterable[Stack], system: System, allocation: Allocation, progress: Progress
) -> dict[str, ProvidedImage]:
    """Load or pull the images that *stacks* name, and read which versions they have.

    :returns: by the name in the stack; without the image of the system, which is there already.
    :raises AllocationError: if a node cannot have one.
    :raises LaunchError: if one reports no versions.
    """
    provided: dict[str, ProvidedImage] = {}
    for stack in stacks:
        name = stack.image
        if name is None or name in provided:
            continue
        assert isinstance(allocation, HeldNodes)  # of a backend that has containers
        image = allocation.provide_image(system_with_stack(system, stack).container, progress)
        with allocation.using_image(image):
            versions = allocation.find_versions()
        provided[name] = ProvidedImage(image=image, versions=versions)
    return provided
