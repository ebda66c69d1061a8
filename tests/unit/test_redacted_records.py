"""Records are made without the secrets that servers and clients told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pdserve.results.building import Provenance
from pytest_pdserve.results.building import RunFacts
from pytest_pdserve.results.building import build_record
from pytest_pdserve.results.requests import read_requests
from pytest_pdserve.results.store import RunStore
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.record import ProcessRecord
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload
from tests.support.records import SESSION

SECRET = "open sesame, open wide"
LONG = f"{'x' * 190} {SECRET}"
"""A text that findings cut within the secret."""


def built(
    folder: Path, result: BenchResult, findings: tuple[Finding, ...] | None = None
) -> tuple[str, str]:
    """Record and requests of a run, as their files have them."""
    store = RunStore(folder=folder, session=SESSION)
    record, path = build_record(
        Observation(
            topology=Topology.parse("1p1d"),
            workload=Workload(input_len=512, output_len=256, num_prompts=4),
            result=result,
        ),
        RunFacts(
            system="s",
            repeat=0,
            start=0,
            started_at="2026-08-22T10:15:00.000Z",
            finished_at="2026-08-22T10:15:02.000Z",
            endpoint="http://me:pw@h:1",
            timings_s={},
            processes=(
                ProcessRecord(name="p", node="n", argv=("x", SECRET), env={"A": SECRET}, log="l"),
            ),
        ),
        Provenance(
            versions={"vllm": SECRET}, host={"a": SECRET}, fingerprint="f", cluster={"b": SECRET}
        ),
        store,
        findings=findings,
    )
    assert record.requests is not None
    requests = read_requests(path.with_name(record.requests)).to_csv()
    return path.read_text(), requests


@pytest.mark.parametrize(
    "findings",
    [None, (Finding(check="c", severity="note", message=SECRET),)],
    ids=["of sanity", "given"],
)
def test_no_text_of_a_record_holds_a_secret(
    findings: tuple[Finding, ...] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_result: Callable[..., BenchResult],
) -> None:
    monkeypatch.setenv("A_PASSWORD", SECRET)
    result = make_result(
        completed=3, failed=1, errors=("", "", "", LONG), raw={"backend": "openai", "note": SECRET}
    )
    record, requests = built(tmp_path, result, findings)
    assert "open" not in record.replace("openai", "")
    assert ":pw@" not in record
    assert "open" not in requests
    assert record.count("<A_PASSWORD>") >= 6
    assert requests.count("<A_PASSWORD>") == 1


def test_a_record_without_secrets_is_as_it_was(
    tmp_path: Path, make_result: Callable[..., BenchResult]
) -> None:
    record, _ = built(tmp_path, make_result())
    assert record.count(SECRET) == 5
