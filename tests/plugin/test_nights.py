"""Nights judged in a session: stub engines that are really started anew, and the simulated cluster.

Baselines here are drawn around one run with a spread that the test chooses; nothing of them is a
measurement, and none is kept.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_pdserve.judge.stats import envelope_of_nights
from pytest_pdserve.results.kinds import BASELINE
from pytest_pdserve.values.baseline import Baseline
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.rules import Rules
from pytest_pdserve.values.sessions import SessionRef
from pytest_pdserve.values.sources import Sources
from tests.support.house import WITHOUT_UNUSED
from tests.support.house import WORKLOAD
from tests.support.house import House

ROOT = Path(__file__).parents[2]
NIGHTS = 20
RUNS = tuple(
    SessionRef(id=f"202608{day:02}T010000-drawn", started_at=f"2026-08-{day:02}T01:00:00.000Z")
    for day in range(1, NIGHTS + 1)
)


def around(centre: float, cv: float, seed: str) -> list[float]:
    source = random.Random(seed)
    return [centre * math.exp(source.gauss(0, cv)) for _ in range(NIGHTS)]


def write_baseline(path: Path, cells: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """A baseline of drawn nights; topology, workload and metric to values."""
    baseline = Baseline(
        system=path.parent.name,
        suite="sweep",
        source=str(path),
        provenance=Sources(date="2026-08-31", runs=RUNS, fingerprint=None, versions={}),
        cells={
            topology: {
                workload: {name: envelope_of_nights(name, v) for name, v in metrics.items()}
                for workload, metrics in workloads.items()
            }
            for topology, workloads in cells.items()
        },
    )
    path.write_text(json.dumps(BASELINE.dump(baseline, path)))


@pytest.fixture
def nightly(house: House) -> House:
    """Stub engines of 20 ms a token, whose ITL is judged by nights that spread by a tenth."""
    house.suites("sweep")
    others = [name for name in METRICS.times if name != "mean_itl_ms"]
    limits = {name: 10.0 for name in others if name.endswith("_ms")}
    house.tables = {**house.tables, "judgement.rtol": limits}
    house.system(judgement={"host_envelopes": False})
    house.faults(every={"token_ms": 20})
    values = around(20.5, 0.1, "itl")
    path = house.path / "baselines" / "stub" / "sweep.json"
    write_baseline(path, {"1p1d": {WORKLOAD: {"mean_itl_ms": values}}})
    return house


def test_a_suspicious_cell_is_run_again_on_fresh_starts_until_it_fails(nightly: House) -> None:
    nightly.faults(every={"token_ms": 34})
    result = nightly.run("--topology", "1p1d")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            f"pdserve 1p1d: mean_itl_ms of {WORKLOAD} looks odd; run 2 of at most 4, on a fresh *",
            "*mean_itl_ms * worse (3 runs; found by: tonight; p = *",
        ]
    )
    starts = [line for line in result.outlines if ": starting " in line]
    assert len(starts) == 3
    records = nightly.records()
    assert [record["repeat"] for record in records] == [0, 1, 2]
    pids = [json.dumps(record["processes"]) for record in records]
    assert [("logs-2" in p, "logs-3" in p) for p in pids] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    folder = nightly.runs / records[0]["session"]["id"] / "1p1d"
    assert {"logs", "logs-2", "logs-3"} <= {path.name for path in folder.iterdir()}


def test_repeats_bound_the_confirmations(nightly: House) -> None:
    nightly.faults(every={"token_ms": 34})
    result = nightly.run("--topology", "1p1d", "--pdserve-repeats", "2")
    assert [record["repeat"] for record in nightly.records()] == [0, 1]
    assert result.parseoutcomes() == {"passed": 1, "skipped": 1}


def test_inconclusive_has_a_marker_of_its_own_everywhere(nightly: House) -> None:
    result = nightly.run("--topology", "1p1d", "-v", "--junitxml", "said.xml")
    assert result.ret == 0
    assert result.parseoutcomes() == {"passed": 1, "skipped": 1}
    result.stdout.fnmatch_lines(
        [
            "*test_sweep* INCONCLUSIVE*",
            "judged by nights: 1 cells in 1 runs, 0 nights before; ICC * (assumed, or *)",
            f"inconclusive: 1p1d {WORKLOAD}: mean_itl_ms * at most * worse; * would have been seen",
        ]
    )
    properties = ElementTree.parse(nightly.path / "said.xml").iter("property")
    assert ("pdserve_verdict", "INCONCLUSIVE") in {
        (p.get("name"), p.get("value")) for p in properties
    }


def test_strict_fails_what_is_inconclusive(nightly: House) -> None:
    result = nightly.run("--topology", "1p1d", "--pdserve-strict")
    assert result.parseoutcomes() == {"failed": 2}
    result.stdout.fnmatch_lines(["*INCONCLUSIVE: mean_itl_ms*", "*(--pdserve-strict)*"])


def months_ago(runs: Path) -> None:
    """Make every session so far one that began nights ago."""
    for folder in sorted(runs.glob("202[6-9]*")):
        old = f"20260901{folder.name[8:]}"
        for path in (folder / "session.json", *folder.glob("*/*.record.json")):
            data = json.loads(path.read_text())
            began = f"2026-09-01{data['session']['started_at'][10:]}"
            data["session"] = {**data["session"], "id": old, "started_at": began}
            path.write_text(json.dumps(data))
        folder.rename(runs / old)


def test_the_nights_before_are_found_beside_what_else_lies_there(nightly: House) -> None:
    nightly.run("--topology", "1p1d")
    months_ago(nightly.runs)
    result = nightly.run("--topology", "1p1d")
    result.stdout.fnmatch_lines(["judged by nights: 1 cells in 1 runs, 1 nights before; *"])
    result.stdout.no_fnmatch_line("*left out of the nights before*")


def test_a_cell_is_measured_once_however_many_tests_ask_for_it(nightly: House) -> None:
    (nightly.path / "suites" / "sweep" / "test_again.py").write_text(
        "import pytest\n\n"
        '@pytest.mark.pdserve_panels("prefill")\n'
        "def test_again(pdserve_run, pdserve_judge):\n"
        "    pdserve_judge(pdserve_run)\n"
    )
    result = nightly.run("--topology", "1p1d")
    assert result.parseoutcomes() == {"passed": 2, "skipped": 1}
    assert len(nightly.records()) == 1


def test_who_held_the_servers_before_a_restart_asks_the_new_ones(nightly: House) -> None:
    (nightly.path / "suites" / "sweep" / "test_sweep.py").write_text(
        "import pytest\n\n"
        '@pytest.mark.pdserve_panels("prefill")\n'
        "def test_ask(pdserve_deployment, pdserve_run):\n"
        "    asked = pdserve_deployment.client.get(pdserve_deployment.url + '/health')\n"
        "    assert asked.is_success\n"
        "    pdserve_deployment.check_alive()\n"
    )
    nightly.faults(every={"token_ms": 34})
    result = nightly.run("--topology", "1p1d")
    result.assert_outcomes(passed=1)
    assert len(nightly.records()) == 3


def test_a_confirmation_that_ends_in_an_error_leaves_no_cell_behind(nightly: House) -> None:
    """The decode instance does not come up a second time."""
    stub, count = nightly.path / "vllm_stub", nightly.path / "count"
    first, rest = stub.read_text().split("\n", 1)
    dies = f'echo x >> "{count}"; [ $(wc -l < "{count}") -ge 2 ] && exit 7'
    stub.write_text(f'{first}\ncase "$*" in *kv_consumer*) {dies};; esac\n{rest}')
    nightly.faults(every={"token_ms": 34})
    result = nightly.run("--topology", "1p1d")
    result.assert_outcomes(errors=2)
    result.stdout.no_fnmatch_line("*measured")
    assert [record["repeat"] for record in nightly.records()] == [0]
    assert nightly.survivors() == []


MakeProject = Callable[..., None]


@pytest.fixture
def simulated(
    loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> MakeProject:
    """A project on the simulated cluster: 1p3d and dp, three short cells, all judged by nights."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(ROOT / "suites" / "sweep", pytester.path / "suites" / "sweep")
    folder = pytester.path / "baselines" / "sim"
    folder.mkdir(parents=True)

    def make(**simulation: object) -> None:
        keys = "".join(f"{name} = {json.dumps(value)}\n" for name, value in simulation.items())
        (folder / "system.toml").write_text(
            'schema_version = 1\ndescription = "simulated"\n'
            '[cluster]\nkind = "simulated"\nnodes = 4\ngpus_per_node = 8\n'
            '[model]\npath = "deepseek-ai/DeepSeek-V2-Lite"\n'
            "[sweep]\ninput_lens = [512, 1024, 2048]\noutput_lens = [256]\nnum_prompts = 64\n"
            f"[simulation]\n{keys}"
        )

    make()
    return make


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    asked = ("suites", "--system", "sim", "--topology", "1p3d,dp", *WITHOUT_UNUSED, *arguments)
    return pytester.runpytest_inprocess(*asked)


