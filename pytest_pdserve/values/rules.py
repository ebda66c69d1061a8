"""The constants of the rules: nights (docs/judging.md) and upgrade gates (docs/gate-rule.md)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Constants of the nightly rule."""

    spreads: float = 5.0
    """Limit in spreads of the baseline's nights; it is at least the floor."""
    max_nights: int = 20
    """Number of nights that join a baseline automatically."""
    full_nights: int = 15
    """Number of nights below which a baseline is young and its verdicts are provisional."""
    young_floors: float = 2.0
    """Minimum limit of a young baseline, in floors."""
    single_start_floors: float = 4.0
    """The same with fewer than :attr:`single_start_nights` nights, if the first has one start."""
    single_start_nights: int = 3
    """Number of nights from which on a first night with one start no longer matters."""
    first_starts: int = 3
    """Number of starts on which the first night of a cell is measured; its value is the median."""
    suspicious_share: float = 2 / 3
    """Share of the limit beyond which a run is suspicious."""
    max_runs: int = 3
    """Runs of a cell in one night, each on a fresh start; all must be suspicious for a FAIL."""
    topology_share: float = 0.5
    """Floor of a topology's median, as a share of the cells' floors."""
    false_alarms: int = 2
    """Number of alarms that were gone the next night, after which one night alone cannot FAIL."""
    false_alarm_nights: int = 30
    """Number of nights in which false alarms are counted."""
    better_nights: int = 3
    """Number of nights whose median is compared with the baseline to find an improvement."""


RULE = Rule()
"""The nightly rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """Constants of the rule of upgrade gates."""

    spread_factor: float = 1.05
    """Spread, as a multiple of the median distance between two starts of one stack: for normal
    noise one standard deviation of a run, since 1.05 x 0.6745 x sqrt 2 = 1.00."""
    spreads: float = 1.85
    """Limit in spreads; it is at least :attr:`margin_share` of the margin."""
    margin_share: float = 0.5
    """Minimum limit, as a share of the margin."""
    blocks_against: int = 3
    """Minimum number of blocks against the candidate for NO-GO; also at least two thirds of all."""
    look_level: float = 0.01
    """Probability that a metric is called good at one look if it is worse by exactly the margin."""
    min_good_blocks: int = 2
    """Minimum number of blocks for a good metric."""
    max_blocks: int = 8
    """Default number of blocks of a gate."""
    forecast_factor: float = 1.7
    """Distance of the forecast's bound from the estimate, as a multiple of the present one."""


GATE_RULE = GateRule()
"""The rule of upgrade gates."""
