"""Simple rules, for comparison: 5 % worse in one run, or in the median of three."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pytest_pdserve.study.noise import SIMULATED
from pytest_pdserve.study.noise import Floats

GATED = ("output_throughput", "mean_itl_ms", "mean_ttft_ms", "p99_ttft_ms")
"""Metrics that such rules judge."""
THRESHOLD = 0.05
"""Change that is a failure, as a fraction."""
SIMPLE_RULES: Mapping[str, int] = {"one run": 1, "three runs": 3}
"""Number of runs whose median each rule compares with the reference, by name of the rule."""


def failed_cells(reference: Floats, draws: Floats, *, runs: int) -> npt.NDArray[np.bool_]:
    """Return which cells fail, shape ``(cells,)``.

    :param reference: median of the baseline's nights, shape ``(cells, metrics)``; in practice such
        rules often have a single stored run.
    :param draws: runs of one night, shape ``(starts, cells, metrics)``.
    """
    gated = [SIMULATED.index(name) for name in GATED]
    changes = np.median(draws[:runs], axis=0) - reference
    failed: npt.NDArray[np.bool_] = (changes[:, gated] > np.log1p(THRESHOLD)).any(axis=1)
    return failed
