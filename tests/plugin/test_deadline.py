"""Sessions that must end by a time: what decides most comes first, what is left out is listed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_pdserve.report.document import finished
from pytest_pdserve.results.store import create_run
from pytest_pdserve.values.report import Report
from pytest_pdserve.values.report import VerdictReport
from tests.support.reports import cell
from tests.support.simulated import SimulatedProject
from tests.support.simulated import workload

LATER = ("--pdserve-until", "2099-01-01T00:00:00+00:00")
OVER = """
from pytest_pdserve.plugin.fixtures import session_key
def pytest_runtest_teardown(item):
    item.config.stash[session_key].deadline.ends_s = 0.0
"""
"""A conftest.py that has the time run out during the first test."""


def measured(topology: str, input_len: int, status: str = "PASS") -> VerdictReport:
    made = cell(topologies=(topology,), workload=workload(input_len), status=status)
    return replace(made, metrics=())


def write_session(sim: SimulatedProject, *cells: VerdictReport) -> None:
    """Store a session that measured *cells*."""
    store = create_run(sim.path / "runs", "sim")
    store.write_report(
        finished(Report(measured=True, system="sim", session=store.session, verdicts=cells))
    )


def order(sim: SimulatedProject, *arguments: str) -> list[str]:
    """Return the cells in the order in which they would run."""
    result = sim.run("--collect-only", "-q", *arguments)
    lines = [line.partition("[")[2].rstrip("]") for line in result.outlines if "::" in line]
    return [line for line in lines if "-256" in line]


def test_suspicious_cells_come_first_then_those_that_were_measured_longest_ago(
    sim: SimulatedProject,
) -> None:
    usual = order(sim)
    assert usual == [f"{t}-{n}-256" for t in ("1p3d", "dp") for n in (512, 1024, 2048)]
    write_session(sim, measured("1p3d", 512), measured("1p3d", 1024), measured("1p3d", 2048))
    write_session(
        sim,
        *(measured("dp", 512), measured("dp", 1024, "SUSPICIOUS"), measured("dp", 2048)),
        *(measured("1p3d", 512), measured("1p3d", 2048)),
    )
    assert order(sim) == usual
    assert order(sim, *LATER) == [
        *("dp-1024-256", "dp-512-256", "dp-2048-256"),
        *("1p3d-1024-256", "1p3d-512-256", "1p3d-2048-256"),
    ]


def test_cells_that_were_never_measured_come_before_those_that_were(sim: SimulatedProject) -> None:
    sim.topologies = "dp"
    write_session(sim, measured("dp", 512), measured("dp", 1024))
    assert order(sim, *LATER) == ["dp-2048-256", "dp-512-256", "dp-1024-256"]


def test_what_there_is_no_time_for_is_left_out_and_listed(known: SimulatedProject) -> None:
    known.topologies = "dp"
    (known.path / "conftest.py").write_text(OVER)
    result = known.run(*LATER, "--pdserve-report", "report.json", "-rs")
    assert result.parseoutcomes() == {"passed": 1, "skipped": 3}
    left = [f"dp {workload(n)}" for n in (1024, 2048)]
    assert json.loads((known.path / "report.json").read_text())["left_out"] == left
    result.stdout.fnmatch_lines(
        [
            "left out, as the session must end by ??:??: " + ", ".join(left),
            "SKIPPED *: left out: the session must end by ??:??",
        ]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("6", "until '6': expected a local time such as 06:00"),
        ("2020-01-01T00:00:00+00:00", "expected a time in the future"),
    ],
    ids=["no time", "over"],
)
def test_another_time_is_refused_before_anything_starts(
    text: str, said: str, sim: SimulatedProject
) -> None:
    result = sim.run("--pdserve-until", text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{said}*"])


def test_a_stack_needs_servers_of_our_own(sim: SimulatedProject) -> None:
    result = sim.run("--pdserve-stack", "vllm==0.15.1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --pdserve-stack 'vllm==0.15.1' needs a system whose servers pdserve starts; *"]
    )
