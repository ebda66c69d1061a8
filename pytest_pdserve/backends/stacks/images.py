"""Provides the container images that stacks name."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.images import Image
from pytest_pdserve.backends.nodes import HeldNodes
from pytest_pdserve.backends.stacks.using import system_with_stack
from pytest_pdserve.values.errors import AllocationError
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
    named = {stack.image: stack for stack in stacks if stack.image is not None}
    if not named:
        return {}
    held = held_nodes(allocation)
    images = {
        name: held.provide_image(system_with_stack(system, stack).container, progress)
        for name, stack in named.items()
    }
    own, *others = told_apart([held.image, *images.values()])
    held.use_image(own)
    provided: dict[str, ProvidedImage] = {}
    for name, image in zip(images, others, strict=True):
        with held.using_image(image):
            provided[name] = ProvidedImage(image=image, versions=allocation.find_versions())
    return provided


def held_nodes(allocation: Allocation) -> HeldNodes:
    """Return *allocation*, which can start servers in several images.

    :raises AllocationError: if it cannot.
    """
    if not isinstance(allocation, HeldNodes):
        kind = allocation.describe().get("kind")
        raise AllocationError(
            f"[cluster] kind {kind!r} starts all servers in one image; compare images on a system "
            "of kind local or slurm"
        )
    return allocation


def told_apart(images: Sequence[Image]) -> list[Image]:
    """Return *images*, each with its id for a name where others have the same name.

    Two archives often hold images of one name: the one that is loaded last takes the name.

    :raises AllocationError: if the id of one is not known.
    """
    ids: dict[str, set[str]] = {}
    for image in images:
        ids.setdefault(image.name, set()).add(image.id or image.digest)
    shared = {name for name, each in ids.items() if len(each) > 1}
    if unknown := [image.name for image in images if image.name in shared and not image.id]:
        raise AllocationError(
            f"two images are called {unknown[0]} on the nodes, and their ids are unknown; give one "
            "of them another name"
        )
    return [replace(image, name=image.id) if image.name in shared else image for image in images]
