"""The whole way with stub engines: stood up, measured, recorded, judged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_pdserve.results.store import load_record
from pytest_pdserve.values.metrics import METRICS
from tests.support.drawn import write_nights
from tests.support.house import WORKLOAD
from tests.support.house import House

ITL_OF_1P3D = """
schema_version = 1
[[claim]]
id = "itl"
text = "ITL below DP's"
kind = "below"
metric = "mean_itl_ms"
subject = "1p3d"
others = ["dp"]
panel = "decode"
reason = "no prefill in between"
source = "here"
"""
FIVE = ("dp", "route2", "route4", "1p3d", "2p2d")
LOOK = """
import json, psutil, os
def words(process):
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended meanwhile
        return []
def test_look(pdserve_deployment):
    family = psutil.Process().children(recursive=True)
    with open({path!r}, "w") as file:
        json.dump([pdserve_deployment.api_key, [words(p) for p in family]], file)
"""


def verdicts(result: pytest.RunResult) -> dict[tuple[str, str], str]:
    """Verdict of each row of the summary's table."""
    rows = [line.split() for line in result.outlines if re.match(r" \S+ +random-", line)]
    return {(row[0], row[1]): row[-1] for row in rows}


def test_each_of_five_topologies_is_stood_up_once(house: House) -> None:
    house.suites("smoke", "sweep", "claims")
    result = house.run("--topology", "all")
    outcomes = result.parseoutcomes()
    claims = 6
    assert outcomes.pop("passed") == 17 + claims - 2
    # Lengths of claims, a cluster of the article's, and topologies whose cells are all new.
    assert outcomes == {"skipped": 3 + 2 + 1 + 5}
    starts = [line for line in result.outlines if ": starting " in line]
    assert [line.split(":")[0].removeprefix("pdserve ") for line in starts] == list(FIVE)
    assert verdicts(result) == {(topology, WORKLOAD): "NEW" for topology in FIVE}
    paths = house.runs.glob("*/*/*.record.json")
    records = {record.topology: record for record in map(load_record, paths)}
    assert set(records) == set(FIVE)
    sent = {topology: record.warm_load["requests"] for topology, record in records.items()}
    assert sent == {"dp": 4, "route2": 4, "route4": 4, "1p3d": 3, "2p2d": 4}  # pairs or engines
    for topology, instances in zip(FIVE, (1, 2, 4, 4, 4), strict=True):
        assert len(records[topology].served) == instances
        assert sum(bool(counts.requests) for counts in records[topology].served) == instances
    assert [p.name for p in records["dp"].processes][1:4] == [
        f"aggregated[0]/rank{rank}" for rank in (1, 2, 3)
    ]
    assert len(list(house.runs.iterdir())) == 1


def properties(path: Path) -> dict[str, str]:
    """Properties of the tests of a JUnit file, by name."""
    found = ElementTree.parse(path).iterfind(".//testcase//property")
    return {element.attrib["name"]: element.attrib["value"] for element in found}


@pytest.mark.slow
def test_a_run_is_in_the_summary_in_junit_and_in_benchmarks(house: House) -> None:
    house.suites("sweep")
    arguments = ("--topology", "1p1d", "-k", "32-8", "--junitxml", "junit.xml")
    first = house.run(*arguments)
    assert verdicts(first) == {("1p1d", WORKLOAD): "NEW"}
    said = properties(house.path / "junit.xml")
    (record,) = house.records()
    assert Path(said.pop("pdserve_record")).name == f"{WORKLOAD}.0.record.json"
    assert said.pop("pdserve_verdict") == "NEW"
    assert (said.pop("pdserve_topology"), said.pop("pdserve_workload")) == ("1p1d", WORKLOAD)
    assert {name: float(text) for name, text in said.items()} == record["metrics"]

    benchmark = ("-p", "pytest_benchmark.plugin", "--benchmark-json", "benchmark.json")
    second = house.run(*arguments, *benchmark)
    assert verdicts(second) == {("1p1d", WORKLOAD): "PASS"}
    assert properties(house.path / "junit.xml")["pdserve_verdict"] == "PASS"
    stored = json.loads((house.path / "benchmark.json").read_text())["benchmarks"]
    metrics = house.records()[-1]["metrics"]
    assert all(each["extra_info"] == metrics for each in stored)
    assert {each["group"]: each["stats"]["data"] for each in stored} == {
        name: [1 / metrics[name] if METRICS[name].is_throughput else metrics[name] / 1000]
        for name in METRICS.kept
    }


@pytest.mark.slow
def test_repeats_are_one_record_each_and_the_first_counts(house: House) -> None:
    house.suites("sweep")
    result = house.run("--topology", "dp", "--pdserve-repeats", "2")
    result.assert_outcomes(passed=1, skipped=1)
    assert [(r["repeat"], r["start"]) for r in house.records()] == [(0, 0), (1, 0)]
    (night,) = house.cells()["dp"][WORKLOAD]["nights"]
    assert night["values"]["mean_itl_ms"] == house.records()[0]["metrics"]["mean_itl_ms"]


