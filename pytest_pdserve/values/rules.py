"""The constants of the rules: nights (docs/judging.md) and upgrade gates (docs/gate-rule.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a night is judged."""

    spreads: float = 5.0
    """A limit is so many spreads of the baseline's nights, and at least the floor."""
    max_nights: int = 20
    """Nights of a baseline: so many join by themselves."""
    full_nights: int = 15
    """A baseline of fewer nights is young: its verdicts are provisional."""
    young_floors: float = 2.0
    """A young baseline's limit is at least so many floors."""
    single_start_floors: float = 4.0
    """The same while there are fewer than :attr:`single_start_nights`, the first of one start."""
    single_start_nights: int = 3
    """Nights after which it no longer matters that the first was measured on one start."""
    first_starts: int = 3
    """Fresh starts on which the first night of a cell is measured; its value is their median."""
    suspicious_share: float = 2 / 3
    """A run is suspicious beyond this share of the limit."""
    max_runs: int = 3
    """Runs of a cell in one night, each on a fresh start; all must be suspicious for a FAIL."""
    topology_share: float = 0.5
    """A topology's median has this share of the cells' floors."""
    false_alarms: int = 2
    """After so many nights with an alarm that was gone the next night, one night cannot FAIL."""
    false_alarm_nights: int = 30
    """Nights in which these are counted."""
    better_nights: int = 3
    """Nights whose median is compared with the baseline to tell that a metric is better."""


RULE = Rule()
"""The rule that judges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """How an upgrade gate is judged."""

    spread_factor: float = 1.05
    """A spread is so many times the median distance between two starts of one stack: for normal
    noise one standard deviation of a run, since 1.05 x 0.6745 x sqrt 2 = 1.00."""
    spreads: float = 1.85
    """A limit is so many spreads, and at least :attr:`margin_share` of the margin."""
    margin_share: float = 0.5
    """Share of the margin that is the least limit."""
    blocks_against: int = 3
    """NO-GO needs so many blocks that count against the candidate, and two thirds of all."""
    look_level: float = 0.01
    """Probability that a metric is called good at one look if it is worse by exactly the margin."""
    min_good_blocks: int = 2
    """Blocks before which nothing is good."""
    max_blocks: int = 8
    """Blocks of a gate unless its budget says otherwise."""
    forecast_factor: float = 1.7
    """A forecast is for a bound so many times as far from the estimate as it is now."""


GATE_RULE = GateRule()
"""The rule of upgrade gates."""
