"""The first trouble of a session is one ERROR, and tests that depend on it point to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.fake_slurm import FakeSlurm
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.onehost import TABLES

LOGS = Path(__file__).parents[1] / "data" / "logs"
SMOKE = "suites/smoke/test_smoke.py"
SWEEP = "suites/sweep/test_sweep.py"


@pytest.fixture
def both(house: House) -> House:
    """A project with five tests of each topology: three of smoke, two of the sweep."""
    house.suites("smoke", "sweep")
    return house


def log_of(house: House, name: str, lines: list[str]) -> str:
    """A file of a log's lines, for a stub to log."""
    path = house.path / name
    path.write_text("\n".join(lines))
    return str(path)


def seen(name: str) -> list[str]:
    return (LOGS / f"{name}.txt").read_text().splitlines()


def text_of(result: pytest.RunResult, house: House) -> str:
    """What a session prints, without its folder and the times of its processes."""
    text = result.stdout.str().replace(f"{house.path}/", "")
    return re.sub(r"runs/\d{8}T\d{6}-stub", "RUN", re.sub(r"\d+ s after", "N s after", text))


def test_a_refused_sbatch_is_one_error_and_all_else_points_to_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    house.suites("smoke", "sweep", "claims")
    house.tables = TABLES
    house.system(cluster={"nodes": 4}, slurm={"queue_s": 2.5}, judgement={"claims": "enforce"})
    fake = FakeSlurm.install(house.path / "fake", monkeypatch)
    fake.sbatch("", errors="sbatch: error: invalid partition specified: gpu", code=1)
    result = house.run("--topology", "1p3d,2p2d", "-rs")
    outcomes = result.parseoutcomes()
    assert outcomes["errors"] == 1
    assert set(outcomes) == {"errors", "skipped"}
    assert len(fake.asked("sbatch")) == 1
    reason = (
        f"depends on the ERROR of {SMOKE}::test_answers[1p3d]: sbatch took no job: invalid "
        "partition specified: gpu; see [slurm] partition in "
    )
    text = result.stdout.str()
    assert re.search(rf"SKIPPED \[9\] .*: {re.escape(reason)}", text)
    assert f"9 tests skipped: {reason}" in text
    assert "claim not judged: 1p3d ended in an ERROR in this session" in text


@pytest.mark.slow
def test_servers_that_do_not_come_up_are_one_error_of_each_topology(both: House) -> None:
    both.faults(decode_0={"exit_at_start": 3})  # dp has none
    result = both.run("--topology", "1p1d,dp", "-rs")
    result.assert_outcomes(errors=1, passed=3, skipped=6)
    text = text_of(result, both)
    assert (
        f"depends on the ERROR of {SMOKE}::test_answers[1p1d]: decode[0] on local1 exited with "
        "code 3 N s after its start; RUN/1p1d/logs/decode-0.log ends:"
    ) in text
    assert f"1p1d as a whole: it ended in an ERROR ({SMOKE}::test_answers[1p1d])" in text


def test_a_server_that_dies_is_told_with_the_cause_and_not_with_the_end_of_its_log(
    both: House,
) -> None:
    name = "built_0.11_cuda_out_of_memory_tp2"
    log = log_of(both, "oom.txt", seen(name))
    both.faults(decode_0={"log_at_start": log, "exit_at_start": 1})
    text = text_of(both.run("--topology", "1p1d"), both)
    assert (
        "\ndecode[0] on local1 exited with code 1 N s after its start; the cause is in line 5 of "
        "RUN/1p1d/logs/decode-0.log (Worker_TP1): torch.OutOfMemoryError: CUDA out of memory. "
        "Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 79.10 GiB of which 1.25 GiB is "
        "free.\n"
    ) in text
    assert "See root cause above" not in text


def test_of_two_servers_that_die_the_one_that_failed_innermost_is_told(both: House) -> None:
    log = log_of(both, "oom.txt", seen("built_0.11_cuda_out_of_memory_tp2"))
    engine = log_of(both, "engine.txt", seen("seen_0.32_engine_killed"))
    both.faults(
        prefill_0={"log_at_start": engine, "exit_at_start": 1},
        decode_0={"log_at_start": log, "exit_at_start": 1, "exit_after": "prefill-0.log"},
    )
    text = both.run("--topology", "1p1d").stdout.str()
    assert "\ndecode[0] on local1 exited with code 1 " in text


def test_a_server_that_is_killed_is_told_where_that_comes_from(both: House) -> None:
    both.faults(decode_0={"exit_at_start": 137})
    text = text_of(both.run("--topology", "1p1d"), both)
    assert f"\nERROR {SMOKE}::test_answers[1p1d] - decode[0] on lo" in text
    assert (
        "\ndecode[0] on local1 exited with code 137 N s after its start; SIGKILL comes from the "
        "kernel where memory runs out, from Slurm, or from a person; RUN/1p1d/logs/decode-0.log "
        "ends:\n"
    ) in text


