"""Which client measures, what it is started with, and whose references it is compared with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from pathlib import PurePosixPath

import pytest

from pytest_pdserve.backends.attached import attached_to
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.registry import client_kind
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.clients.vllm_worker import python_of
from pytest_pdserve.plan.bench import bench_command
from pytest_pdserve.plan.bench import worker_command
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.serving.provenance import fingerprint
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.baseline import CellBaseline
from pytest_pdserve.values.baseline import Night
from pytest_pdserve.values.baseline import Source
from pytest_pdserve.values.system import BenchSpec
from pytest_pdserve.values.system import ClientKind
from pytest_pdserve.values.system import Programs
from pytest_pdserve.values.workload import Workload

LOAD = Workload(input_len=32, output_len=8, num_prompts=4)
KEY = ("dp", "w")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("local-cpu", "vllm"), ("p5-efa", "vllm"), ("simulated", "vllm-command")],
)
def test_the_client_of_a_system_that_names_none(name: str, kind: str) -> None:
    assert client_kind(load_system(name, SHIPPED)) == kind


@pytest.mark.parametrize(
    ("bench", "program", "kind"),
    [
        (BenchSpec(), "no-such-vllm", "precise"),
        (BenchSpec(), sys.executable, "vllm"),
        (BenchSpec(python="/other/python"), "no-such-vllm", "vllm"),
        (BenchSpec(client="vllm-command"), "no-such-vllm", "vllm-command"),
    ],
    ids=["vLLM is absent", "vLLM is there", "its own environment", "named"],
)
def test_an_endpoint_is_measured_by_ours_where_vllm_is_absent(
    bench: BenchSpec, program: str, kind: str
) -> None:
    system = replace(
        attached_to(load_system("local-cpu", SHIPPED), "http://127.0.0.1:1"),
        bench=bench,
        programs=Programs(vllm=program),
    )
    assert backend_of(system).client_kind(system) == kind


@pytest.mark.parametrize(
    ("kind", "python", "start"),
    [
        ("vllm-command", None, ("vllm", "bench", "serve")),
        ("vllm-command", "/b/python", ("/b/python", "-m", "vllm.entrypoints.cli.main", "bench")),
        ("precise", None, (sys.executable, "-m", "pytest_pdserve.clients.precise", "--base-url")),
        ("precise", "/b/python", (sys.executable, "-m", "pytest_pdserve.clients.precise")),
    ],
)
def test_every_client_is_given_the_same_arguments(
    kind: ClientKind, python: str | None, start: tuple[str, ...]
) -> None:
    def argv(which: ClientKind, bench: BenchSpec) -> tuple[str, ...]:
        system = replace(load_system("p5-efa", SHIPPED), bench=bench)
        where = PurePosixPath("/runs/r.json")
        return bench_command(
            LOAD, system, which, node="n", base_url="http://u", seed=1, result=where
        ).argv

    plain, found = argv("vllm-command", BenchSpec()), argv(kind, BenchSpec(python=python))
    assert found[: len(start)] == start
    assert found[found.index("--base-url") :] == plain[plain.index("--base-url") :]


@pytest.mark.parametrize(
    ("python", "argv"),
    [
        (None, ("python3", "/s.py", "--program", "vllm", "/f")),
        ("/bench/python", ("/bench/python", "/s.py", "/f")),
    ],
)
def test_the_worker_runs_in_the_environment_of_vllm_or_in_its_own(
    python: str | None, argv: tuple[str, ...]
) -> None:
    system = replace(load_system("p5-efa", SHIPPED), bench=BenchSpec(python=python))
    command = worker_command(system, node="n", script="/s.py", folder="/f")
    assert command.argv == argv
    assert command.secrets == ("OPENAI_API_KEY",)


def test_the_client_is_no_difference_of_the_machine() -> None:
    system = load_system("p5-efa", SHIPPED)
    other = replace(system, bench=replace(system.bench, client="precise", python="/b/python"))
    assert fingerprint({}, other) == fingerprint({}, system)
    changed = replace(system, bench=replace(system.bench, args=("--top-k", "1")))
    assert fingerprint({}, changed) != fingerprint({}, system)


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("#!/opt/v/bin/python3.11\nimport vllm\n", "/opt/v/bin/python3.11"),
        ("#!/opt/v/bin/python -I\n", "/opt/v/bin/python"),
        (
            "#!/bin/sh\n'''exec' '/a long/../v/bin/python3' \"$0\" \"$@\"\n' '''\n",
            "/a long/../v/bin/python3",
        ),
        ("#!/bin/sh\n'''exec' /opt/v/bin/python3 \"$0\" \"$@\"\n' '''\n", "/opt/v/bin/python3"),
        ('#!/bin/sh\nexec "/opt/v/bin/python" -I "$@"\n', "/opt/v/bin/python"),
        ('#!/bin/bash\nexec taskset -c 1 vllm "$@"\n', None),
        ("\x7fELF", None),
        ("", None),
    ],
    ids=["plain", "options", "a space", "long", "double quotes", "a wrapper", "a binary", "empty"],
)
def test_the_python_of_a_program_is_the_one_that_its_first_lines_name(
    text: str, python: str | None, tmp_path: Path
) -> None:
    program = tmp_path / "vllm"
    program.write_text(text)
    program.chmod(0o755)
    found = python_of(str(program))
    assert found == python
    assert python_of(str(tmp_path / "none")) is None


def night(session: str, client: str, value: float = 1.0) -> Night:
    return Night(session=session, client=client, values={"mean_itl_ms": value})


def baseline(*nights: Night, counts: float = 1.0) -> Baseline:
    return Baseline(
        system="s",
        suite="sweep",
        source="f",
        sessions=tuple(Source(id=each.session) for each in nights),
        cells={"dp": {"w": CellBaseline(counts={"tokens": counts}, nights=nights)}},
    )


BOTH = baseline(night("a", "vllm-command"), night("b", "vllm", 2.0), night("c", "vllm", 3.0))


def test_a_session_sees_the_nights_of_its_own_kind_of_client() -> None:
    seen = BOTH.of_client("vllm")
    cell = seen.cell(KEY)
    assert cell is not None
    assert cell.values("mean_itl_ms") == (2.0, 3.0)
    assert [source.id for source in seen.sessions] == ["b", "c"]
    assert cell.counts == {}  # these are of the first night, whose client may send other prompts
    first = BOTH.of_client("vllm-command").cell(KEY)
    assert first is not None
    assert first.counts == {"tokens": 1.0}
    assert BOTH.of_client("precise").keys == ()
    assert BOTH.clients == ("vllm", "vllm-command")


def test_a_baseline_that_is_replaced_keeps_the_nights_of_other_clients() -> None:
    new = baseline(night("d", "vllm", 9.0), counts=7.0).with_other_clients(BOTH)
    cell = new.cell(KEY)
    assert cell is not None
    assert [(n.session, n.client) for n in cell.nights] == [("d", "vllm"), ("a", "vllm-command")]
    assert cell.counts == {"tokens": 7.0}
    assert {source.id for source in new.sessions} == {"a", "d"}


def test_each_kind_of_client_has_as_many_nights_as_join() -> None:
    full = BOTH
    for number in range(40):
        source = Source(id=f"n{number}")
        full = full.with_night(KEY, night(source.id, "vllm"), {}, source)
    more = full.with_night(KEY, night("p", "precise"), {}, Source(id="p"))
    cell = more.cell(KEY)
    assert cell is not None
    counts = {kind: sum(n.client == kind for n in cell.nights) for kind in cell.clients}
    assert counts == {"vllm-command": 1, "vllm": 20, "precise": 1}
