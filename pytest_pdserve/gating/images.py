"""The container images of the two stacks of a gate."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_pdserve.backends.images import Image
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.record import Record


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
