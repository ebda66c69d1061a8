"""Commands of the benchmark client: every word of every argument list counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from pytest_pdserve.plan.bench import bench_command
from pytest_pdserve.plan.bench import bench_timeout
from pytest_pdserve.plan.command import Command
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import BenchSpec
from pytest_pdserve.values.system import Limits
from pytest_pdserve.values.system import System
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Workload

MODEL = "/fsx/models/deepseek-ai/DeepSeek-V2-Lite"
WORKLOAD = Workload(input_len=512, output_len=256, num_prompts=1024)
SHAREGPT = Workload(
    dataset="sharegpt",
    num_prompts=1024,
    options={"dataset-path": "/data/s.json", "disable-shuffle": ""},
)


def bench(workload: Workload, system: System, repeat: int = 0) -> Command:
    return bench_command(
        workload,
        system,
        "vllm-command",
        node="node0",
        base_url="http://node0:8001",
        seed=workload.seed(repeat),
        result=PurePosixPath("/runs/r/1p3d/random-512-256.0.bench.json"),
    )


def asked(dataset: str, load: str, seed: int) -> str:
    return (
        f"vllm bench serve --base-url http://node0:8001 --model {MODEL} --dataset-name {dataset}"
        f" {load} --seed {seed} --ignore-eos --disable-tqdm"
        " --percentile-metrics ttft,itl,tpot,e2el --metric-percentiles 50,90,99"
        " --save-result --save-detailed"
        " --result-dir /runs/r/1p3d --result-filename random-512-256.0.bench.json"
    )


RANDOM = "--random-input-len 512 --random-output-len 256"


@pytest.mark.parametrize(
    ("workload", "dataset", "load"),
    [
        (WORKLOAD, "random", f"{RANDOM} --num-prompts 1024"),
        (
            replace(WORKLOAD, request_rate=2.5, max_concurrency=64),
            "random",
            f"{RANDOM} --num-prompts 1024 --request-rate 2.5 --max-concurrency 64",
        ),
        (
            replace(WORKLOAD, request_rate=0.25, burstiness=0.5),
            "random",
            f"{RANDOM} --num-prompts 1024 --request-rate 0.25 --burstiness 0.5",
        ),
        (
            # The client takes nothing but whole numbers here.
            replace(WORKLOAD, ramp_up=RampUp(strategy="linear", start_rps=1, end_rps=10)),
            "random",
            f"{RANDOM} --num-prompts 1024"
            " --ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 10",
        ),
        (
            SHAREGPT,
            "sharegpt",
            "--dataset-path /data/s.json --disable-shuffle --num-prompts 1024",
        ),
        (
            replace(WORKLOAD, dataset="sonnet", options={"sonnet-prefix-len": "200"}),
            "sonnet",
            "--sonnet-input-len 512 --sonnet-output-len 256 --sonnet-prefix-len 200"
            " --num-prompts 1024",
        ),
    ],
    ids=[
        *("the article's", "rate and bound", "burstiness", "ramp-up"),
        *("own lengths", "lengths of another"),
    ],
)
def test_the_clients_command(workload: Workload, dataset: str, load: str, p5_efa: System) -> None:
    command = bench(workload, p5_efa)
    assert " ".join(command.argv) == asked(dataset, load, workload.seed(0))
    assert (command.env, command.secrets) == ((), ("OPENAI_API_KEY",))


def test_the_client_stays_offline_where_the_servers_do(local_cpu: System) -> None:
    assert bench(WORKLOAD, local_cpu).env == (("HF_HUB_OFFLINE", "1"),)


def test_every_repeat_asks_other_prompts(p5_efa: System) -> None:
    assert bench(WORKLOAD, p5_efa, 0).argv != bench(WORKLOAD, p5_efa, 1).argv


@pytest.mark.parametrize(
    ("workload", "seconds"),
    [
        (WORKLOAD, 120 + 786432 / 50),
        (replace(WORKLOAD, request_rate=8.0), 120 + 128 + 786432 / 50),
        (SHAREGPT, 120 + 1024 * 2048 / 50),
    ],
    ids=["all at once", "at a rate", "own lengths"],
)
def test_a_client_is_given_time_for_the_work_asked(workload: Workload, seconds: float) -> None:
    assert bench_timeout(workload, Limits()) == seconds


def test_a_load_of_which_something_is_unknown_is_never_run(p5_efa: System) -> None:
    with pytest.raises(ConfigError) as refused:
        bench(replace(WORKLOAD, options=UNKNOWN), p5_efa)
    assert str(refused.value) == (
        "workload random-512-256-n1024+unknown cannot be run: unknown are options"
    )


def test_a_system_files_own_words_come_last(p5_efa: System) -> None:
    system = replace(p5_efa, bench=BenchSpec(args=("--temperature", "0")))
    assert bench(WORKLOAD, system).argv[-2:] == ("--temperature", "0")
