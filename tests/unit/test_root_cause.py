"""Why a server failed, as its log tells it: the first error of its innermost process."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve.backends.allocation import exit_text
from pytest_pdserve.backends.allocation import failure_text
from pytest_pdserve.backends.allocation import log_cause
from pytest_pdserve.backends.allocation import log_size
from pytest_pdserve.values.handshakes import Difference
from pytest_pdserve.values.handshakes import differences
from pytest_pdserve.values.handshakes import engine_facts
from pytest_pdserve.values.handshakes import is_engine
from pytest_pdserve.values.handshakes import refused_engine
from pytest_pdserve.values.root_cause import KILLED_SILENTLY
from pytest_pdserve.values.root_cause import RootCause
from pytest_pdserve.values.root_cause import find_root_cause

LOGS = Path(__file__).parents[1] / "data" / "logs"


def read(name: str) -> list[str]:
    return (LOGS / f"{name}.txt").read_text(encoding="utf-8").split("\n")


def told(text: str) -> tuple[str, str] | None:
    """Process and words of the cause that a log of a few lines tells."""
    cause = find_root_cause(text.split("\n"))
    return None if cause is None else (cause.process, cause.text)


@pytest.mark.parametrize(
    ("name", "process", "line", "text"),
    [
        (
            "built_0.11_cuda_out_of_memory_tp2",
            "Worker_TP1",
            4,
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a "
            "total capacity of 79.10 GiB of which 1.25 GiB is free.",
        ),
        (
            "built_0.9_memory_in_use",
            "",
            3,
            "ValueError: Free memory on device (30.11/79.10 GiB) on startup is less than desired "
            "GPU memory utilization (0.9, 71.19 GiB). Decrease GPU memory utilization or reduce "
            "GPU memory used by other processes.",
        ),
        (
            "built_0.26_model_not_in_the_cache",
            "APIServer",
            2,
            "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach the hub for "
            "example/model-7b: offline mode is enabled.; then OSError: example/model-7b is not a "
            "local folder and its config.json is not in the cache.",
        ),
        (
            "built_slurm_oom_kill",
            "",
            4,
            "slurmstepd: error: Detected 1 oom_kill event in StepId=812.4. Some of the step tasks "
            "have been OOM Killed.",
        ),
        (
            "seen_0.32_unknown_argument",
            "",
            4,
            "vllm: error: unrecognized arguments: --max-modle-len 5",
        ),
        (
            "seen_0.32_model_not_found",
            "",
            2,
            "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or "
            "'namespace/repo_name': '/no/such/model'. Use `repo_type` argument if needed.",
        ),
        ("seen_0.32_port_in_use", "", 2, "OSError: [Errno 98] Address already in use"),
        (
            "seen_0.32_nixl_backend_missing",
            "Worker",
            17,
            "nixl_cu13._bindings.nixlNotFoundError: NIXL_ERR_NOT_FOUND; before it: createBackend: "
            "unsupported backend 'LIBFABRIC'",
        ),
        (
            "seen_0.32_memory_too_small",
            "Worker",
            11,
            "ValueError: Available memory on node 0 (13.97/15.84 GiB) on kv cache allocation is "
            "less than requested memory for kv (1000.0 GiB). Decrease --kv-cache-memory-bytes, "
            "VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes.",
        ),
        (
            "seen_0.32_worker_killed",
            "EngineCore",
            1,
            "Worker proc VllmWorker-0 died unexpectedly (exit code: None), shutting down executor.",
        ),
        ("seen_0.32_engine_killed", "APIServer", 26, KILLED_SILENTLY),
        (
            "seen_router_port_in_use",
            "",
            9,
            "pyo3_runtime.PanicException: failed to install Prometheus metrics exporter: "
            'FailedToCreateHTTPListener("Address already in use (os error 98)")',
        ),
    ],
)
def test_the_cause_is_the_first_error_of_the_innermost_process(
    name: str, process: str, line: int, text: str
) -> None:
    cause = find_root_cause(read(name))
    assert cause is not None
    assert (cause.process, cause.line, cause.text) == (process, line, text)


def test_an_error_with_details_below_it_is_told_with_the_first_of_them() -> None:
    cause = find_root_cause(read("seen_0.32_max_model_len"))
    assert cause is not None
    assert cause.text.startswith(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig Value "
        "error, User-specified max_model_len (999999) is greater than the derived max_model_len"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stub: decode-0 starts\nstub: no such device",
        "(EngineCore pid=2) INFO 11-27 12:00:00 [core.py:1] no error here",
        "(Worker pid=3) WARNING 11-27 12:00:00 [x.py:1] could cause `OSError: [Errno 24]`",
        "W1127 12:00:00.000000 7 torch/_library/triton.py:53] Triton not available",
        "2026-11-27 12:00:00  INFO vllm_router_rs::server: retries after ERROR: 3",
    ],
    ids=["empty", "output", "information", "a warning", "a native warning", "the router's words"],
)
def test_a_log_without_an_error_tells_no_cause(text: str) -> None:
    assert told(text) is None


OLD = "(APIServer pid=1) ERROR 11-27 11:58:00 [serving.py:9] a request was refused"
DEATH = "(APIServer pid=1) ERROR 11-27 12:00:00 [launcher.py:9] out of file descriptors"


def test_what_was_survived_long_before_is_no_cause() -> None:
    assert told(f"{OLD}\n{DEATH}") == ("APIServer", "out of file descriptors")


def test_the_first_of_errors_close_together_is_the_cause() -> None:
    assert told(f"{OLD.replace('11:58', '11:59')}\n{DEATH}") == (
        "APIServer",
        "a request was refused",
    )


@pytest.mark.parametrize(
    "between",
    ["", "(APIServer pid=1) INFO 11-27 12:00:00 [x.py:1] a request was answered\n"],
    ids=["right after it", "after other lines"],
)
def test_records_of_one_place_are_kept_apart(between: str) -> None:
    again = DEATH.replace("launcher", "serving")
    assert told(f"{OLD}\n{between}{again}") == ("APIServer", "out of file descriptors")


def test_a_worker_that_logs_elsewhere_is_quoted_by_its_engine() -> None:
    text = (
        "(EngineCore_DP0 pid=2) ERROR 11-27 12:00:00 [core.py:1] RuntimeError: Worker failed with "
        "error 'NCCL error: unhandled system error', please check the stack trace above for the "
        "root cause"
    )
    assert told(text) == ("EngineCore_DP0", "NCCL error: unhandled system error")


def test_prefixes_of_other_frameworks_and_colours_are_passed_over() -> None:
    text = (
        "(Serve pid=9) \x1b[0;36m(Worker_TP3 pid=7)\x1b[0;0m \x1b[31mERROR\x1b[0m "
        "11-27 12:00:00 [x.py:1] NCCL error"
    )
    assert told(text) == ("Worker_TP3", "NCCL error")


def test_lines_of_workers_that_log_at_once_are_kept_apart() -> None:
    def line(rank: int, text: str) -> str:
        return f"(Worker_TP{rank} pid={rank}) ERROR 11-27 12:00:00 [x.py:1] {text}"

    both = [line(n, text) for text in ("Traceback (most recent call last):",) for n in (0, 1)]
    both += [line(n, '  File "x.py", line 1, in run') for n in (0, 1)]
    both += [line(1, "ValueError: one"), line(0, "ValueError: zero")]
    assert told("\n".join(both)) == ("Worker_TP0", "ValueError: zero")


def test_a_progress_bar_before_an_error_is_passed_over() -> None:
    assert told("Loading:  40%|####\rvllm: error: no such file\r") == (
        "",
        "vllm: error: no such file",
    )


DECODE, PREFILL = (f"seen_0.32_handshake_{role}" for role in ("decode", "prefill"))


def test_a_refused_handshake_names_the_engine_of_the_other_instance() -> None:
    engine = refused_engine(read(DECODE))
    assert engine == "03c7c97c-5819-4f7e-9262-92275f6e8bde"
    assert is_engine(engine, read(PREFILL))
    assert is_engine(f"{engine}_dp1", read(PREFILL))
    assert not is_engine(engine, read(DECODE))


def test_a_log_without_a_handshake_that_failed_names_no_engine() -> None:
    assert refused_engine(read(PREFILL)) is None


def test_instances_differ_in_what_their_logs_say() -> None:
    assert differences(engine_facts(read(DECODE)), engine_facts(read(PREFILL))) == [
        Difference(fact="dtype", here="bfloat16", there="float32")
    ]


STARTED = """\
(APIServer pid=1) INFO 11-27 12:00:00 [u.py:1] non-default args: {'port': 1, 'block_size': 32}
(EngineCore pid=2) INFO 11-27 12:00:01 [core.py:1] Initializing a V1 LLM engine (v0.26.0) with \
config: model='/m', speculative_config=None, tokenizer='/m', dtype=torch.bfloat16, \
quantization=fp8, kv_cache_dtype=fp8
(Worker pid=3) INFO 11-27 12:00:02 [w.py:1] Detected attention backend(s) ['FLASH_ATTN_MLA']
"""


@pytest.mark.parametrize(
    ("fact", "before", "after"),
    [
        ("vLLM version", "v0.26.0", "v0.26.1"),
        ("model", "model='/m'", "model='/other'"),
        ("dtype", "torch.bfloat16", "torch.float16"),
        ("quantization", "quantization=fp8", "quantization=None"),
        ("KV cache dtype", "kv_cache_dtype=fp8", "kv_cache_dtype=auto"),
        ("speculative decoding", "speculative_config=None", "speculative_config=eagle"),
        ("attention backend", "FLASH_ATTN_MLA", "TRITON_MLA"),
        ("block size", "'block_size': 32", "'block_size': 64"),
    ],
)
def test_each_fact_of_a_handshake_is_seen_to_differ(fact: str, before: str, after: str) -> None:
    there = engine_facts(STARTED.replace(before, after).split("\n"))
    assert [each.fact for each in differences(engine_facts(STARTED.split("\n")), there)] == [fact]


def test_a_fact_that_one_does_not_say_is_not_set() -> None:
    here, there = {"block size": "32"}, dict[str, str]()
    assert differences(here, there) == [Difference(fact="block size", here="32", there="not set")]


def test_a_log_file_tells_its_cause_and_place_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    log = tmp_path / "decode-0.log"
    log.write_text("starts\nvllm: error: bad token hf_abcdefghijklmnop\n")
    said = failure_text(log)
    assert said.startswith(f"the cause is in line 2 of {log}: vllm: error: bad token ")
    assert "hf_abcdefghijklmnop" not in said


def test_a_log_file_without_a_cause_is_shown_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "decode-0.log"
    log.write_text("starts\nno such device\n")
    assert failure_text(log) == f"{log} ends:\nstarts\nno such device"


def test_only_what_was_logged_since_is_looked_at(tmp_path: Path) -> None:
    log = tmp_path / "decode-0.log"
    log.write_text("vllm: error: first\n")
    before = log_size(log)
    assert log_cause(log, before) is None
    with log.open("a") as file:
        file.write("vllm: error: second\n")
    assert log_cause(log, before) == RootCause(
        process="", text="vllm: error: second", line=2, depth=1
    )


def test_a_log_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    log = tmp_path / "decode-0.log"
    assert log_size(log) == 0
    assert log_cause(log) is None
    assert failure_text(log) == f"{log} ends:\n({log} cannot be read: No such file or directory)"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "exited with code 1"),
        (-9, "was ended by signal 9 (SIGKILL)"),
        (-77, "was ended by signal 77"),
    ],
)
def test_exit_codes_are_told_in_words(code: int, text: str) -> None:
    assert exit_text(code) == text
