"""What ``pdserve calibrate`` shows."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.calibration import Calibration
from pytest_pdserve.values.calibration import Noise
from pytest_pdserve.values.rules import Rules

_TRUSTED_NIGHTS = 10


def calibration_lines(calibration: Calibration, left_out: Sequence[str]) -> list[str]:
    """A line of what was compared, a table of the metrics, what the judge will go by.

    :param left_out: what was not used and why, a sentence each.
    """
    c = calibration
    columns = ("metric", "sd", "of the night", "90 % interval", "of the start", "first run", "far")
    rows = [(name, *_row(noise)) for name, noise in c.metrics.items()]
    assumed = Rules().assumed_icc
    lines = [
        f"{c.system}: {c.sessions} fresh starts in {c.nights} nights, {c.cells} cells",
        *text_table(columns, rows, "lrrrrrr"),
        "sd: of one run; of the night, of the start: shares of its variance; first run: how much "
        "worse than later ones on the same servers; far: share of outliers",
        *(f"left out: {why}" for why in left_out),
        f"ICC {c.icc:.2f}: the median over metrics, which the judge goes by from now on (without a "
        f"calibration: {assumed:g})",
    ]
    if c.nights < _TRUSTED_NIGHTS:
        lines.append(
            f"WARNING: {c.nights} nights say little of what they have in common; an ICC taken too "
            "low raises false alarms (docs/judging.md)"
        )
    return lines


def _row(noise: Noise) -> tuple[str, ...]:
    return (
        f"{noise.sd:.2%}",
        f"{noise.icc:.0%}",
        f"{noise.icc_low:.0%} to {noise.icc_high:.0%}",
        "-" if noise.start is None else f"{noise.start:.0%}",
        "-" if noise.warmup is None else f"{noise.warmup:+.1%}",
        f"{noise.outliers:.1%}",
    )
