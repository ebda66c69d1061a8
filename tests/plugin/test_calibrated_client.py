"""``pdserve calibrate --client``, and what records then say of the client."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from tests.support.house import House
from tests.support.tokenizers import write_tokenizer


@pytest.fixture
def precise_house(house: House) -> House:
    """A project with a system ``stub`` that is measured by ``precise``."""
    write_tokenizer(house.path / "model")
    house.system(bench={"client": "precise"})
    return house


@pytest.mark.slow
def test_what_the_client_adds_is_kept_and_said_of_records(
    precise_house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--client", "--system", "stub", "--streams", "4,1"]) == 0
    said = capsys.readouterr().out
    assert "client precise (0.1.0) reports, ms more than is true:" in said
    path = precise_house.path / "baselines" / "stub" / "client.precise.json"
    assert f"kept in   {path}" in said
    kept = json.loads(path.read_text())
    assert [row["streams"] for row in kept["rows"]] == [1, 4]
    assert all(math.isfinite(ms) for row in kept["rows"] for ms in row["off_ms"].values())
    kept["rows"][1]["off_ms"] = {"mean_ttft_ms": 4.0, "mean_itl_ms": 0.0001}
    path.write_text(json.dumps(kept))
    precise_house.suites("sweep")
    result = precise_house.run("--topology", "dp")
    result.assert_outcomes(passed=1, skipped=1)
    (record,) = precise_house.records()
    assert record["client_kind"] == "precise"
    assert record["client_offset_ms"] == {"mean_ttft_ms": 4.0, "mean_itl_ms": 0.0001}
    note = "the client reports mean_ttft_ms +4.0 of "
    assert note in result.stdout.str()


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ("0", "--streams '0': expected comma-separated numbers from 1 to 10,000"),
        ("4,x", "--streams '4,x': expected comma-separated numbers"),
        ("", "--streams '': expected comma-separated numbers"),
    ],
)
def test_odd_numbers_of_streams_are_refused(
    streams: str, said: str, precise_house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--client", "--system", "stub", "--streams", streams]) == 4
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"client": "vllm"}, "/client: is 'vllm', expected 'precise'"),
        ({"rows": []}, "/rows: [] should be non-empty"),
        ({"measured_on": "then"}, "/measured_on: 'then' does not match"),
    ],
    ids=["of another client", "empty", "no date"],
)
def test_a_malformed_file_ends_a_session_before_it_starts(
    change: dict[str, object], said: str, precise_house: House
) -> None:
    row = {"streams": 1, "off_ms": {"mean_ttft_ms": 1.0}}
    kept = {
        "schema_version": 1,
        "client": "precise",
        "measured_on": "2026-11-28",
        "machine": {"cores": "2"},
        "rows": [row],
    }
    path = precise_house.path / "baselines" / "stub" / "client.precise.json"
    path.write_text(json.dumps({**kept, **change}))
    precise_house.suites("sweep")
    result = precise_house.run("--topology", "dp")
    assert result.ret == 4
    assert f"client.precise.json: {said}" in result.stderr.str()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            {"bench": {"client": "precise", "args": ["--dataset-name", "sharegpt"]}},
            "--dataset-name 'sharegpt': the client precise has random prompts only; measure this "
            "data set with the client vllm or vllm-command",
        ),
        (
            {"bench": {"client": "precise", "args": ["--top-k", "1"]}},
            "--top-k is not a flag of the client precise; measure with the client vllm or "
            "vllm-command",
        ),
    ],
    ids=["another data set", "another flag"],
)
def test_what_the_client_cannot_send_is_refused_before_the_start(
    tables: dict[str, dict[str, Any]], said: str, precise_house: House
) -> None:
    precise_house.system(**tables)
    precise_house.suites("sweep")
    result = precise_house.run("--topology", "dp")
    assert result.ret == 4
    assert said in result.stderr.str()


def test_a_system_without_a_client_is_refused_at_once(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--client", "--system", "simulated"]) == 4
    said = "system 'simulated' starts no benchmark client; name one that does with --system"
    assert said in capsys.readouterr().err
