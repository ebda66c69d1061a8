"""A project on the simulated cluster, with and without a baseline."""

from __future__ import annotations

import pytest

from tests.support.simulated import SimulatedProject
from tests.support.simulated import Values


@pytest.fixture
def sim(
    loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> SimulatedProject:
    """A project on the simulated cluster, without a baseline."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    return SimulatedProject(pytester=pytester)


@pytest.fixture(scope="session")
def kept_values() -> dict[str, Values]:
    """What a clean night measures, once a test has asked for it."""
    return {}


@pytest.fixture
def clean(sim: SimulatedProject, kept_values: dict[str, Values]) -> Values:
    """What a clean night of :func:`sim` measures."""
    if not kept_values:
        kept_values["clean"] = sim.measured()
    return kept_values["clean"]


@pytest.fixture
def known(sim: SimulatedProject, clean: Values) -> SimulatedProject:
    """The project with a baseline of 20 nights around a clean one; limits are the floors."""
    sim.draw(clean)
    return sim
