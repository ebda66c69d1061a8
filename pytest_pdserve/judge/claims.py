"""Claims: what one topology is said to do better than others, in a stated regime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import Self

from pytest_pdserve.judge.stats import ratio
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.judge.verdict import Verdict
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

Kind = Literal["below", "above", "lowest", "highest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement about topologies; ``suites/claims/claims.toml`` holds them."""

    id: str
    """Short name, used as test id."""
    text: str
    """The statement in words."""
    kind: Kind
    """How subject and others relate."""
    metric: str
    """Metric that is compared."""
    subject: str
    """Topology the claim is about."""
    others: tuple[str, ...]
    """Topologies it is compared with."""
    panel: Literal["prefill", "decode"]
    """Which of the article's panels."""
    input_lens: tuple[int, ...]
    """Article input lengths in the regime; empty is all of the panel."""
    output_lens: tuple[int, ...]
    """Article output lengths in the regime; empty is all of the panel."""
    margin: float
    """Least advantage, as a fraction: 0.05 asks for 5 % better."""
    reason: str
    """Why it should hold."""
    source: str
    """Who says so."""

    @property
    def topologies(self) -> tuple[str, ...]:
        """Subject and others."""
        return (self.subject, *self.others)

    def admits(self, workload: Workload) -> bool:
        """Tell whether *workload* lies in the claim's regime, by the article's own lengths."""
        input_len, output_len = workload.article_lengths or (
            workload.input_len,
            workload.output_len,
        )
        return (
            self.panel in workload.panels
            and input_len in (self.input_lens or (input_len,))
            and output_len in (self.output_lens or (output_len,))
        )

    @classmethod
    def from_toml(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Build a claim that the schema has admitted.

        :raises ConfigError: if metric or topology is unknown, or kind and others do not fit.
        """
        where = f"{source}: claim {data['id']!r}"
        metric = METRICS.get(data["metric"])
        if metric is None or metric.better == "equal":
            known = ", ".join(name for name, m in METRICS.items() if m.better != "equal")
            raise ConfigError(f"{where}: unknown metric {data['metric']!r}; known are {known}")
        for topology in (data["subject"], *data["others"]):
            try:
                Topology.parse(topology)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
        if data["subject"] in data["others"]:
            raise ConfigError(f"{where}: {data['subject']!r} is compared with itself")
        return cls(
            id=data["id"],
            text=data["text"],
            kind=data["kind"],
            metric=data["metric"],
            subject=data["subject"],
            others=tuple(data["others"]),
            panel=data["panel"],
            input_lens=tuple(data.get("input_lens", ())),
            output_lens=tuple(data.get("output_lens", ())),
            margin=data.get("margin", 0.0),
            reason=data["reason"],
            source=data["source"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One topology's value in one cell, and where it comes from."""

    topology: str
    """Topology id."""
    workload: str
    """Workload id."""
    value: float | None
    """In the metric's unit; None if it was not measured, or must not be judged."""
    origin: str
    """``this session``, or the baseline's file."""


def judge_claim(claim: Claim, cells: Mapping[str, tuple[Side, ...]]) -> Verdict:
    """Compare the subject with every other topology in every cell of the regime.

    Missing values are misses: a claim never passes on what was not measured.

    :param cells: workload id to one side per topology of the claim.
    """
    misses: list[str] = []
    numbers: list[tuple[str, str]] = []
    if not cells:
        misses.append(f"no cell of the {claim.panel} panel lies in the claim's regime")
    for workload, sides in cells.items():
        by_topology = {side.topology: side for side in sides}
        numbers.append((workload, _numbers(claim, by_topology)))
        for other in claim.others:
            miss = _compare(claim, other, by_topology)
            if miss:
                misses.append(f"{workload}: {miss}")
    origins = sorted({s.origin for sides in cells.values() for s in sides if s.value is not None})
    return Verdict(
        status=Status.FAIL if misses else Status.PASS,
        subject=f"{claim.text} ({claim.id})",
        misses=tuple(misses),
        evidence=(
            *numbers,
            ("sides from", "; ".join(origins) or "nowhere"),
            ("reason", claim.reason),
            ("source", claim.source),
        ),
    )


def _compare(claim: Claim, topology: str, sides: Mapping[str, Side]) -> str | None:
    values = []
    for name in (claim.subject, topology):
        side = sides.get(name)
        if side is None or side.value is None:
            return f"{claim.metric} of {name} was not measured"
        values.append(side.value)
    subject, other = values
    lower = claim.kind in ("below", "lowest")
    limit = other * (1 - claim.margin if lower else 1 + claim.margin)
    if subject < limit if lower else subject > limit:
        return None
    unit = METRICS[claim.metric].unit
    try:
        times = f", {ratio(subject, other):.3f} times"
    except ValueError:
        times = ""
    return (
        f"{claim.metric} of {claim.subject} = {subject:.6g} {unit}, claimed "
        f"{'<' if lower else '>'} {limit:.6g} {unit} "
        f"({topology} {other:.6g} {unit}{times}, margin {claim.margin:.0%})"
    )


def _numbers(claim: Claim, sides: Mapping[str, Side]) -> str:
    unit = METRICS[claim.metric].unit
    said = []
    for topology in claim.topologies:
        side = sides.get(topology)
        value = f"{side.value:.6g}" if side and side.value is not None else "-"
        said.append(f"{topology} {value}")
    return f"{claim.metric} {', '.join(said)} {unit}"
