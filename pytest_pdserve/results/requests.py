"""Parquet files with one row per request of a run.

Times are whole microseconds; the gaps between chunks are one column of lists. Prompts and texts are
not stored.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.result import BenchResult

MICRO = 1_000_000


def requests_table(result: BenchResult) -> Any:
    """Return a pyarrow table with a row per request.

    Columns: ``input_tokens``, ``output_tokens`` int64; ``start_us`` int64, since the first request
    was sent, and ``queue_us`` int64, how long the client delayed it, null if the client
    does not report it; ``ttft_us`` int64, null where the client has none; ``itl_us`` list of int64;
    ``answer_digest`` string, a digest of the text, null where there was none; ``error`` string,
    null where the request completed.
    """
    import pyarrow as pa

    count = len(result.output_lens)
    began = min((start for start in result.start_s if not math.isnan(start)), default=0.0)
    starts = [start - began for start in result.start_s] or [math.nan] * count
    return pa.table(
        {
            "input_tokens": pa.array(result.input_lens or [None] * count, pa.int64()),
            "output_tokens": pa.array(result.output_lens, pa.int64()),
            "start_us": _micros(starts),
            "queue_us": _micros(result.queue_s or [math.nan] * count),
            "ttft_us": _micros(result.ttft_s or [math.nan] * count),
            "itl_us": _micros_of_lists(result.itl_s)
            if result.itl_s
            else pa.array([None] * count, pa.list_(pa.int64())),
            "answer_digest": pa.array(
                [digest or None for digest in result.answer_digests] or [None] * count, pa.string()
            ),
            "error": pa.array(
                [text or None for text in result.errors] or [None] * count, pa.string()
            ),
        }
    )


def requests_bytes(result: BenchResult) -> bytes:
    """Return the parquet file of :func:`requests_table`."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(requests_table(result), buffer, compression="zstd", compression_level=9)
    return buffer.getvalue()


def read_requests(path: Path) -> Any:
    """Return the pandas frame of a run's requests, with the columns of :func:`requests_table`.

    :raises ConfigError: if the file is missing or not such a table.
    """
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as parquet: {error}") from error


def _micros(seconds: Iterable[float]) -> Any:
    """Return a pyarrow array of int64, microseconds; NaN is null."""
    import numpy as np
    import pyarrow as pa

    values = np.fromiter(seconds, float)
    unknown = np.isnan(values)
    whole = np.rint(np.where(unknown, 0.0, values) * MICRO).astype(np.int64)
    return pa.array(whole, pa.int64(), mask=unknown)


def _micros_of_lists(rows: Sequence[Sequence[float]]) -> Any:
    """Return a pyarrow array of lists of int64, microseconds; NaN is null."""
    import numpy as np
    import pyarrow as pa

    ends = np.cumsum([0, *map(len, rows)])
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), _micros(itertools.chain.from_iterable(rows))
    )
