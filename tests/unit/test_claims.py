"""Claims between topologies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.judge.claims import Claim
from pytest_pdserve.judge.claims import Side
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.results.baselines import load_claims
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.workload import Sweep

ENTRY: dict[str, Any] = {
    "id": "itl",
    "text": "PD 1P3D mean ITL below DP",
    "kind": "below",
    "metric": "mean_itl_ms",
    "subject": "1p3d",
    "others": ["dp"],
    "panel": "decode",
    "reason": "no prefill in between",
    "source": "article",
}


def claim(**fields: Any) -> Claim:
    return Claim.from_toml({**ENTRY, **fields}, source="claims.toml")


def sides(values: dict[str, float | None], cell: str = "c") -> dict[str, tuple[Side, ...]]:
    return {
        cell: tuple(
            Side(topology=name, workload=cell, value=value, origin="this session")
            for name, value in values.items()
        )
    }


@pytest.mark.parametrize(
    ("kind", "subject", "other", "margin", "status"),
    [
        ("below", 9.0, 10.0, 0.0, "PASS"),
        ("below", 10.0, 10.0, 0.0, "FAIL"),
        ("below", 9.0, 10.0, 0.1, "FAIL"),
        ("below", 8.9, 10.0, 0.1, "PASS"),
        ("above", 11.0, 10.0, 0.0, "PASS"),
        ("above", 10.0, 10.0, 0.0, "FAIL"),
        ("above", 11.0, 10.0, 0.1, "FAIL"),
        ("above", 11.1, 10.0, 0.1, "PASS"),
        ("lowest", 9.0, 10.0, 0.0, "PASS"),
        ("lowest", 11.0, 10.0, 0.0, "FAIL"),
        ("highest", 11.0, 10.0, 0.0, "PASS"),
        ("highest", 9.0, 10.0, 0.0, "FAIL"),
        ("below", float("nan"), 10.0, 0.0, "FAIL"),
        ("above", 10.0, float("nan"), 0.0, "FAIL"),
    ],
)
def test_a_claim_holds_with_its_margin_or_not(
    kind: str, subject: float, other: float, margin: float, status: str
) -> None:
    made = claim(kind=kind, margin=margin)
    assert judge_claim(made, sides({"1p3d": subject, "dp": other})).status == status


def test_every_other_topology_and_every_cell_counts() -> None:
    made = claim(kind="lowest", others=["dp", "route4"])
    cells = {
        **sides({"1p3d": 9.0, "dp": 10.0, "route4": 8.0}, "short"),
        **sides({"1p3d": 9.0, "dp": 4.5, "route4": 10.0}, "long"),
    }
    verdict = judge_claim(made, cells)
    assert verdict.misses == (
        "short: mean_itl_ms of 1p3d = 9 ms, claimed < 8 ms (route4 8 ms, 1.125 times, margin 0%)",
        "long: mean_itl_ms of 1p3d = 9 ms, claimed < 4.5 ms (dp 4.5 ms, 2.000 times, margin 0%)",
    )
    assert verdict.evidence == (
        ("short", "mean_itl_ms 1p3d 9, dp 10, route4 8 ms"),
        ("long", "mean_itl_ms 1p3d 9, dp 4.5, route4 10 ms"),
        ("sides from", "this session"),
        ("reason", "no prefill in between"),
        ("source", "article"),
    )
    assert verdict.subject == "PD 1P3D mean ITL below DP (itl)"


def test_a_value_of_zero_has_no_ratio_and_still_a_verdict() -> None:
    verdict = judge_claim(claim(), sides({"1p3d": 9.0, "dp": 0.0}))
    assert verdict.misses == ("c: mean_itl_ms of 1p3d = 9 ms, claimed < 0 ms (dp 0 ms, margin 0%)",)


@pytest.mark.parametrize(
    ("values", "miss"),
    [
        ({"1p3d": None, "dp": 10.0}, "c: mean_itl_ms of 1p3d was not measured"),
        ({"1p3d": 9.0, "dp": None}, "c: mean_itl_ms of dp was not measured"),
        ({"1p3d": 9.0}, "c: mean_itl_ms of dp was not measured"),
        ({}, "c: mean_itl_ms of 1p3d was not measured"),
    ],
    ids=["subject", "other", "other not there", "nothing"],
)
def test_a_missing_side_never_passes(values: dict[str, float | None], miss: str) -> None:
    verdict = judge_claim(claim(), sides(values))
    assert (verdict.status, verdict.misses) == ("FAIL", (miss,))


def test_the_missing_one_of_several_is_named() -> None:
    made = claim(kind="lowest", others=["dp", "route4"])
    verdict = judge_claim(made, sides({"1p3d": 9.0, "dp": 10.0}))
    assert verdict.misses == ("c: mean_itl_ms of route4 was not measured",)
    assert verdict.evidence[0] == ("c", "mean_itl_ms 1p3d 9, dp 10, route4 - ms")


def test_a_regime_without_cells_never_passes() -> None:
    verdict = judge_claim(claim(), {})
    assert verdict.misses == ("no cell of the decode panel lies in the claim's regime",)
    assert ("sides from", "nowhere") in verdict.evidence


@pytest.mark.parametrize(
    ("fields", "lengths"),
    [
        ({"panel": "decode"}, ["512-256", "512-512", "512-1024", "512-2048", "512-4096"]),
        ({"panel": "prefill", "input_lens": [1024, 4096]}, ["1024-256", "4096-256"]),
        ({"panel": "decode", "output_lens": [256]}, ["512-256"]),
        ({"panel": "decode", "input_lens": [1024]}, []),
    ],
    ids=["panel", "input lengths", "output lengths", "nothing"],
)
@pytest.mark.parametrize("divisor", [1, 16])
def test_a_regime_is_told_in_the_articles_lengths(
    fields: dict[str, Any], lengths: list[str], divisor: int
) -> None:
    made = claim(**fields)
    cells = [w for w in Sweep(length_divisor=divisor).workloads() if made.admits(w)]
    assert [f"{w.input_len * divisor}-{w.output_len * divisor}" for w in cells] == lengths


TOML = """schema_version = 1
[[claim]]
id = "a"
text = "t"
kind = "below"
metric = "mean_itl_ms"
subject = "1p3d"
others = ["dp"]
panel = "decode"
reason = "r"
source = "s"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "mean_itl_ms",
            "mean_tfft",
            ": claim 'a': unknown metric 'mean_tfft'; known are mean_ttft",
        ),
        ("mean_itl_ms", "failed", ": claim 'a': unknown metric 'failed'; known are mean_ttft_ms"),
        ('"1p3d"', '"3p"', ": claim 'a': topology '3p' is not of the form 'dp'"),
        ('["dp"]', '["dp", "route1"]', ": claim 'a': topology 'route1' is the same as 'dp'"),
        ('["dp"]', '["1p3d"]', ": claim 'a': '1p3d' is compared with itself"),
        ('"below"', '"better"', ": /claim/0/kind: 'better' is not one of"),
        ('["dp"]', "[]", ": /claim/0/others: [] should be non-empty"),
        ('id = "a"\n', "", ": /claim/0: 'id' is a required property"),
        ('"s"', '"s"\nmargin = 1.0', ": /claim/0/margin: 1.0 is greater than or equal to the"),
        ('"s"\n', '"s"\n' + TOML.split("\n", 1)[1], ": claim id 'a' stands 2 times"),
        ("schema_version = 1", "", ": /: 'schema_version' is a required property"),
    ],
    ids=[
        *("unknown metric", "a count", "unknown topology", "second spelling", "itself"),
        *("kind", "no others", "no id", "margin", "twice", "no version"),
    ],
)
def test_a_mistake_in_a_claim_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "claims.toml"
    assert old in TOML
    path.write_text(TOML.replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        load_claims(path)
    assert str(refused.value).startswith(f"{path}{message}")


def test_the_shipped_claims_load_and_speak_of_the_articles_five() -> None:
    shipped = load_claims(Path(__file__).parents[2] / "suites" / "claims" / "claims.toml")
    named = {topology for made in shipped for topology in made.topologies}
    assert named == {"dp", "route2", "route4", "1p3d", "2p2d"}
    for made in shipped:
        assert any(made.admits(workload) for workload in Sweep().workloads()), made.id
