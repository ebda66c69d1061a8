"""Which expected changes cover what was seen, and which are named as troubles."""

from __future__ import annotations

import pytest

from pytest_pdserve.judge.expected import ExpectedChanges
from pytest_pdserve.values.expected import ExpectedChange

TODAY = "2026-11-27"


def entry(**fields: object) -> ExpectedChange:
    given = {"until": "2026-12-31", "owner": "ann", "reason": "vllm#1", **fields}
    return ExpectedChange(**given)  # type: ignore[arg-type]


def changes(*entries: ExpectedChange) -> ExpectedChanges:
    return ExpectedChanges(entries=entries, source="expected.toml", today=TODAY)


COVERED = {
    "everything": entry(),
    "the topology": entry(topologies=("dp", "1p3d")),
    "the cell by its lengths": entry(cells=("512-256",)),
    "the cell by its workload id": entry(cells=("random-512-256-n4",)),
    "the metric": entry(metrics=("mean_itl_ms",)),
    "as much as it is worse": entry(max_worse=0.10),
    "until today": entry(until=TODAY),
}
NOT_COVERED = {
    "another topology": entry(topologies=("dp",)),
    "another cell": entry(cells=("512-512",)),
    "another metric": entry(metrics=("mean_ttft_ms",)),
    "less than it is worse": entry(max_worse=0.09),
    "until yesterday": entry(until="2026-11-26"),
    "a claim": entry(claims=("1p3d-itl-below-dp",)),
}
NAMES = ("random-512-256-n4", "512-256")


@pytest.mark.parametrize("case", COVERED)
def test_an_entry_covers_what_it_names(case: str) -> None:
    all_ = changes(COVERED[case])
    assert all_.covers_for_cell("1p3d", NAMES)("mean_itl_ms", 0.10) is COVERED[case]
    assert all_.problems == ()


@pytest.mark.parametrize("case", NOT_COVERED)
def test_an_entry_covers_nothing_else(case: str) -> None:
    assert changes(NOT_COVERED[case]).covers_for_cell("1p3d", NAMES)("mean_itl_ms", 0.10) is None


def test_the_first_entry_that_covers_a_change_is_taken() -> None:
    small, large = entry(max_worse=0.05), entry(max_worse=0.20)
    assert changes(small, large).covers_for_cell("1p3d", NAMES)("mean_itl_ms", 0.10) is large


def test_an_entry_of_cells_does_not_cover_the_topology_as_a_whole() -> None:
    of_cells, whole = entry(cells=("512-256",)), entry()
    assert changes(of_cells).covers_for_cell("1p3d", ())("mean_itl_ms", 0.1) is None
    assert changes(whole).covers_for_cell("1p3d", ())("mean_itl_ms", 0.1) is whole


def test_an_expired_entry_is_named() -> None:
    assert changes(entry(until="2026-11-26")).problems == (
        "expected.toml: entry 1 (ann: vllm#1) expired on 2026-11-26 and covers nothing; remove it",
    )


def test_an_entry_whose_cell_is_not_worse_is_named() -> None:
    all_ = changes(entry(cells=("512-256",)))
    all_.covers_for_cell("1p3d", NAMES)
    assert all_.problems == (
        "expected.toml: entry 1 (ann: vllm#1) covered nothing tonight; remove it",
    )


def test_an_entry_whose_cell_was_not_judged_is_not_named() -> None:
    all_ = changes(entry(cells=("512-256",)))
    all_.covers_for_cell("1p3d", ("512-512",))
    assert all_.problems == ()


CLAIM = entry(claims=("below",), cells=("512-256", "512-512"))


@pytest.mark.parametrize(
    ("contradicted", "covered"),
    [
        pytest.param(["512-256", "512-512"], True, id="all of its cells"),
        pytest.param(["512-256"], True, id="one of them"),
        pytest.param(["512-256", "512-1024"], False, id="one more"),
        pytest.param([], False, id="none"),
    ],
)
def test_a_claim_is_expected_to_fail_in_the_cells_of_its_entry(
    contradicted: list[str], covered: bool
) -> None:
    found = changes(CLAIM).entry_for_claim("below", contradicted, [])
    assert (found is CLAIM) is covered


def test_an_entry_without_cells_covers_a_claim_everywhere() -> None:
    whole = entry(claims=("below",))
    assert changes(whole).entry_for_claim("below", ["512-256"], []) is whole
    assert changes(whole).entry_for_claim("above", ["512-256"], []) is None


def test_a_cell_in_which_the_claim_holds_is_named() -> None:
    all_ = changes(CLAIM)
    all_.entry_for_claim("below", ["512-256"], ["512-512", "512-1024"])
    assert all_.problems == (
        "expected.toml: entry 1 (ann: vllm#1): below holds in 512-512; remove it",
    )


def test_an_entry_whose_claim_holds_is_named() -> None:
    all_ = changes(CLAIM)
    all_.entry_for_claim("below", [], ["512-256", "512-512"])
    assert all_.problems == (
        "expected.toml: entry 1 (ann: vllm#1) covered nothing tonight; remove it",
    )
