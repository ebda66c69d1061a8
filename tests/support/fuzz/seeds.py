"""The project that is changed: one of each input file, each of which is right."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.fuzz.world import World

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data"
UNIT = ROOT / "tests" / "unit" / "data"
SMALL = """
[sweep]
input_lens = [16, 32]
output_lens = [4]
num_prompts = 4
"""
LOCAL = """schema_version = 1
description = "this machine"
tensor_parallel = 1
pass_env = ["HF_TOKEN"]
[cluster]
kind = "local"
nodes = 4
gpus_per_node = 1
shared_host = true
memory_per_instance_gib = 0.5
bind_host = "127.0.0.1"
[ports]
http = 27000
span = 100
[model]
path = "model"
serve_args = ["--max-model-len", "8192"]
[model.decode]
env = { A = "1" }
[kv_transfer]
backend = "UCX"
buffer_device = "cpu"
[kv_transfer.extra_config]
kv_lease_duration = 30
[limits]
ready_s = 30
[programs]
vllm = "no-such-vllm"
router = "no-such-router"
[router]
args = ["--log-level", "warn"]
[bench]
args = ["--tokenizer", "model"]
[env]
OMP_NUM_THREADS = "1"
[judgement]
host_references = true
max_reruns = 3
[judgement.floors]
mean_ttft_ms = 0.2
[sanity]
max_preemptions_per_request = 0.2
[sweep]
input_lens = [16]
output_lens = [4]
num_prompts = 4
request_rate = 8.0
burstiness = 0.5
max_concurrency = 4
repeats = 2
options = { "random-range-ratio" = "0.5" }
"""
CONTAINED = """schema_version = 1
description = "containers"
[cluster]
kind = "local"
nodes = 2
gpus_per_node = 8
[model]
path = "org/model"
[container]
kind = "docker"
image = "nixl:latest"
mounts = ["/data:/data:ro"]
ulimits = ["memlock=-1"]
gpus = "0,1"
args = ["--shm-size", "1g"]
"""
ATTACHED = """schema_version = 1
description = "servers of others"
[cluster]
kind = "attached"
nodes = 4
gpus_per_node = 1
[model]
path = "model"
[attached]
base_url = "http://127.0.0.1:9"
model = "house/model"
instance_urls = ["prefill=http://127.0.0.1:9", "decode=http://127.0.0.1:10"]
"""
EXPECTED = """schema_version = 1
[[expected]]
until = 9999-12-31
owner = "ann"
reason = "vllm#1"
topologies = ["dp"]
cells = ["16-4"]
metrics = ["mean_itl_ms"]
max_worse = 0.2
"""
SELFTEST = "night,cell,start,run,metric,value,version\n" + "".join(
    f"2026-10-{day:02},a,{start},0,mean_itl_ms,{10 + day % 3 + start / 10},0.15.1\n"
    for day in range(1, 8)
    for start in range(3)
)
SYSTEMS = {
    "real": LOCAL,
    "cont": CONTAINED,
    "att": ATTACHED,
}
SHIPPED = ("p5-efa", "onehost-slurm", "local-cpu", "article", "simulated")
OLD = ("baseline-1.json", "baseline-2.json", "record-1-measured.json", "record-1-simulated.json")


def make_template(world: World) -> None:
    """Write the project, with two nights measured, a proposal, and imported records."""
    project = world.template
    done = world.pdserve("init", str(project), allowed=(f"{project}/", str(project)))
    assert done.code == 0, done
    own = project / "baselines" / "mine" / "system.toml"
    text = own.read_text()
    start = text.index("[sweep]")
    own.write_text(text[:start] + SMALL + text[text.index("[judgement]", start) :])
    test = project / "suites" / "test_mine.py"
    test.write_text(
        test.read_text().replace(
            "2048, output_len=64, num_prompts=128", "8, output_len=4, num_prompts=2"
        )
    )
    claims = project / "suites" / "claims.toml"
    claims.write_text(claims.read_text().replace("output_lens = [512]", "output_lens = [4]"))
    for name, content in SYSTEMS.items():
        _write(project / "baselines" / name / "system.toml", content)
    for name in SHIPPED:
        shutil.copytree(ROOT / "baselines" / name, project / "baselines" / f"my-{name}")
    _add_inputs(project)
    _measure(world)


def _add_inputs(project: Path) -> None:
    results = [*(DATA / "formats").iterdir(), *(UNIT / "bench").glob("*.json")]
    results += (DATA / "cases" / "import").iterdir()
    for path in results:
        if path.is_file() and path.stat().st_size < 300_000:
            _write(project / "imports" / path.name, path.read_text())
    _write(project / "series" / "runs.csv", _head(DATA / "gpu_four_h200_five_starts.csv", 40))
    _write(project / "series" / "nights.csv", SELFTEST)
    for name in OLD:
        _write(project / "old" / name, (UNIT / "versions" / name).read_text())


def _measure(world: World) -> None:
    """Measure the system in the project itself, and take back what that wrote."""
    world.begin()
    project = world.project
    for _ in range(2):
        done = world.pytest("suites", "--pdserve-first-runs", "1", "-q")
        assert done.code == 0, done
    _write(project / "baselines" / "mine" / "expected.toml", EXPECTED)
    for argv in (
        ("baseline", "propose"),
        (
            "import",
            "--system",
            "real",
            "--topology",
            "dp",
            "--dataset",
            "random",
            *_imported(project),
        ),
    ):
        done = world.pdserve(*argv)
        assert done.code == 0, done
    shutil.rmtree(world.template)
    shutil.copytree(project, world.template)


def _imported(project: Path) -> tuple[str, ...]:
    return (str(project / "imports" / "vllm_bench_serve_2026-07_plain.json"),)


def _head(path: Path, lines: int) -> str:
    return "".join(path.read_text().splitlines(keepends=True)[:lines])


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
