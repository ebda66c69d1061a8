"""Budget of an upgrade gate: blocks, minutes, GPU-minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.gate import MAX_BLOCKS
from pytest_pdserve.values.rules import GATE_RULE

_PART = re.compile(r"^(?P<number>[0-9]{1,7}(\.[0-9]{1,3})?) ?(?P<unit>blocks?|min|GPU-min)$")
EXPECTED = "8blocks, 90min or 240GPU-min, or several of them with commas between"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateBudget:
    """Budget of a gate; it ends before the first block that would exceed it."""

    blocks: Annotated[int, Meta(ge=1)] = GATE_RULE.max_blocks
    """Blocks of four starts."""
    wall_min: Annotated[float, Meta(gt=0)] | None = None
    """Minutes for which nodes are held; None for no limit."""
    gpu_min: Annotated[float, Meta(gt=0)] | None = None
    """GPU-minutes; None for no limit."""

    @property
    def text(self) -> str:
        """Budget in the form of ``--budget``."""
        parts = [f"{self.blocks}blocks"]
        parts += [f"{self.wall_min:g}min"] if self.wall_min is not None else []
        parts += [f"{self.gpu_min:g}GPU-min"] if self.gpu_min is not None else []
        return ",".join(parts)

    def left_s(self, held_s: float, gpus: int) -> float | None:
        """Return the remaining seconds; None without a time limit.

        :param held_s: seconds for which nodes were held so far.
        """
        limits_s = [60 * self.wall_min] if self.wall_min is not None else []
        if self.gpu_min is not None and gpus:
            limits_s.append(60 * self.gpu_min / gpus)
        return min(limits_s) - held_s if limits_s else None


def parse_budget(text: str | None, *, max_blocks: int) -> GateBudget:
    """Parse ``--budget``.

    :param max_blocks: number of blocks if the text has none.
    :raises ConfigError: if it is malformed, or a number is out of range.
    """
    amounts: dict[str, float] = {}
    for word in [] if text is None else text.split(","):
        part = _PART.match(word.strip())
        if part is None:
            raise ConfigError(f"--budget {text!r:.80}: expected {EXPECTED}")
        unit = part["unit"].removesuffix("s")
        if unit in amounts:
            raise ConfigError(f"--budget {text!r:.80} names {part['unit']} twice")
        amounts[unit] = float(part["number"])
    blocks = amounts.get("block", float(max_blocks))
    min_blocks = GATE_RULE.blocks_against
    if not (blocks.is_integer() and min_blocks <= blocks <= MAX_BLOCKS):
        raise ConfigError(
            f"--budget {text!r:.80}: expected {min_blocks} to {MAX_BLOCKS} blocks; fewer than "
            f"{min_blocks} cannot show a NO-GO"
        )
    for unit in ("min", "GPU-min"):
        if amounts.get(unit, 1.0) <= 0:
            raise ConfigError(f"--budget {text!r:.80}: expected {unit} above 0")
    return GateBudget(
        blocks=int(blocks), wall_min=amounts.get("min"), gpu_min=amounts.get("GPU-min")
    )
