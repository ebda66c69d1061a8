"""The container images of the two stacks of a gate."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pdserve.backends.allocation import Allocation
from pytest_pdserve.backends.allocation import Progress
from pytest_pdserve.backends.images import Image
from pytest_pdserve.backends.nodes import HeldNodes
from pytest_pdserve.gating.sides import GateSide
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidedImage:
    """An image that the nodes have."""

    image: Image
    versions: Mapping[str, str]
    """Versions installed in it, and those of drivers."""


def provide_images(
    sides: Iterable[GateSide], allocation: Allocation, progress: Progress
) -> dict[str, ProvidedImage]:
    """Load or pull the images that *sides* name, and read which versions they have.

    :returns: by the name in the stack; without the image of the system, which is there already.
    :raises AllocationError: if a node cannot have one.
    :raises LaunchError: if one reports no versions.
    """
    provided: dict[str, ProvidedImage] = {}
    for side in sides:
        name = side.stack.image
        if name is None or name in provided:
            continue
        assert isinstance(allocation, HeldNodes)  # of a backend that has containers
        image = allocation.provide_image(side.system.container, progress)
        with allocation.using_image(image):
            versions = allocation.find_versions()
        provided[name] = ProvidedImage(image=image, versions=versions)
    return provided


def check_unchanged(name: str, image: Image, records: Iterable[Record]) -> None:
    """Raise if an image is no longer the one that earlier starts of a gate have used.

    :param name: its name in the stack.
    :param records: of these starts.
    :raises AllocationError: naming both digests.
    """
    before = {str(record.cluster.get("image_digest", "")) for record in records} - {""}
    if image.digest and before - {image.digest}:
        raise AllocationError(
            f"image {name} is now {image.digest}, and was {', '.join(sorted(before))} at earlier "
            "starts of this gate; name the image by its digest, or begin a new gate"
        )
