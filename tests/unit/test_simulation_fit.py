"""The constants in the package fit the article's figures, whatever is changed in the model."""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.simulation.constants import fitted

# What is fitted once is asked by all tests here.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("simulation-fit")]
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fit_simulation.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("fit_simulation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures(script: Any) -> Any:
    return script.read_figures(SCRIPT.with_name("article.csv"))


@pytest.fixture(scope="module")
def simulated(script: Any) -> Any:
    return script.simulate_sweep(load_system("simulated", SHIPPED), fitted())


def test_half_of_the_160_values_are_within_5_percent(figures: Any, simulated: Any) -> None:
    errors = [abs(simulated[key] / figures[key] - 1) for key in figures]
    assert len(errors) == 160
    assert statistics.median(errors) < 0.05
    assert max(errors) < 0.5


def test_clear_orders_are_kept_but_for_a_few(script: Any, figures: Any, simulated: Any) -> None:
    assert len(script.orders(figures, simulated)) == 229
    assert len(script.reversals(figures, simulated)) <= 6


@pytest.mark.parametrize("panel", ["prefill", "decode"])
@pytest.mark.parametrize("metric", ["mean_itl_ms", "mean_ttft_ms", "output_throughput"])
def test_topologies_are_ranked_as_in_the_figures(
    script: Any, figures: Any, simulated: Any, panel: str, metric: str
) -> None:
    assert script.kendall(figures, simulated, panel, metric) > 0.8
    assert script.kendall(figures, figures, panel, metric) == 1
