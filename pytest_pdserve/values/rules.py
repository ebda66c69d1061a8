"""The rules of the nightly judgement: its constants, and how the error budget is split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One line of the budget: a part of the judgement, and what it may err."""

    part: str
    """``tonight``, ``window of 5``, ``family``."""
    nights: int
    """Nights that its evidence comes from."""
    budget: float
    """Share of clean nights on which this part may raise a false FAIL."""
    tests: int
    """Tests that divide the share, as Bonferroni does."""

    @property
    def level(self) -> float:
        """One-sided p below which a single test of this part fires."""
        return self.budget / max(self.tests, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Evidence of several nights, tonight the last of them."""

    nights: int
    """Nights together."""
    budget: float
    """Share of clean nights on which it may raise a false FAIL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Which part of the judgement may err how often; together one clean night in a hundred."""

    tonight: float = 0.0045
    """Share of clean nights: one cell's runs of tonight."""
    windows: tuple[Window, ...] = (
        Window(nights=3, budget=0.0018),
        Window(nights=5, budget=0.00135),
        Window(nights=7, budget=0.00135),
    )
    """Several nights of one cell."""
    family: float = 0.001
    """Share of clean nights: a metric over all cells of a topology, tonight."""

    @property
    def total(self) -> float:
        """Share of clean nights with any false FAIL that the parts admit together."""
        return self.tonight + sum(window.budget for window in self.windows) + self.family

    @property
    def past_nights(self) -> int:
        """Nights before tonight that the widest window looks at."""
        return max((window.nights for window in self.windows), default=1) - 1

    def shares(self, *, tests: int, families: int) -> tuple[Share, ...]:
        """The budget as a table, one line a part: tonight, windows, family.

        :param tests: cells x metrics that are judged.
        :param families: topologies x metrics that are judged.
        """
        return tuple(self._shares(tests, families))

    def _shares(self, tests: int, families: int) -> Iterator[Share]:
        yield Share(part="tonight", nights=1, budget=self.tonight, tests=tests)
        for window in self.windows:
            yield Share(
                part=f"window of {window.nights}",
                nights=window.nights,
                budget=window.budget,
                tests=tests,
            )
        yield Share(part="family", nights=1, budget=self.family, tests=families)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the nightly judgement goes by; what depends on noise is for ``pdserve calibrate``."""

    budget: Budget = field(default_factory=Budget)
    """False FAILs that are admitted."""
    suspect_p: float = 0.003
    """One-sided p of a first run below which its cell is run again."""
    suspect_window_p: float = 0.001
    """The same for a window that ends with that run: a small, lasting change is looked at again."""
    clear_p: float = 0.15
    """One-sided p of all runs above which a suspicion is dropped."""
    most_runs: int = 4
    """Runs of a cell in one night, the first among them."""
    most_confirmations: int = 24
    """Runs on fresh starts in one night, over all cells: a clean night takes about four, and where
    everything is slower the first eight cells have shown it."""
    least_runs: int = 3
    """Runs without which a night alone cannot FAIL."""
    least_baseline_runs: int = 15
    """Baseline runs without which a night alone cannot FAIL."""
    least_window_runs: int = 8
    """Baseline runs without which windows and families cannot FAIL either: fewer do not show
    whether nights persist, and are not asked; their own error is then anybody's guess."""
    clip: float = 4.0
    """Largest z that one run may contribute, so that none carries a verdict alone."""
    icc: float | None = None
    """Share of a test's variance that the runs of one night have in common (0 to 1), as an A/A
    study of the system told; None where there was none."""
    assumed_icc: float = 0.2
    """The same where nobody studied it, if the baseline does not show more."""
    outlier_mads: float = 6.0
    """Baseline runs farther from the median than so many median absolute deviations, scaled to
    estimate a standard deviation, are dropped."""
    sd_floor: float = 0.001
    """Least run-to-run standard deviation that is believed, on the log scale."""
    pass_confidence: float = 0.95
    """One-sided confidence of the bound that a PASS needs below the margin."""
    memory: float = 0.7
    """Correlation of a night with the next that is looked for in the baseline; how much of the
    variance persists so is estimated."""
    heaviest_tails: float = 3.5
    """Fourth moment over squared second (3 for a normal) above which one night cannot FAIL."""
    power: float = 0.80
    """Probability of being found that the smallest visible effect is stated for."""
