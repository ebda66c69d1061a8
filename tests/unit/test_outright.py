"""A change so large that one run is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_pdserve.judge.outright import outright_worse
from pytest_pdserve.values.baseline import Envelope
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import Record

MakeRecord = Callable[..., Record]
QUIET = (10.0, 10.1, 9.9, None)


def envelope(values: tuple[float | None, ...] | None, **fields: Any) -> Envelope:
    given = {"ref": 10.0, "rtol": 1.0, "better": "lower", "unit": "ms", "runs": 3, **fields}
    return Envelope(values=values, **given)


@pytest.mark.parametrize(
    ("name", "values", "tonight", "said"),
    [
        ("mean_itl_ms", QUIET, 12.4, None),
        ("mean_itl_ms", QUIET, 14.95, "mean_itl_ms 14.95 ms, reference 10 ms (3 nights): +49.5%, "),
        ("mean_itl_ms", QUIET, 5.0, None),  # better
        ("mean_itl_ms", (10.0, 11.0, 9.0), 15.9, None),  # three times what nights differ by
        ("mean_itl_ms", (10.0, 11.0, 9.0), 16.1, "mean_itl_ms 16.1 ms, reference 10 ms "),
        ("mean_ttft_ms", QUIET, 12.9, None),
        ("mean_ttft_ms", QUIET, 13.1, "mean_ttft_ms 13.1 ms"),
        ("p99_ttft_ms", QUIET, 19.9, None),
        ("p99_ttft_ms", QUIET, 20.1, "p99_ttft_ms 20.1 ms"),
        ("mean_itl_ms", (10.0, None), 30.0, None),  # one night says nothing of noise
        ("mean_itl_ms", None, 30.0, None),
    ],
)
def test_how_much_is_outright_worse(
    name: str,
    values: tuple[float | None, ...] | None,
    tonight: float,
    said: str | None,
    make_record: MakeRecord,
) -> None:
    found = list(outright_worse([make_record({name: tonight})], {name: envelope(values)}))
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)


def test_a_rate_is_worse_where_it_is_lower(make_record: MakeRecord) -> None:
    rate = {"output_throughput": envelope((500.0, 505.0), better="higher", unit="tok/s")}
    assert list(outright_worse([make_record({"output_throughput": 900.0})], rate)) == []
    (said,) = outright_worse([make_record({"output_throughput": 250.0})], rate)
    assert "-50.2%, more than 25%" in said


def test_the_median_of_several_starts_counts_and_void_values_do_not(
    make_record: MakeRecord,
) -> None:
    itl = {"mean_itl_ms": envelope(QUIET)}
    runs = [make_record({"mean_itl_ms": value}) for value in (20.0, 10.0, 10.1)]
    assert list(outright_worse(runs, itl)) == []
    void = Finding(check="chunks", severity="note", message="", voids=("mean_itl_ms",))
    assert list(outright_worse([make_record({"mean_itl_ms": 20.0}, findings=(void,))], itl)) == []
