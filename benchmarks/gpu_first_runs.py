"""Compares the first run after a start with the next ones, on GPUs, with and without warm load.

Runs this checkout's sweep suite on a host with GPUs, each topology on servers of its own: the
full-size shape of DeepSeek-V2-Lite with random weights, several runs of each cell on the same
servers. Needs vLLM, NIXL and vllm-router on PATH and a folder with the model's configuration.
Prints throughput, TTFT and ITL of each run, and the first as a share of the median of the others.

    python benchmarks/gpu_first_runs.py MODEL route4,1p3d --nodes 4 --runs 4 [--cold] [--limit 500]

``--cold`` leaves the warm load out, for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
METRICS = ("output_throughput", "mean_ttft_ms", "mean_itl_ms", "mean_e2el_ms")
ONE_GPU_EACH = """\
#!/bin/bash
# A GPU of its own for each `serve`, by a lock that the process holds.
if [ "$1" = serve ]; then
  for gpu in 0 1 2 3 4 5 6 7; do
    exec 9>/tmp/gpu$gpu.lock
    if flock -n 9; then export CUDA_VISIBLE_DEVICES=$gpu; break; fi
  done
fi
exec python3 -m vllm.entrypoints.cli.main "$@"
"""
SYSTEM = """\
schema_version = 1
description = "one host with GPUs, one GPU a node; random weights"
[cluster]
kind = "local"
nodes = {nodes}
gpus_per_node = 1
bind_host = "127.0.0.1"
[ports]
http = 21000
side_channel = 23000
rpc = 25000
[model]
path = "{model}"
serve_args = ["--load-format", "dummy", "--gpu-memory-utilization", "0.9", "--max-model-len",
  "8192", "--no-enable-log-requests", "--cudagraph-capture-sizes", "1", "2", "4", "8", "16", "32",
  "64", "128", "256", "512"{more}]
[programs]
vllm = "{vllm}"
[kv_transfer]
backend = "UCX"
[limits]
ready_s = 400
[sweep]
input_lens = {inputs}
output_lens = [256]
num_prompts = {prompts}
[bench]
args = ["--temperature", "0"]
[judgement]
host_references = true
claims = "report"
[judgement.floors]
{floors}
[env]
HF_HUB_OFFLINE = "1"
VLLM_NO_USAGE_STATS = "1"
VLLM_USE_FLASHINFER_SAMPLER = "0"
"""
COLD = """
from pytest_pdserve.serving.deployment import Deployment
Deployment.warm_for = lambda self, workload: {}
"""


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("topologies")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--input-lens", default="512")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--serve-args", default="", help="further words for vllm serve")
    parser.add_argument("--limit", type=float, default=500, help="seconds for all")
    parser.add_argument("--keep", type=Path, help="where records and logs go")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gpu-first-"))
    runs = asked.keep or folder / "runs"
    prepare(folder, asked)
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "pytest_pdserve.plugin.hooks", "-q", "-rs"]
    command += ["-p", "no:cacheprovider", "suites", "--system", "gpus", "--topology"]
    command += [asked.topologies, "--pdserve-repeats", str(asked.runs)]
    command += ["--pdserve-first-runs", "1"]
    command += ["--pdserve-runs", str(runs.absolute())]
    try:
        code = subprocess.run(command, cwd=folder, env=env, timeout=asked.limit, check=False)
        say(f"pytest exits {code.returncode}")
    except subprocess.TimeoutExpired:
        say(f"not done within {asked.limit:.0f} s")
    for path in sorted(runs.glob("*/*/*.requests.parquet")):
        path.unlink()
    return table(runs)


def prepare(folder: Path, asked: argparse.Namespace) -> None:
    """Write a project whose system is this host."""
    vllm = folder / "one_gpu_each"
    vllm.write_text(ONE_GPU_EACH)
    vllm.chmod(0o755)
    judged = ["mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "mean_tpot_ms", "mean_e2el_ms"]
    floors = [f"{name} = 1.0" for name in (*judged, "output_throughput")]
    more = "".join(f', "{word}"' for word in asked.serve_args.split())
    system = folder / "baselines" / "gpus" / "system.toml"
    system.parent.mkdir(parents=True)
    system.write_text(
        SYSTEM.format(
            nodes=asked.nodes,
            model=asked.model,
            vllm=vllm,
            inputs=[int(length) for length in asked.input_lens.split(",")],
            prompts=asked.prompts,
            floors="\n".join(floors),
            more=more,
        )
    )
    for name in ("smoke", "sweep"):
        suite = folder / "suites" / name
        suite.mkdir(parents=True)
        source = ROOT / "suites" / name / f"test_{name}.py"
        (suite / source.name).write_text(source.read_text())
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    if asked.cold:
        (folder / "conftest.py").write_text(COLD)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def table(runs: Path) -> int:
    """Print each run, and how the first compares with the median of the others."""
    cells: dict[tuple[str, str], list[dict[str, float]]] = {}
    for path in sorted(runs.glob("*/*/*.record.json")):
        record = json.loads(path.read_text())
        key = (record["topology"], record["workload"]["input_len"])
        cells.setdefault(key, []).append({**record["metrics"], "repeat": record["repeat"]})
        metrics = {name: record["metrics"].get(name) for name in METRICS}
        said = " ".join(f"{n} {'-' if v is None else f'{v:.1f}'}" for n, v in metrics.items())
        stalls = max((c["stall_s"] or 0.0 for c in record["served"]), default=0.0)
        say(f"{key[0]} {key[1]} run {record['repeat']}: {said}; longest stall {stalls:.1f} s")
        say(f"  warm load {record['warm_load']} timings {record['timings_s']}")
        say(f"  node {record['client_node']}")
        for finding in record["findings"]:
            say(f"  {finding['severity']} {finding['check']}: {finding['message']}")
    for key, found in cells.items():
        found.sort(key=lambda each: each["repeat"])
        rest = found[1:]
        if rest:
            shares = (
                f"{name} {found[0][name] / statistics.median(run[name] for run in rest):.3f}"
                for name in METRICS
                if all(name in run for run in found)
            )
            say(f"{key[0]} {key[1]}: first run / median of {len(rest)}: {', '.join(shares)}")
    return 0 if cells else 1


if __name__ == "__main__":
    sys.exit(main())
