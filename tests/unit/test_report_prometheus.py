"""The report for Prometheus, as the client library's own parser reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from pytest_pdserve.report.prometheus import prometheus_text
from pytest_pdserve.values.phases import SessionTimes
from pytest_pdserve.values.report import OUTCOMES
from pytest_pdserve.values.report import Reason
from pytest_pdserve.values.report import Report
from tests.support.reports import HOSTILE
from tests.support.reports import ITL
from tests.support.reports import cell
from tests.support.reports import claim
from tests.support.reports import report_of


def samples(report: Report, name: str) -> list[Sample]:
    """The samples of one metric."""
    families = text_string_to_metric_families(prometheus_text(report))
    return [sample for family in families for sample in family.samples if sample.name == name]


def values(report: Report, name: str) -> list[tuple[Mapping[str, str], float]]:
    return [(sample.labels, sample.value) for sample in samples(report, name)]


def test_each_judged_metric_of_a_cell_is_one_sample() -> None:
    where = {"system": "p5-efa", "topology": "1p3d", "workload": "random-512-256-n4"}
    assert values(report_of(cell(), claim()), "pdserve_metric_value") == [
        ({**where, "metric": "mean_itl_ms", "unit": "ms"}, 5.21),
        ({**where, "metric": "output_throughput", "unit": "tok/s"}, 500.0),
    ]


def test_runs_that_are_invalid_have_no_value() -> None:
    report = report_of(cell(status="ERROR"))
    assert values(report, "pdserve_metric_value") == []
    assert {labels["status"] for labels, value in values(report, "pdserve_verdict") if value} == {
        "ERROR"
    }


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_metric_without_a_value_has_no_sample(value: float | None) -> None:
    report = report_of(cell(metrics=(replace(ITL, value=value),)))
    assert values(report, "pdserve_metric_value") == []


def test_a_topology_has_no_value_of_a_metric() -> None:
    whole = cell(kind="topology", workload=None)
    assert values(report_of(whole), "pdserve_metric_value") == []


@pytest.mark.parametrize("status", OUTCOMES)
def test_a_verdict_is_1_for_its_status_and_0_for_every_other(status: str) -> None:
    found = values(report_of(cell(status=status)), "pdserve_verdict")
    assert {labels["status"]: value for labels, value in found} == {
        other: float(other == status) for other in OUTCOMES
    }


def test_of_two_verdicts_on_the_same_subject_the_worse_one_is_told() -> None:
    report = report_of(cell(status="PASS"), cell(status="FAIL"), cell(status="NEW"))
    told = [labels["status"] for labels, value in values(report, "pdserve_verdict") if value]
    assert told == ["FAIL"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_any_text_is_a_label(text: str) -> None:
    report = report_of(cell(topologies=(text,), workload=text), system=text)
    labels, _ = values(report, "pdserve_metric_value")[0]
    assert (labels["system"], labels["topology"], labels["workload"]) == (text, text, text)


def test_the_session_says_when_it_began_and_how_long_it_took() -> None:
    report = report_of(cell(), phases=SessionTimes(seconds={"load": 60.0, "start": 30.0}))
    assert values(report, "pdserve_session_duration_seconds") == [({"system": "p5-efa"}, 90.0)]
    ((_, began),) = values(report, "pdserve_session_start_timestamp_seconds")
    assert began == 1795212000.0
    assert values(report, "pdserve_session_measured")[0][1] == 1


def test_a_session_without_measurement_has_no_value_and_says_so_first() -> None:
    report = report_of(errors=(Reason(subject="t", why="two\nlines"),))
    assert prometheus_text(report).splitlines()[0] == (
        "# Nothing was measured on p5-efa: two lines; 1 error without a verdict"
    )
    assert values(report, "pdserve_session_measured") == [({"system": "p5-efa"}, 0.0)]
    assert values(report, "pdserve_metric_value") == []
