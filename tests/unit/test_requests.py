"""One row per request, once: small, in whole microseconds, without prompts or texts."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.results.requests import read_requests
from pytest_pdserve.results.requests import requests_bytes
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.result import BenchResult

MakeResult = Callable[..., BenchResult]
LIMIT_MB = 6


def stored(result: BenchResult, folder: Path) -> Path:
    path = folder / "x.requests.parquet"
    path.write_bytes(requests_bytes(result))
    return path


def test_a_request_is_what_the_client_saw_to_the_microsecond(
    make_result: MakeResult, tmp_path: Path
) -> None:
    result = make_result(
        ttft_s=(0.1234567, 0.2, math.nan, 0.4),
        itl_s=((0.01, 0.0200004), (), (), (1.5,)),
        output_lens=(3, 1, 0, 2),
        start_s=(100.25, 100.0, 101.0, 102.0),
        errors=("", "", "refused", ""),
    )
    frame = read_requests(stored(result, tmp_path))
    assert list(frame.columns) == [
        "input_tokens",
        "output_tokens",
        "start_us",
        "queue_us",
        "ttft_us",
        "itl_us",
        "answer_digest",
        "error",
    ]
    assert frame["start_us"].tolist() == [250_000, 0, 1_000_000, 2_000_000]
    assert frame["ttft_us"].fillna(-1).tolist() == [123_457, 200_000, -1, 400_000]
    assert [list(gaps) for gaps in frame["itl_us"]] == [[10_000, 20_000], [], [], [1_500_000]]
    assert frame["error"].fillna("").tolist() == ["", "", "refused", ""]


def test_lists_that_a_client_does_not_write_are_null(
    make_result: MakeResult, tmp_path: Path
) -> None:
    result = make_result(start_s=(), itl_s=(), errors=())
    frame = read_requests(stored(result, tmp_path))
    assert frame[["start_us", "itl_us", "error"]].isna().all().all()
    assert frame["output_tokens"].tolist() == [256] * 4


def test_a_gpu_sweep_of_8_cells_takes_little_room(make_result: MakeResult) -> None:
    """128 prompts a cell, gaps that differ by 10 %: 42 MB as the client's JSON and floats."""
    rng = random.Random(1)
    outputs = (256, 256, 256, 256, 512, 1024, 2048, 4096)
    total = sum(
        len(
            requests_bytes(
                dataclasses.replace(
                    make_result(),
                    ttft_s=tuple(rng.lognormvariate(-2, 0.5) for _ in range(128)),
                    itl_s=tuple(
                        tuple(0.005 * rng.lognormvariate(0, 0.1) for _ in range(tokens - 1))
                        for _ in range(128)
                    ),
                    input_lens=(512,) * 128,
                    output_lens=(tokens,) * 128,
                    start_s=tuple(100 + n * 1e-4 for n in range(128)),
                    errors=("",) * 128,
                )
            )
        )
        for tokens in outputs
    )
    assert 0 < total < LIMIT_MB * 1_000_000


def test_a_file_that_is_no_table_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.requests.parquet"
    path.write_text("torn")
    with pytest.raises(ConfigError, match=f"{path} cannot be read as parquet"):
        read_requests(path)