def test_a_refused_handshake_is_told_with_its_pair_and_what_differs(both: House) -> None:
    decode = seen("seen_0.32_handshake_decode")
    started = [line for line in decode if " INFO " in line]
    refused = [line for line in decode if " ERROR " in line]
    both.faults(
        prefill_0={"log_at_start": log_of(both, "p.txt", seen("seen_0.32_handshake_prefill"))},
        decode_0={
            "log_at_start": log_of(both, "d.txt", started),
            "refuse_handshake": log_of(both, "refused.txt", refused),
        },
    )
    result = both.run("--topology", "1p1d")
    result.assert_outcomes(errors=1, skipped=4)
    text = text_of(result, both)
    first = len(started) + 2  # a line of the stub before them
    assert (
        '/v1/completions answered 500 Internal Server Error: {"error": {"message": "Internal '
        'server error"}}; decode[0] refused the KV handshake with prefill[0]: they differ, dtype '
        f"is bfloat16 and float32 (line {first} of RUN/1p1d/logs/decode-0.log: RuntimeError: NIXL "
        "compatibility hash mismatch)\n"
    ) in text


@pytest.mark.slow
def test_requests_of_a_run_that_fail_are_told_with_what_instances_logged(both: House) -> None:
    log = log_of(both, "oom.txt", seen("built_0.11_cuda_out_of_memory_tp2"))
    both.faults(decode_0={"fail_streams": log})
    text = text_of(both.run("--topology", "1p1d", "-k", "32-8"), both)
    assert re.search(
        r"\n  servers: decode\[0\] logged meanwhile, in line \d+ of RUN/1p1d/logs/decode-0\.log "
        r"\(Worker_TP1\): torch\.OutOfMemoryError: CUDA out of memory\. ",
        text,
    )


@pytest.mark.slow
def test_a_server_that_dies_stops_its_topology_but_for_cells_that_wait_for_a_fresh_start(
    both: House,
) -> None:
    both.system(sweep={"input_lens": [32, 48, 64]})
    both.faults(decode_0={"exit_after_streams": 10})  # in the second cell
    result = both.run("--topology", "1p1d", "-k", "sweep", "--pdserve-first-runs", "2", "-rs")
    result.assert_outcomes(errors=1, passed=1, skipped=2)
    assert [(each["repeat"], each["start"]) for each in both.records()] == [(0, 0), (1, 1)]
    reason = f"depends on the ERROR of {SWEEP}::test_sweep[1p1d-48-8]: decode[0] on local1 exited "
    assert reason in result.stdout.str()


@pytest.mark.slow
def test_a_client_that_fails_twice_in_the_same_way_is_not_tried_again(both: House) -> None:
    both.system(sweep={"input_lens": [32, 48, 64, 96]})
    both.faults(bench={"exit_bench": 1})
    result = both.run("--topology", "dp", "-k", "sweep", "-rs")
    result.assert_outcomes(errors=2, skipped=3)
    first = f"depends on the ERROR of {SWEEP}::test_sweep[dp-32-8]: bench {WORKLOAD} exited with"
    assert first in result.stdout.str()


@pytest.mark.slow
def test_runs_that_are_invalid_do_not_stop_others(both: House) -> None:
    both.system(sweep={"input_lens": [32, 48, 64]})
    both.faults(every={"fail_streams": True})
    both.run("--topology", "dp", "-k", "sweep").assert_outcomes(errors=3, skipped=1)


@pytest.mark.slow
def test_loads_that_are_too_long_do_not_stop_others(both: House) -> None:
    (both.path / "conftest.py").write_text(
        "import pytest\nfrom pytest_pdserve.values.errors import ConfigError\n"
        "@pytest.fixture(autouse=True)\ndef fits(pdserve_workload, _pdserve_restartable):\n"
        "    from pytest_pdserve.plugin.trouble import without_traceback\n"
        "    if pdserve_workload.lengths[0] > 40:\n"
        "        with without_traceback():\n"
        "            raise ConfigError(f'{pdserve_workload.lengths[0]} tokens are too many')\n"
    )
    both.system(sweep={"input_lens": [48, 64, 32]})
    both.run("--topology", "dp", "-k", "8").assert_outcomes(errors=2, passed=1)


@pytest.mark.slow
def test_last_failed_runs_what_was_skipped_for_an_error_too(both: House) -> None:
    ini = both.path / "tox.ini"
    ini.write_text(ini.read_text().replace("-p no:cacheprovider", ""))
    both.faults(decode_0={"exit_at_start": 3})
    asked = ("--topology", "1p1d", "-k", "not whole")
    both.run(*asked).assert_outcomes(errors=1, skipped=3)
    both.faults()
    both.run(*asked, "--lf").assert_outcomes(passed=4)