@pytest.mark.slow
@pytest.mark.parametrize("host_references", [True, False])
def test_without_a_baseline_a_cell_is_new(house: House, *, host_references: bool) -> None:
    house.suites("sweep")
    house.system(judgement={"host_references": host_references})
    result = house.run("--topology", "dp", "-v")
    assert result.parseoutcomes() == {"passed": 1, "skipped": 1}
    result.stdout.fnmatch_lines(["*::test_sweep*32-8* NEW *", f" dp *{WORKLOAD} *NEW"])
    state = list((house.path / "state").rglob("sweep.json"))
    assert (len(state), house.baseline.exists()) == (host_references, not host_references)
    (path,) = [*state, *house.baseline.parent.glob("sweep.json")]
    result.stdout.fnmatch_lines([f"NEW: 1 cell, recorded as reference in {path}"])


@pytest.mark.slow
def test_a_topology_of_one_cell_is_judged_by_its_cell(house: House) -> None:
    house.suites("sweep")
    write_nights(house.baseline, {("dp", WORKLOAD): {"mean_itl_ms": [8.0]}})
    result = house.run("--topology", "dp", "--pdserve-strict", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "SKIPPED *NOT ASKED: dp as a whole: the sweep has one cell, which is judged by itself",
        ]
    )


def test_strict_fails_what_is_new(house: House) -> None:
    house.suites("sweep")
    strict = house.run("--topology", "dp", "--pdserve-strict", "-k", "32-8")
    strict.assert_outcomes(failed=1)
    strict.stdout.fnmatch_lines(["*NEW: *dp, *", "*(--pdserve-strict)*"])


@pytest.mark.slow
def test_cells_that_are_measured_no_more_are_named(house: House) -> None:
    house.suites("sweep")
    nights = {"mean_itl_ms": [8.0]}
    keys = (("dp", WORKLOAD), ("dp", "random-64-8-n8-c4"), ("1p1d", WORKLOAD))
    write_nights(house.baseline, dict.fromkeys(keys, nights))
    lost = "cells of the baseline that no test measures any more: dp random-64-8-n8-c4"
    result = house.run("--topology", "dp")
    assert result.ret == 0
    result.stdout.fnmatch_lines([lost])
    strict = house.run("--topology", "dp", "--pdserve-strict")
    strict.assert_outcomes(passed=1, skipped=1)
    assert strict.ret == pytest.ExitCode.TESTS_FAILED
    part = house.run("--topology", "dp", "-k", "32-8")
    part.stdout.no_fnmatch_line("*any more*")


@pytest.mark.slow
def test_a_count_that_the_run_lacks_fails(house: House) -> None:
    house.suites("sweep")
    nights = {("dp", WORKLOAD): {"mean_itl_ms": [3.0]}}
    write_nights(house.baseline, nights, counts={"completed": 8.0, "kv_transfers": 8.0})
    result = house.run("--topology", "dp", "-k", "32-8")
    result.assert_outcomes(failed=1)
    said = (
        "kv_transfers is missing, expected 8 transfers as in the baseline: the load or the servers "
        "differ"
    )
    result.stdout.fnmatch_lines([f"*BaselineRegression: {said}: dp, {WORKLOAD}, stub"])
    result.stdout.fnmatch_lines([f"FAIL: dp {WORKLOAD}: {said}"])


@pytest.mark.slow
def test_several_tokens_a_chunk_void_itl_only(house: House) -> None:
    house.suites("sweep")
    house.faults(every={"chunk_tokens": 2})
    result = house.run("--topology", "dp")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["note: 32 chunks for 64 tokens *; ITL is not judged, TPOT is *"])
    (night,) = house.cells()["dp"][WORKLOAD]["nights"]
    assert "mean_tpot_ms" in night["values"]
    assert "mean_itl_ms" not in night["values"]


@pytest.mark.slow
def test_a_run_that_is_invalid_is_an_error_and_on_disk(house: House) -> None:
    house.suites("sweep")
    house.faults(every={"fail_streams": True})
    result = house.run("--topology", "dp")
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["*completed: none of 8 requests completed, 8 failed; first error: ValueError: 500 *"]
    )
    assert verdicts(result) == {("dp", WORKLOAD): "ERROR"}
    (record,) = house.records()
    assert record["findings"][0]["severity"] == "invalid"
    assert not house.baseline.exists()


@pytest.mark.slow
def test_smoke_sees_that_decode_generates_something_else(house: House) -> None:
    house.suites("smoke")
    house.faults(decode_0={"text": "salt"})
    result = house.run("--topology", "1p2d")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED *test_greedy_output_is_a_single_instances?1p2d?*"])


