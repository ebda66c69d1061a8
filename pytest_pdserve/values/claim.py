"""Claims: statements about topologies in a stated regime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields
from typing import Annotated
from typing import Any
from typing import Self

import msgspec
from msgspec import Meta

from pytest_pdserve.values.claim_checks import check_entry
from pytest_pdserve.values.claim_checks import regime_of
from pytest_pdserve.values.claim_checks import relations_of
from pytest_pdserve.values.claim_parts import ClaimEntry
from pytest_pdserve.values.claim_parts import Kind
from pytest_pdserve.values.claim_parts import Regime
from pytest_pdserve.values.claim_parts import Relation
from pytest_pdserve.values.claim_parts import Statement
from pytest_pdserve.values.sweep import Point
from pytest_pdserve.values.topology import Topology

CAUTION = (
    "ITL of a disaggregated topology by itself: at an infinite rate it also falls where decode "
    "instances starve; join it with throughput or TTFT, or state a load (docs/claims.md)"
)


@dataclass(frozen=True, kw_only=True)
class ClaimsFile:
    """A file of claims."""

    claim: Annotated[tuple[ClaimEntry, ...], Meta(min_length=1)]
    """Entries of the file."""


@dataclass(frozen=True, kw_only=True)
class Claim(Statement):
    """One statement about topologies; files below ``suites/claims`` hold them."""

    kind: Kind | None
    """Kind of relation; None for an undecidable claim."""
    regime: Regime
    """Points and loads for which it is claimed."""
    relations: tuple[Relation, ...]
    """Relations that must hold in every cell; empty for an undecidable claim."""

    @property
    def subject(self) -> str:
        """Statement and id, for messages."""
        return f"{self.text} ({self.id})"

    @property
    def topologies(self) -> tuple[str, ...]:
        """All topologies of the relations, each once."""
        return tuple(dict.fromkeys(t for relation in self.relations for t in relation.named))

    def admits(self, point: Point) -> bool:
        """Return whether *point* is in the claim's regime."""
        return self.regime.admits(point)

    @property
    def caution(self) -> str | None:
        """Warning about an ITL claim whose regime allows starvation; None for other claims."""
        if self.regime.load not in (None, "saturated"):
            return None
        if not all("itl" in r.metric or "tpot" in r.metric for r in self.relations):
            return None
        helped = {name for relation in self.relations for name in relation.helped}
        return CAUTION if any(Topology.parse(name).disaggregated for name in helped) else None

    @classmethod
    def from_toml(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Build a claim from a table of its file that matches the schema.

        :raises ConfigError: if a key is unknown, missing, or not allowed for its kind.
        """
        return cls.of(msgspec.convert(data, ClaimEntry), source=source)

    @classmethod
    def of(cls, entry: ClaimEntry, *, source: str) -> Self:
        """Build a claim from its entry in the file *source*.

        :raises ConfigError: if a key is unknown, missing, or not allowed for its kind.
        """
        where = f"{source}: claim {entry.id!r}"
        check_entry(entry, where)
        regime = regime_of(entry)
        return cls(
            **{each.name: getattr(entry, each.name) for each in fields(Statement)},
            kind=entry.kind,
            regime=regime,
            relations=tuple(relations_of(entry, regime, where)),
        )
