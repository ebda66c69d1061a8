"""What is found wrong before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.attached import attached_to
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.plugin.checks import check_before_start
from pytest_pdserve.plugin.checks import check_topology
from pytest_pdserve.results import folders
from pytest_pdserve.results.baselines import host_baseline_path
from pytest_pdserve.results.baselines import state_folder
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.session.settings import Settings
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies
from tests.support.sessions import project_in


@pytest.fixture
def make_settings(tmp_path: Path, p5_efa: System) -> Callable[..., Settings]:
    """A factory of settings on ``p5-efa``, whose baselines would lie in *tmp_path*."""

    def make(base_url: str | None = None) -> Settings:
        system = replace(p5_efa, source=str(tmp_path / "system.toml"))
        return settings_on(attached_to(system, base_url) if base_url else system, tmp_path)

    return make


def settings_on(system: System, folder: Path) -> Settings:
    return Settings(
        topologies=(),
        system=system,
        project=project_in(folder),
        repeats=1,
        first_runs=3,
        record=False,
        strict=False,
    )


MakeSettings = Callable[..., Settings]


def checked(settings: Settings, topologies: str) -> None:
    check_before_start(settings, parse_topologies(topologies), starting=False)


def test_the_articles_five_fit_and_nothing_is_touched(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    checked(make_settings(), "all")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("topologies", "message"),
    [
        ("dp,route3", "topology 'route3' needs a number of nodes that 3 groups divide"),
        ("1p3d-tp4x8", "topology '1p3d-tp4x8' has 1 and 2 engines per node"),
    ],
)
def test_what_cannot_be_placed_is_a_usage_error(
    make_settings: MakeSettings, topologies: str, message: str
) -> None:
    with pytest.raises(pytest.UsageError, match=f"^{message}"):
        checked(make_settings(), topologies)


def test_an_endpoint_that_is_up_needs_no_placement(make_settings: MakeSettings) -> None:
    checked(make_settings(base_url="http://n:1"), "route3")


def test_a_malformed_baseline_is_a_usage_error(make_settings: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(pytest.UsageError, match=f"^{tmp_path}/sweep.json is not valid JSON"):
        checked(make_settings(), "dp")


def test_a_baseline_that_is_shipped_is_read_too(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "SHIPPED", (tmp_path.parent,))
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(pytest.UsageError, match=f"^{tmp_path}/sweep.json is not valid JSON"):
        checked(make_settings(), "dp")


def test_a_malformed_reference_of_this_host_is_a_usage_error(
    local_cpu: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    system = with_model_path(local_cpu)
    mark = fingerprint(backend_of(system).describe_hardware(system), system)
    path = host_baseline_path(system, mark, state_folder())
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(pytest.UsageError, match=f"^{path} is not valid JSON"):
        checked(settings_on(local_cpu, tmp_path), "dp")


def test_malformed_expected_changes_are_a_usage_error(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    (tmp_path / "expected.toml").write_text("[[expected]]\n")
    with pytest.raises(pytest.UsageError, match=f"^{tmp_path}/expected.toml: /: 'schema_version'"):
        checked(make_settings(), "dp")


def test_a_runs_folder_that_is_a_file_is_a_usage_error(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(pytest.UsageError, match=r"runs folder .* cannot be used"):
        checked(make_settings(), "dp")


def test_too_few_ports_are_found_before_a_node_is_asked_for(p5_efa: System) -> None:
    narrow = replace(p5_efa, ports=replace(p5_efa.ports, span=1))
    with pytest.raises(PlacementError, match="no 1 free ports in 8000-8000"):
        check_topology(narrow, Topology.parse("route4"), starting=False)
