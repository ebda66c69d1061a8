"""A backend of another package serves a session; a system file says only what its backend reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.house import only_sentence

ROOT = Path(__file__).parents[2]
TOY = '''
import contextlib
from dataclasses import dataclass

from pytest_pdserve import Backend
from pytest_pdserve.backends.local import LocalAllocation
from pytest_pdserve.backends.local import slots


@dataclass(frozen=True, kw_only=True)
class ToySpec:
    """How the toy greets."""

    greeting: str = "hello"
    times: int = 1


class ToyAllocation(LocalAllocation):
    def __init__(self, system, folder, spec):
        super().__init__(system, folder=folder)
        self._spec = spec

    def describe(self):
        return {"kind": "toy", "greeting": self._spec.greeting * self._spec.times}


class ToyBackend(Backend):
    name = "toy"
    tables = {"toy": ToySpec}
    unread = ("container", "cluster.memory_per_instance_gib")

    def hosts(self, system):
        return slots(system, 1)

    @contextlib.contextmanager
    def acquire(self, system, request):
        request.progress(f"toy nodes for {system.name}")
        allocation = ToyAllocation(system, request.folder, system.table("toy", ToySpec))
        try:
            yield allocation
        finally:
            allocation.release()

    def describe_hardware(self, system):
        return {"machine": "toy"}
'''
Install = Callable[[House], None]


@pytest.fixture
def toy(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house whose processes know a backend of another package."""
    site = house.path / "site"
    info = site / "pdserve_toy-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "pdserve_toy.py").write_text(TOY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pdserve-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pdserve.backends]\ntoy = pdserve_toy:ToyBackend\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    house.suites("smoke", "sweep")
    return house


def as_toy(house: House, *more: str) -> None:
    """Have the stub system name the toy backend."""
    path = house.system()
    text = path.read_text().replace('kind = "local"', 'kind = "toy"')
    text = re.sub(r"memory_per_instance_gib.*\n", "", text)
    path.write_text("\n".join([text, *more]) + "\n")


def session(house: House, *arguments: str) -> pytest.RunResult:
    """Pytest in a process that finds the toy."""
    return house.pytester.runpytest_subprocess("suites", "--system", "stub", *arguments)


@pytest.mark.slow
def test_a_session_runs_on_a_backend_of_another_package(toy: House) -> None:
    as_toy(toy, '[toy]\ngreeting = "hi"\ntimes = 2')
    result = session(toy, "--topology", "1p1d")
    result.assert_outcomes(passed=4, skipped=1)
    result.stdout.fnmatch_lines(["pdserve stub: toy nodes for stub"])
    (record,) = toy.records()
    assert record["cluster"] == {"kind": "toy", "greeting": "hihi"}
    assert [each["name"] for each in record["processes"]] == [
        "prefill[0]",
        "decode[0]",
        "router",
        "bench random-32-8-n8-c4",
    ]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "[slurm]\ntime_limit_min = 5",
            "/slurm: is read where [cluster] kind is 'slurm', not 'toy'; remove it",
        ),
        (
            "[simulation]\nnight = 3",
            "/simulation: is read where [cluster] kind is 'simulated', not 'toy'; remove it",
        ),
        (
            '[container]\nkind = "docker"\nimage = "x"',
            "/container: is not read where [cluster] kind is 'toy'; remove it",
        ),
        ("[toy]\ntimes = 1.5", "/toy/times: 1.5 is not of type 'integer'"),
        ("[toy]\ncolour = 1", "/toy: Additional properties are not allowed ('colour' was"),
        ("[nothing]\nx = 1", "/: Additional properties are not allowed ('nothing' was"),
    ],
)
def test_what_the_chosen_backend_does_not_read_is_refused(toy: House, more: str, said: str) -> None:
    as_toy(toy, more)
    assert said in only_sentence(session(toy, "--topology", "1p1d"))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[toy]\ntimes = 1", "/toy: is read where [cluster] kind is 'toy', not 'local'"),
        ("[slurm]\nqueue_s = 1", "/slurm: is read where [cluster] kind is 'slurm', not 'local'"),
        ("[preflight]\ngpus = 1", "/preflight: is read where [cluster] kind is 'slurm', not"),
        ("[attached]\nbase_url = 'http://x'", "/attached: is read where [cluster] kind is"),
    ],
)
def test_tables_of_other_backends_are_refused_on_a_local_system(
    toy: House, table: str, said: str
) -> None:
    path = toy.system()
    path.write_text(f"{path.read_text()}{table}\n")
    assert said in only_sentence(session(toy, "--topology", "1p1d"))


@pytest.mark.parametrize("key", ["ports", "limits", "programs", "env", "router", "kv_transfer"])
def test_tables_that_a_simulation_does_not_read_are_refused(house: House, key: str) -> None:
    path = house.path / "baselines" / "mine" / "system.toml"
    path.parent.mkdir(parents=True)
    shipped = (ROOT / "baselines" / "simulated" / "system.toml").read_text()
    path.write_text(f"{shipped}\n[{key}]\n")
    house.suites("sweep")
    result = house.pytester.runpytest_inprocess("suites", "--system", "mine")
    assert f"/{key}: is not read where [cluster] kind is 'simulated'; remove it" in only_sentence(
        result
    )


@pytest.mark.slow
def test_an_unknown_backend_is_one_sentence_with_all_that_are_known(toy: House) -> None:
    path = toy.system()
    path.write_text(path.read_text().replace('kind = "local"', 'kind = "cloud"'))
    said = only_sentence(session(toy, "--topology", "1p1d"))
    assert said == (
        f"{path}: /cluster/kind: 'cloud' is not a backend; known are local, slurm, attached, "
        "simulated, toy"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ToyBackend = 5", "is not a subclass of pytest_pdserve.Backend"),
        ("raise OSError('torn')", "cannot be loaded: OSError: torn"),
    ],
    ids=["no backend", "does not import"],
)
def test_a_backend_that_cannot_be_used_is_one_sentence(toy: House, code: str, said: str) -> None:
    as_toy(toy)
    (toy.path / "site" / "pdserve_toy.py").write_text(code)
    assert said in only_sentence(session(toy, "--topology", "1p1d"))
