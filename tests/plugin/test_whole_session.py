"""The whole way with stub engines: stood up, measured, recorded, judged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_pdserve.results.store import load_record
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
    house.counts(*FIVE)
    result = house.run("--topology", "all")
    outcomes = result.parseoutcomes()
    claims = 6
    assert outcomes.pop("passed") == 17 + claims - 2
    assert outcomes.pop("deselected") == 5  # limits decide everything: no night is judged
    assert outcomes == {"skipped": 3 + 2 + 1}  # lengths of claims; a cluster of the article's
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


def test_first_run_is_recorded_second_judged_third_seen_to_regress(house: House) -> None:
    house.suites("sweep")
    baseline = house.counts("1p1d")
    arguments = ("--topology", "1p1d", "-rA")
    first = house.run(*arguments, "--junitxml", "junit.xml")
    first.assert_outcomes(passed=1)
    assert verdicts(first) == {("1p1d", WORKLOAD): "NEW"}
    (envelopes,) = (house.path / "state").rglob("sweep.json")
    first.stdout.fnmatch_lines([f"NEW: recorded as the reference of this host: {envelopes}"])

    properties = {
        element.attrib["name"]: element.attrib["value"]
        for element in ElementTree.parse(house.path / "junit.xml").iter("property")
    }
    (record,) = house.records()
    assert Path(properties.pop("pdserve_record")).name == f"{WORKLOAD}.0.record.json"
    assert properties.pop("pdserve_verdict") == "NEW"
    assert {name: float(text) for name, text in properties.items()} == record["metrics"]

    second = house.run(
        *arguments, "-p", "pytest_benchmark.plugin", "--benchmark-json", "benchmark.json"
    )
    second.assert_outcomes(passed=1)
    assert verdicts(second) == {("1p1d", WORKLOAD): "PASS"}
    (stored,) = json.loads((house.path / "benchmark.json").read_text())["benchmarks"]
    assert stored["extra_info"] == house.records()[-1]["metrics"]

    house.faults(decode_0={"token_ms": 150})
    third = house.run(*arguments)
    third.assert_outcomes(failed=1)
    assert verdicts(third) == {("1p1d", WORKLOAD): "FAIL"}
    text = third.stdout.str()
    assert re.search(
        r"BaselineRegression: .*mean_itl_ms = \d+\.?\d* ms, envelope <= \d+\.?\d* ms "
        rf"\(ref \d+\.?\d* ms, 1 run\): 1p1d, {WORKLOAD}, stub",
        text,
        re.DOTALL,
    )
    assert "output_throughput = " not in text or "envelope >= " in text
    runs = re.escape(str(house.runs))
    third.stdout.re_match_lines_random(
        [
            rf"E +baseline +{re.escape(str(baseline))} \+ {re.escape(str(envelopes))} \(.*",
            rf"E +record +{runs}/\S+-stub\S*/1p1d/{WORKLOAD}\.0\.record\.json",
            r'E +accept +pytest suites/sweep -k "1p1d and 32-8" --pdserve-record --topology 1p1d '
            r"--system stub",
        ]
    )
    assert len(list(house.runs.iterdir())) == 3


def test_repeats_are_one_record_each(house: House) -> None:
    house.suites("sweep")
    house.counts("dp")
    result = house.run("--topology", "dp", "--pdserve-repeats", "2")
    result.assert_outcomes(passed=1)
    assert [record["repeat"] for record in house.records()] == [0, 1]
    (envelopes,) = (house.path / "state").rglob("sweep.json")
    cell = json.loads(envelopes.read_text())["cells"]["dp"][WORKLOAD]
    assert cell["mean_ttft_ms"]["runs"] == 2


@pytest.mark.parametrize("host_envelopes", [True, False])
def test_without_a_baseline_a_cell_is_new(host_envelopes: bool, house: House) -> None:
    house.suites("sweep")
    house.system(judgement={"host_envelopes": host_envelopes})
    result = house.run("--topology", "dp", "-v")
    assert result.parseoutcomes() == {"passed": 1, "deselected": 1}
    result.stdout.fnmatch_lines(["*::test_sweep*32-8* NEW *", f" dp *{WORKLOAD} *NEW"])
    assert len(house.records()) == 1
    assert (house.path / "state").exists() == host_envelopes
    strict = house.run("--topology", "2p2d", "--pdserve-strict")
    strict.assert_outcomes(failed=1)
    strict.stdout.fnmatch_lines(["*NEW: *2p2d, *", "*(--pdserve-strict)*"])


def test_cells_that_are_measured_no_more_are_named(house: House) -> None:
    house.suites("sweep")
    path = house.counts("dp", "1p1d")
    data = json.loads(path.read_text())
    data["cells"]["dp"]["random-64-8-n8-c4"] = data["cells"]["dp"][WORKLOAD]
    path.write_text(json.dumps(data))
    lost = "cells of the baseline that no test measures any more: dp random-64-8-n8-c4"
    result = house.run("--topology", "dp")
    assert result.ret == 0
    result.stdout.fnmatch_lines([lost])
    strict = house.run("--topology", "dp", "--pdserve-strict")
    strict.assert_outcomes(passed=1, deselected=1)
    assert strict.ret == pytest.ExitCode.TESTS_FAILED
    part = house.run("--topology", "dp", "-k", "32-8")
    part.stdout.no_fnmatch_line("*any more*")


def test_record_writes_a_candidate_and_fails(house: House) -> None:
    house.suites("sweep")
    house.system(judgement={"host_envelopes": False})
    result = house.run("--topology", "dp", "--pdserve-record")
    result.assert_outcomes(failed=1)
    path = house.path / "baselines" / "stub" / "sweep.json"
    result.stdout.fnmatch_lines(
        [
            "recorded as a candidate baseline, not judged; read it, then commit it: dp, *",
            f"  candidate  {path}",
        ]
    )
    cell = json.loads(path.read_text())["cells"]["dp"][WORKLOAD]
    assert cell["completed"]["ref"] == 8
    measured = house.records()[0]["metrics"]["mean_ttft_ms"]
    assert cell["mean_ttft_ms"]["ref"] == pytest.approx(measured)
    again = house.run("--topology", "dp")
    again.assert_outcomes(passed=1)
    assert verdicts(again) == {("dp", WORKLOAD): "PASS"}


def test_a_metric_that_the_run_lacks_fails(house: House) -> None:
    house.suites("sweep")
    house.system(judgement={"host_envelopes": False})
    path = house.counts("dp")
    data = json.loads(path.read_text())
    cell = data["cells"]["dp"][WORKLOAD]
    cell["kv_transfers"] = {**cell["completed"], "unit": "transfers"}
    path.write_text(json.dumps(data))
    result = house.run("--topology", "dp")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*kv_transfers is in the baseline, but 1 of 1 runs lack it*"])


def test_several_tokens_a_chunk_void_itl_only(house: House) -> None:
    house.suites("sweep")
    house.counts("dp")
    house.faults(every={"chunk_tokens": 2})
    result = house.run("--topology", "dp")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["note: 32 chunks for 64 tokens *; ITL is not judged, TPOT is *"])
    (envelopes,) = (house.path / "state").rglob("sweep.json")
    cell = json.loads(envelopes.read_text())["cells"]["dp"][WORKLOAD]
    assert "mean_tpot_ms" in cell
    assert "mean_itl_ms" not in cell


def test_a_run_that_is_invalid_is_an_error_and_on_disk(house: House) -> None:
    house.suites("sweep")
    house.counts("dp")
    house.faults(every={"fail_streams": True})
    result = house.run("--topology", "dp")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*completed: none of 8 requests completed, 8 failed; first error: ValueError: 500 *"]
    )
    assert verdicts(result) == {("dp", WORKLOAD): "ERROR"}
    (record,) = house.records()
    assert record["findings"][0]["severity"] == "invalid"
    assert not (house.path / "state").exists()


def test_smoke_sees_that_decode_generates_something_else(house: House) -> None:
    house.suites("smoke")
    house.faults(decode_0={"text": "salt"})
    result = house.run("--topology", "1p2d")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED *test_greedy_output_is_a_single_instances?1p2d?*"])


def test_claims_are_reported_with_their_numbers(house: House) -> None:
    house.suites("sweep", "claims")
    house.counts("dp", "1p3d")
    house.system(sweep={"input_lens": [512], "output_lens": [256], "length_divisor": 32})
    house.faults(aggregated_0={"token_ms": 1}, every={"token_ms": 10})
    (house.path / "suites" / "claims" / "claims.toml").write_text(ITL_OF_1P3D)
    result = house.run("--topology", "dp,1p3d", "-v", "--junitxml", "junit.xml")
    assert result.parseoutcomes() == {"passed": 3, "skipped": 1, "deselected": 2}
    result.stdout.fnmatch_lines(
        [
            "*::test_claim*itl* REPORTED *",
            "claim itl: REPORTED: does not hold; not enforced on stub (*: mean_itl_ms of 1p3d = *",
        ]
    )
    properties = ElementTree.parse(house.path / "junit.xml").iter("property")
    assert ("pdserve_verdict", "REPORTED") in {(p.get("name"), p.get("value")) for p in properties}


def test_a_claim_whose_cell_was_not_measured_is_not_judged(house: House) -> None:
    house.suites("sweep", "claims")
    house.counts("dp", "1p3d")
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


def test_a_session_that_judges_nothing_exits_5_and_smoke_alone_does_not(house: House) -> None:
    house.suites("smoke", "sweep", "claims")
    house.counts("dp")
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
    assert not (house.path / "state").exists()
    (house.path / "conftest.py").unlink()  # it would change this process
    answers = house.run("--topology", "dp", "-k", "answers or lowest")
    assert answers.ret == 0
    answers.assert_outcomes(passed=1, skipped=2)


def test_a_broken_claim_fails_where_claims_are_enforced(house: House) -> None:
    house.suites("sweep", "claims")
    house.counts("dp", "2p2d")
    house.system(judgement={"claims": "enforce"})
    claims = house.path / "suites" / "claims" / "claims.toml"
    claims.write_text(ITL_OF_1P3D.replace("1p3d", "2p2d"))
    house.faults(decode_0={"token_ms": 40}, decode_1={"token_ms": 40})
    result = house.run("--topology", "dp,2p2d")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            f"*BaselineRegression: {WORKLOAD}: mean_itl_ms of 2p2d = * ms, claimed < * ms (dp *",
            "claim itl: FAIL (*",
        ]
    )
    alone = house.run("--topology", "dp", "--pdserve-strict", "-k", "itl", "-rs")
    alone.assert_outcomes(skipped=1, deselected=3)
    alone.stdout.fnmatch_lines(["*NOT ASKED: 2p2d, dp were not run; add --topology all*"])


def test_no_secret_is_written_or_shown(house: House) -> None:
    house.suites("sweep")
    house.counts("1p1d")
    said = house.path / "said.json"
    house.pytester.makepyfile(test_look=LOOK.format(path=str(said)))
    result = house.run("test_look.py", "--topology", "1p1d", "-vv")
    result.assert_outcomes(passed=2)
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
