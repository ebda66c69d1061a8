"""Checks that a gate goes on with the images in which it began."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_pdserve.backends.images import Image
from pytest_pdserve.backends.stacks.images import ProvidedImage
from pytest_pdserve.gating.sides import GateSide
from pytest_pdserve.values.errors import AllocationError
from pytest_pdserve.values.gate_state import GateStart
from pytest_pdserve.values.record import Record


def check_images(
    sides: Iterable[GateSide],
    images: Mapping[str, ProvidedImage],
    own: Image,
    *,
    starts: Sequence[GateStart],
    runs: Mapping[str, Sequence[Record]],
) -> None:
    """Raise if the image of a side is another one than at its earlier starts.

    :param images: images that stacks name, by that name.
    :param own: image of the system, for stacks that name none.
    :param starts: starts of the gate so far.
    :param runs: their records, by folder.
    :raises AllocationError: with both digests; images without a known digest are not checked.
    """
    for side in sides:
        provided = images.get(side.stack.image or "")
        image = own if provided is None else provided.image
        folders = [start.folder for start in starts if start.step.side == side.side]
        digests = {_digest(record) for folder in folders for record in runs[folder]} - {""}
        if image.digest and digests - {image.digest}:
            raise AllocationError(
                f"image {side.stack.image or own.name} of stack {side.side} is now {image.digest}, "
                f"and was {', '.join(sorted(digests))} at earlier starts of this gate; name images "
                "by their digests, or begin a new gate"
            )


def _digest(record: Record) -> str:
    return str(record.cluster.get("image_digest", ""))