def records(pytester: pytest.Pytester) -> list[dict[str, Any]]:
    paths = sorted(pytester.path.glob("runs/*/*/*.record.json"))
    return [json.loads(path.read_text()) for path in paths]


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    """Text of the one drawn baseline, once a test has asked for it."""
    return {}


@pytest.fixture
def known(pytester: pytest.Pytester, simulated: MakeProject, drawn: dict[str, str]) -> MakeProject:
    """The same, with a baseline of 20 nights drawn around one simulated run, CV 0.5 %."""
    path = pytester.path / "baselines" / "sim" / "sweep.json"
    if not drawn:
        draw(pytester, path)
        drawn["text"] = path.read_text()
    path.write_text(drawn["text"])
    return simulated


def draw(pytester: pytest.Pytester, path: Path) -> None:
    run(pytester)
    cells: dict[str, dict[str, dict[str, list[float]]]] = {}
    for record in records(pytester):
        lens = f"{record['workload']['input_len']}-{record['workload']['output_len']}"
        cells.setdefault(record["topology"], {})[f"random-{lens}-n64"] = {
            name: around(record["metrics"][name], 0.005, f"{record['topology']}{lens}{name}")
            for name in METRICS.times
        }
    write_baseline(path, cells)
    shutil.rmtree(pytester.path / "runs")