@pytest.mark.slow
def test_a_claim_whose_cell_was_not_measured_is_not_judged(house: House) -> None:
    house.suites("sweep", "claims")
    house.faults(aggregated_0={"token_ms": 40})
    house.system(sweep={"input_lens": [32], "output_lens": [8, 16]})
    (house.path / "suites" / "claims" / "claims.toml").write_text(ITL_OF_1P3D)
    chosen = ("--topology", "dp,1p3d", "-k", "32-8 or itl", "-rs")
    result = house.run(*chosen)
    assert result.parseoutcomes() == {"passed": 2, "skipped": 1, "deselected": 5}
    result.stdout.fnmatch_lines(["SKIPPED *NOT JUDGED: random-32-16-*: mean_itl_ms of *"])
    strict = house.run(*chosen, "--pdserve-strict")
    strict.assert_outcomes(passed=2, failed=1, deselected=5)
    strict.stdout.fnmatch_lines(["*NOT JUDGED: *", "*(--pdserve-strict)*"])


@pytest.mark.slow
def test_a_session_that_judges_nothing_exits_5_and_smoke_alone_does_not(house: House) -> None:
    house.suites("smoke", "sweep", "claims")
    house.pytester.makeconftest(
        "from pytest_pdserve.judge import sanity\n"
        "from pytest_pdserve import Finding\n"
        "from pytest_pdserve.values.metrics import METRICS\n"
        "def void(seen):\n"
        "    yield Finding(check='x', severity='note', message='m', voids=METRICS.latencies)\n"
        "sanity.CHECKS = (void,)\nsanity.checks.cache_clear()\n"
    )
    result = house.start("--topology", "dp", "-k", "sweep", "-rs")
    assert result.wait(timeout=60) == pytest.ExitCode.NO_TESTS_COLLECTED
    text = (house.path / "pytest.log").read_text()
    assert "NOT JUDGED: every latency is void, so this run cannot become the reference" in text
    assert "nothing was judged, and nothing recorded as a reference" in text
    assert not house.baseline.exists()
    (house.path / "conftest.py").unlink()  # it would change this process
    answers = house.run("--topology", "dp", "-k", "answers or lowest")
    assert answers.ret == 0
    answers.assert_outcomes(passed=1, skipped=2)


@pytest.mark.slow
def test_a_broken_claim_fails_where_claims_are_enforced(house: House) -> None:
    house.suites("sweep", "claims")
    house.system(judgement={"claims": "enforce"}, judgement_floors={"mean_itl_ms": 0.3})
    claims = house.path / "suites" / "claims" / "claims.toml"
    claims.write_text(ITL_OF_1P3D.replace("1p3d", "2p2d"))
    house.faults(decode_0={"token_ms": 40}, decode_1={"token_ms": 40})
    result = house.run("--topology", "dp,2p2d")
    result.assert_outcomes(passed=2, failed=1, skipped=3)
    result.stdout.fnmatch_lines(
        [
            f"*BaselineRegression: {WORKLOAD}: mean_itl_ms of 2p2d = * ms, claimed < * ms (dp *",
            "claim itl: FAIL (*",
        ]
    )
    alone = house.run("--topology", "dp", "--pdserve-strict", "-k", "itl", "-rs")
    alone.assert_outcomes(skipped=1, deselected=3)
    alone.stdout.fnmatch_lines(["*NOT ASKED: 2p2d, dp were not run; add --topology all*"])


@pytest.mark.slow
def test_no_secret_is_written_or_shown(house: House) -> None:
    house.suites("sweep")
    said = house.path / "said.json"
    house.pytester.makepyfile(test_look=LOOK.format(path=str(said)))
    result = house.run("test_look.py", "--topology", "1p1d", "-vv")
    result.assert_outcomes(passed=2, skipped=1)
    key, commands = json.loads(said.read_text())
    said.unlink()
    assert len(key) >= 24
    assert any("--kv-transfer-config.kv_role" in command for command in commands)
    assert not any(key in word for command in commands for word in command)
    files = [p for p in house.path.rglob("*") if p.is_file()]
    assert any(path.name == f"{WORKLOAD}.0.record.json" for path in files)
    assert [path for path in files if key.encode() in path.read_bytes()] == []
    assert key not in result.stdout.str()


def test_nothing_is_printed_when_nothing_ran(house: House) -> None:
    house.suites("sweep")
    result = house.run("-k", "nothing")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.no_fnmatch_line("*= pdserve =*")
    assert not house.runs.exists()


def test_quiet_is_quiet(house: House) -> None:
    house.suites("smoke")
    result = house.run("--topology", "1p1d", "-q", "--no-header", "-k", "answers")
    result.assert_outcomes(passed=1)
    assert [line for line in result.outlines if line.startswith("pdserve 1p1d:")] == []
