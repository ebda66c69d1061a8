"""System files: what they may say, and how a mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve.backends.slurm.options import SlurmSpec
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.folders import baseline_folders
from pytest_pdserve.simulation.options import SimulationSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import Judgement
from tests.support.systems import LEAST
from tests.support.systems import loaded
from tests.support.systems import refused

SIMULATED = LEAST.replace("local", "simulated")
FIGURES = 'figures = "figures.toml"\n'


def test_what_a_file_leaves_out_has_a_default(tmp_path: Path) -> None:
    system = loaded(tmp_path, LEAST)
    assert (system.name, system.description) == ("mine", "a machine")
    assert system.source == str(tmp_path / "mine" / "system.toml")
    assert (system.ports.http, system.kv_transfer.backend) == (8000, "LIBFABRIC")
    assert (system.limits.ready_s, system.sweep.num_prompts) == (1800.0, 1024)
    assert system.sweep.request_rate is None
    assert system.tensor_parallel is None
    assert system.judgement == Judgement(
        host_references=False, claims="enforce", max_reruns=48, floors={}, sees={}
    )


def test_what_a_file_says_is_kept(tmp_path: Path) -> None:
    system = loaded(
        tmp_path,
        LEAST
        + """serve_args = ["--enforce-eager"]
[sweep]
request_rate = 4
input_lens = [128, 256]
[sweep.options]
random-prefix-len = "16"
[judgement]
host_references = true
claims = "report"
max_reruns = 12
[judgement.floors]
mean_ttft_ms = 0.5
[judgement.sees]
mean_itl_ms = 0.05
[router]
args = ["--log-level", "warn"]
[env]
A = "1"
""",
    )
    assert system.model.serve_args == ("--enforce-eager",)
    assert (system.sweep.request_rate, system.sweep.input_lens) == (4.0, (128, 256))
    assert system.sweep.options == {"random-prefix-len": "16"}
    assert system.judgement == Judgement(
        host_references=True,
        claims="report",
        max_reruns=12,
        floors={"mean_ttft_ms": 0.5},
        sees={"mean_itl_ms": 0.05},
    )
    assert (system.router.args, system.env) == (("--log-level", "warn"), {"A": "1"})


def test_noise_is_where_other_keys_start_from(tmp_path: Path) -> None:
    text = '[simulation]\nnoise = "reference"\nrun_cv = 0.5\n'
    system = loaded(tmp_path, SIMULATED + text)
    assert system.simulated
    assert system.table("simulation", SimulationSpec) == SimulationSpec(
        noise="reference", run_cv=0.5, ttft_cv=0.0127, ttft_tail_cv=0.058, slow_runs=0.01
    )
    text = '[simulation]\nnoise = "none"\nrun_cv = 0.5\n'
    other = loaded(tmp_path, SIMULATED + text, "other")
    assert other.table("simulation", SimulationSpec) == SimulationSpec(run_cv=0.5)


def test_a_table_that_a_file_leaves_out_is_the_backends_defaults(tmp_path: Path) -> None:
    system = loaded(tmp_path, LEAST.replace("local", "slurm"))
    assert system.table("slurm", SlurmSpec) == SlurmSpec()
    assert not system.simulated


def test_a_system_of_figures_has_no_backend(tmp_path: Path) -> None:
    text = LEAST.replace('kind = "local"\n', "").replace("[cluster]", f"{FIGURES}[cluster]")
    system = loaded(tmp_path, text)
    assert (system.figures, system.cluster.kind) == ("figures.toml", None)
    assert not system.simulated


@pytest.mark.parametrize("name", ["p5-efa", "local-cpu"])
def test_a_shipped_system_loads(name: str) -> None:
    assert load_system(name, SHIPPED).cluster.nodes == 4


def test_a_floor_is_the_systems_where_it_says_so() -> None:
    judgement = Judgement(floors={"mean_ttft_ms": 0.5})
    assert judgement.all_floors == {
        "mean_ttft_ms": 0.5,
        "p99_ttft_ms": 0.4,
        "mean_itl_ms": 0.04,
        "mean_tpot_ms": 0.04,
        "mean_e2el_ms": 0.04,
        "output_throughput": 0.04,
    }


@pytest.mark.parametrize(
    ("judgement", "promise"),
    [
        (Judgement(), 0.08),
        (Judgement(floors={"mean_itl_ms": 0.06}), 0.12),
        (Judgement(floors={"mean_itl_ms": 0.06}, sees={"mean_itl_ms": 0.07}), 0.07),
    ],
    ids=["twice the metric's floor", "twice the system's", "what the system says"],
)
def test_a_system_promises_to_see_a_change(judgement: Judgement, promise: float) -> None:
    assert judgement.promise("mean_itl_ms") == promise


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nodes = 2", "nodes = 0", "/cluster/nodes: 0 is less than the minimum of 1"),
        ("nodes = 2", 'nodes = "2"', "/cluster/nodes: '2' is not of type 'integer'"),
        ("nodes = 2\n", "", "/cluster: 'nodes' is a required property"),
        ('kind = "local"', 'kind = "k8s"', "/cluster/kind: 'k8s' is not a backend; known are"),
        ('kind = "local"', "kind = 7", "/cluster/kind: 7 is not of type 'string'"),
        (
            'kind = "local"\n',
            "",
            "/cluster: needs 'kind', one of local, slurm, attached, simulated, or the file needs "
            "'figures'",
        ),
        (
            '"m"',
            '"m"\n[simulation]\nnight = 3',
            "/simulation: is read where [cluster] kind is 'simulated', not 'local'; remove it",
        ),
        (
            'kind = "local"',
            'kind = "simulated"\nbind_host = "h"',
            "/cluster/bind_host: is not read where [cluster] kind is 'simulated'; remove it",
        ),
        ("schema_version = 1", "schema_version = 2", "/schema_version: 2, expected 1; "),
        ("[model]", "[network]", "/: 'model' is a required property"),
        (
            "[model]",
            "[network]\n[model]",
            "/: Additional properties are not allowed ('network'",
        ),
        ("[model]", "speed = 1\n[model]", "/cluster: Additional properties are not allowed"),
        ('path = "m"', 'path = ""', "/model/path: '' should be non-empty"),
        (
            '"m"',
            '"m"\n[ports]\nhttp = 70000',
            "/ports/http: 70000 is greater than the maximum of 65535",
        ),
        (
            '"m"',
            '"m"\n[env]\n"A B" = "1"',
            "/env: 'A B' does not match",
        ),
        (
            '"m"',
            '"m"\n[judgement.floors]\nmean_tfft_ms = 0.1',
            "/judgement/floors/mean_tfft_ms: is not a judged metric; these are mean_ttft_ms, "
            "p99_ttft_ms, mean_itl_ms, mean_tpot_ms, mean_e2el_ms, output_throughput",
        ),
        (
            '"m"',
            '"m"\n[judgement.floors]\nfailed = 0.1',
            "/judgement/floors/failed: is not a judged metric; these are mean_ttft_ms,",
        ),
        (
            '"m"',
            '"m"\n[judgement.sees]\np50_itl_ms = 0.1',
            "/judgement/sees/p50_itl_ms: is not a judged metric; these are mean_ttft_ms,",
        ),
        (
            '"m"',
            '"m"\n[judgement.floors]\nmean_ttft_ms = 0',
            "/judgement/floors/mean_ttft_ms: 0 is less than or equal to the minimum of 0",
        ),
        (
            '"m"',
            '"m"\n[judgement.floors]\nmean_ttft_ms = inf',
            "/judgement/floors/mean_ttft_ms: inf is greater than the maximum of 10",
        ),
        (
            '"m"',
            '"m"\n[judgement.rtol]\nmean_ttft_ms = 0.1',
            "/judgement: Additional properties are not allowed ('rtol' was unexpected)",
        ),
        (
            '"m"',
            '"m"\n[judgement]\nhost_envelopes = true',
            "/judgement: Additional properties are not allowed ('host_envelopes' was unexpected)",
        ),
        (
            '"m"',
            '"m"\n[judgement]\nmax_reruns = -1',
            "/judgement/max_reruns: -1 is less than the minimum of 0",
        ),
        (
            '"m"',
            '"m"\n[judgement]\nclaims = "warn"',
            "/judgement/claims: 'warn' is not one of ['enforce', 'report']",
        ),
        (
            '"m"',
            '"m"\n[sweep]\nlength_divisor = 3',
            "sweep.length_divisor = 3 does not divide length 512",
        ),
        ('"m"', '"m"\n[sweep]\ninput_lens = []', "/sweep/input_lens: [] should be non-empty"),
        ('"m"', '"m"\n[limits]\nready_s = nan', "holds nan, expected a number"),
        ('path = "m"', "path = m", "is not valid TOML: Invalid value (at line 9, column 8)"),
        (
            '"m"',
            f'"m"\n[limits]\nready_s = {"9" * 400}',
            "/limits/ready_s: an integer of 1329 bits",
        ),
        ("nodes = 2", "nodes = 2.0", "/cluster/nodes: 2.0 is not of type 'integer'"),
        ("nodes = 2", "nodes = 10001", "/cluster/nodes: 10001 is greater than the maximum of"),
        ('"m"', '"m"\n[sweep]\ndataset = "a/../b"', "/sweep/dataset: 'a/../b' does not match"),
        ('"m"', '"m"\n[sweep]\nrequest_rate = 1e-320', "/sweep/request_rate: 1e-320 is less than"),
        ("nodes = 2", f"nodes = {'9' * 5000}", "is not valid TOML: Exceeds the limit"),
        ('"m"', f'"m"\nserve_args = {"[" * 3000}', "is not valid TOML: nested too deeply"),
    ],
    ids=[
        *("number too small", "wrong type", "missing key", "unknown kind", "no kind", "kind 7"),
        *("table of another", "key of another", "other version"),
        *("renamed table", "unknown table", "unknown key", "empty text", "no port", "no variable"),
        *("unknown metric", "floor of a count", "promise of a metric that is shown", "no floor"),
        *("endless floor", "room of before", "host envelopes of before", "reruns", "claims"),
        *(
            "divisor",
            "empty list",
            "nan",
            "no TOML",
            "400 digits",
            "float",
            "10001 nodes",
            "dataset",
        ),
        *("rate", "endless number", "deep"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in LEAST
    assert message in refused(tmp_path, LEAST.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "bad_node_factor = inf",
            "/simulation/bad_node_factor: inf is greater than the maximum of 1000",
        ),
        (
            "night = 99999\ndrift_per_night = 0.01",
            ": simulation.night = 99999 with drift_per_night = 0.01 is more than 1000 times slower",
        ),
        ("speed = 1", "/simulation: Additional properties are not allowed ('speed' was"),
        ("seed = 1.0", "/simulation/seed: 1.0 is not of type 'integer'"),
        (f"seed = {2**70}", "/simulation/seed: an integer of 71 bits, expected at most 64"),
    ],
    ids=["factor", "drift", "unknown key", "type", "71 bits"],
)
def test_a_mistake_in_a_backends_own_table_is_named_as_any_other(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in refused(tmp_path, f"{SIMULATED}[simulation]\n{text}\n")


@pytest.mark.parametrize("table", ["slurm", "preflight", "simulation", "attached"])
def test_a_system_of_figures_has_no_table_of_any_backend(tmp_path: Path, table: str) -> None:
    text = LEAST.replace('kind = "local"\n', "").replace("[cluster]", f"{FIGURES}[cluster]")
    assert f"/{table}: " in refused(tmp_path, f"{text}[{table}]\n")


def test_a_folder_in_place_of_the_file_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "p5-efa" / "system.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"system\.toml cannot be read: Is a directory"):
        load_system("p5-efa", [tmp_path, *SHIPPED])


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "system.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 0"):
        load_system("mine", [tmp_path])


@pytest.mark.parametrize(
    "name", ["h200-ib", "", "x" * 5000, "a\0b"], ids=["a", "no", "long", "nul"]
)
def test_an_unknown_system_lists_the_known(tmp_path: Path, name: str) -> None:
    loaded(tmp_path, LEAST)
    with pytest.raises(ConfigError) as refused:
        load_system(name, [tmp_path, *SHIPPED])
    known = ", ".join(sorted(["mine", *(f.name for f in SHIPPED[0].iterdir() if f.is_dir())]))
    assert f"system {name!r} is unknown; known are {known} (" in str(refused.value)
    assert f"{tmp_path}/<system>/system.toml" in str(refused.value)


def test_a_projects_own_systems_come_before_the_shipped(tmp_path: Path) -> None:
    assert baseline_folders(tmp_path) == SHIPPED
    (tmp_path / "baselines").mkdir()
    assert baseline_folders(tmp_path) == (tmp_path / "baselines", *SHIPPED)


def test_a_system_is_measured_or_its_figures_are_judged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, LEAST.replace("schema_version = 1\n", f"schema_version = 1\n{FIGURES}"))
    assert "/figures: is read where [cluster] has no 'kind'" in str(caught.value)