@pytest.mark.usefixtures("known")
def test_a_clean_night_passes_with_one_run_a_cell(pytester: pytest.Pytester) -> None:
    result = run(pytester)
    assert result.parseoutcomes() == {"passed": 6 + 2}
    assert len(records(pytester)) == 6
    result.stdout.fnmatch_lines(
        [
            "all workloads: random, n64",
            " 1p3d  *  512-256 *PASS",
            " dp  *  2048-256 *PASS",
            "judged by nights: 6 cells in 6 runs, 0 nights before; ICC * (assumed, or *)",
        ]
    )


def test_a_bad_node_fails_its_topologies_cell_by_cell_and_as_a_whole(
    pytester: pytest.Pytester, known: MakeProject
) -> None:
    known(bad_node="node0", bad_node_factor=1.15)
    result = run(pytester)
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) >= 4
    result.stdout.fnmatch_lines(["dp over 3 of 3 cells, sim: FAIL: *found by: family*"])
    assert len(records(pytester)) > 6
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_session_confirms_only_so_much(
    pytester: pytest.Pytester, known: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(bad_node="node0", bad_node_factor=1.15)
    defaults = Rules.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "most_confirmations", 3)
    result = run(pytester)
    assert len(records(pytester)) == 6 + 3
    result.stdout.fnmatch_lines(
        [
            "not confirmed, as 3 runs on fresh starts are all that a session makes: *random-*",
            "inconclusive: *: * suspicious, and not cleared: *",
        ]
    )


def test_what_was_accepted_is_not_recorded_over(
    pytester: pytest.Pytester, known: MakeProject
) -> None:
    path = pytester.path / "baselines" / "sim" / "sweep.json"
    baseline = json.loads(path.read_text())
    baseline["provenance"]["approver"] = "somebody"
    path.write_text(json.dumps(baseline))
    result = run(pytester, "--pdserve-record")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*was accepted by somebody, and --pdserve-record would put one*"])
    assert json.loads(path.read_text()) == baseline
    assert records(pytester) == []


