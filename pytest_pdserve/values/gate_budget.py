"""What an upgrade gate may spend: blocks, minutes, GPU-minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.gate import MOST_BLOCKS
from pytest_pdserve.values.rules import GATE_RULE

_PART = re.compile(r"^(?P<number>[0-9]{1,7}(\.[0-9]{1,3})?) ?(?P<unit>blocks?|min|GPU-min)$")
EXPECTED = "8blocks, 90min or 240GPU-min, or several of them with commas between"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateBudget:
    """What a gate may spend; it ends before the block that would spend more."""

    blocks: Annotated[int, Meta(ge=1)] = GATE_RULE.max_blocks
    """Blocks of four starts."""
    wall_min: Annotated[float, Meta(gt=0)] | None = None
    """Minutes that nodes are held; None for no limit."""
    gpu_min: Annotated[float, Meta(gt=0)] | None = None
    """GPUs held, in minutes; None for no limit."""

    @property
    def words(self) -> str:
        """As ``--budget`` takes it."""
        said = [f"{self.blocks}blocks"]
        said += [f"{self.wall_min:g}min"] if self.wall_min is not None else []
        said += [f"{self.gpu_min:g}GPU-min"] if self.gpu_min is not None else []
        return ",".join(said)

    def left_s(self, held_s: float, gpus: int) -> float | None:
        """Return the seconds that may still be spent; None without a limit of time.

        :param held_s: seconds that nodes were held so far.
        """
        limits_s = [60 * self.wall_min] if self.wall_min is not None else []
        if self.gpu_min is not None and gpus:
            limits_s.append(60 * self.gpu_min / gpus)
        return min(limits_s) - held_s if limits_s else None


def parse_budget(text: str | None, *, max_blocks: int) -> GateBudget:
    """Read ``--budget``.

    :param max_blocks: blocks where the text names none.
    :raises ConfigError: if it has another form, or a number is out of range.
    """
    found: dict[str, float] = {}
    for word in [] if text is None else text.split(","):
        part = _PART.match(word.strip())
        if part is None:
            raise ConfigError(f"--budget {text!r:.80}: expected {EXPECTED}")
        unit = part["unit"].removesuffix("s")
        if unit in found:
            raise ConfigError(f"--budget {text!r:.80} names {part['unit']} twice")
        found[unit] = float(part["number"])
    blocks = found.get("block", float(max_blocks))
    least = GATE_RULE.blocks_against
    if not (blocks.is_integer() and least <= blocks <= MOST_BLOCKS):
        raise ConfigError(
            f"--budget {text!r:.80}: expected {least} to {MOST_BLOCKS} blocks; fewer than {least} "
            "can show no NO-GO"
        )
    for unit in ("min", "GPU-min"):
        if found.get(unit, 1.0) <= 0:
            raise ConfigError(f"--budget {text!r:.80}: expected {unit} above 0")
    return GateBudget(blocks=int(blocks), wall_min=found.get("min"), gpu_min=found.get("GPU-min"))