def test_a_topology_as_a_whole_is_never_green_without_its_cells(
    pytester: pytest.Pytester, known: MakeProject
) -> None:
    known(bad_node="node0", bad_node_factor=1.15)
    result = run(pytester, "-k", "test_whole_topology")
    assert result.parseoutcomes() == {"passed": 2, "deselected": 6}
    result.stdout.fnmatch_lines(
        ["1p3d over 0 of 3 cells, sim: INCONCLUSIVE: fewer than two of its cells have a run*"]
    )
    strict = run(pytester, "-k", "test_whole_topology", "--pdserve-strict")
    assert strict.parseoutcomes() == {"failed": 2, "deselected": 6}


def test_a_night_before_that_voids_a_metric_is_no_pair_of_a_claim_and_no_miss(
    pytester: pytest.Pytester, known: MakeProject
) -> None:
    suite = pytester.path / "suites" / "claims"
    suite.mkdir()
    shipped = (ROOT / "suites" / "claims" / "test_claims.py").read_text()
    own, _, _ = shipped.partition('@pytest.mark.pdserve_claims("article.toml")')
    (suite / "test_claims.py").write_text(own)
    (suite / "claims.toml").write_text(
        'schema_version = 1\n[[claim]]\nid = "itl"\ntext = "t"\nkind = "below"\n'
        'metric = "mean_itl_ms"\nsubject = "1p3d"\nothers = ["dp"]\npanel = "prefill"\n'
        'input_lens = [512]\nreason = "r"\nsource = "s"\n'
    )
    chosen = ("-k", "512-256 or itl", "-v")
    for night in range(3):
        known(night=night)
        assert "failed" not in run(pytester, *chosen).parseoutcomes()
    path = sorted(pytester.path.glob("runs/*/1p3d/*.0.record.json"))[0]
    record = json.loads(path.read_text())
    record["findings"] += [
        {"check": "chunks", "severity": "note", "message": "m", "voids": ["mean_itl_ms"]}
    ]
    path.write_text(json.dumps(record))
    known(night=3)
    result = run(pytester, *chosen, "--junitxml", "said.xml")
    assert "failed" not in result.parseoutcomes()
    assert "this session and 2 nights before" in (pytester.path / "said.xml").read_text()


@pytest.mark.slow
def test_a_slow_down_too_small_for_one_night_is_found_by_the_nights_before(
    pytester: pytest.Pytester, known: MakeProject
) -> None:
    path = pytester.path / "baselines" / "sim" / "sweep.json"
    baseline = json.loads(path.read_text())
    for workloads in baseline["cells"].values():  # as if it had been 1 % faster
        for cell in workloads.values():
            for name, entry in cell.items():
                factor = 1 / 1.01 if name.endswith("_ms") else 1.01
                entry["values"] = [value * factor for value in entry["values"]]
                entry["ref"] *= factor
    path.write_text(json.dumps(baseline))
    nights = []
    for night in range(7):
        known(night=night)
        nights.append(run(pytester, "-k", "test_sweep and 512-256"))
    assert "failed" not in nights[0].parseoutcomes()
    assert nights[-1].parseoutcomes()["failed"] >= 1
    nights[-1].stdout.fnmatch_lines(["*(1 run; found by: *window of 7; p = *"])


def test_a_second_session_of_a_night_is_no_night_before(
    pytester: pytest.Pytester, known: MakeProject
) -> None:
    for night, before in ((0, 0), (0, 0), (1, 1)):
        known(night=night)
        result = run(pytester, "-k", "test_sweep and 512-256")
        result.stdout.fnmatch_lines(
            [f"judged by nights: 2 cells in 2 runs, {before} nights before; *"]
        )


def test_a_record_that_cannot_be_read_is_left_out_and_named(
    pytester: pytest.Pytester, known: MakeProject
) -> None:
    run(pytester)
    known(night=1)
    torn = next(pytester.path.glob("runs/*/1p3d/*.0.record.json"))
    torn.write_text(torn.read_text()[:100])
    result = run(pytester)
    result.stdout.fnmatch_lines(
        [
            "judged by nights: *, 1 nights before; ICC * (assumed, or *)",
            f"left out of the nights before: {torn} is no valid JSON*",
        ]
    )
    assert result.ret == 0
