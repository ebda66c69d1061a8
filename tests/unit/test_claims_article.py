"""The article's 160 values and 38 claims: each verdict is the one that was found by hand."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.judge.claims import ClaimVerdict
from pytest_pdserve.judge.claims import judge_claim
from pytest_pdserve.judge.expected import ExpectedChanges
from pytest_pdserve.judge.sides import SideSources
from pytest_pdserve.results.baselines import load_baseline
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_claims
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.results.expected import expected_path
from pytest_pdserve.results.expected import load_expected
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.values.claim import Claim
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.expected import ExpectedChange
from pytest_pdserve.values.figures import Figures
from pytest_pdserve.values.topology import ARTICLE_TOPOLOGIES

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "suites" / "claims"
SYSTEM = load_system("article", SHIPPED)
FIGURES = load_figures(figures_path(SYSTEM))
SWEEP = SYSTEM.sweep.points()
CLAIMS = {claim.id: claim for claim in load_claims(SUITE / "article.toml")}
ENTRIES = load_expected(expected_path(SYSTEM, ROOT))
DECIDED = {name: claim for name, claim in CLAIMS.items() if claim.undecidable is None}
PREFILL = ("512-256", "1024-256", "2048-256", "4096-256")
DECODE = ("512-256", "512-512", "512-1024", "512-2048", "512-4096")
BOTH = (*PREFILL, *DECODE[1:])
NONE: tuple[str, ...] = ()
UNDECIDABLE = "undecidable"

# Written from the list of the article's claims, by hand: number and part, then the cells that the
# figures contradict; none of them is AGREE, all of the regime's DISAGREE, some PARTLY.
BY_HAND: dict[str, tuple[str, ...] | str] = {
    "01": NONE,
    "02a": NONE,
    "02b": NONE,
    "03a": ("512-256",),
    "03b": ("2048-256", "4096-256"),
    "03c": NONE,
    "04": NONE,
    "05": ("512-256", "512-512", "512-4096"),
    "06": ("512-256",),
    "07": NONE,
    "08": NONE,
    "09a": NONE,
    "09b": NONE,
    "09c": UNDECIDABLE,
    "10": NONE,
    "11a": NONE,
    "11b": PREFILL,
    "11c": NONE,
    "12a": ("1024-256",),
    "12b": PREFILL,
    "12c": NONE,
    "12d": NONE,
    "12e": NONE,
    "13": NONE,
    "14": NONE,
    "15a": PREFILL,
    "15b": NONE,
    "15c": NONE,
    "16": NONE,
    "17": NONE,
    "18a": NONE,
    "18b": NONE,
    "19a": UNDECIDABLE,
    "19b": ("512-512", "512-1024", "512-2048"),
    "20": ("512-256", "512-512", "512-1024", "512-2048"),
    "21": UNDECIDABLE,
    "22a": NONE,
    "22b": ("2048-256", "4096-256"),
    "23a": NONE,
    "23b": ("4096-256",),
    "24a": NONE,
    "24b": NONE,
    "24c": NONE,
    "25a": NONE,
    "25b": NONE,
    "25c": ("512-256",),
    "25d": NONE,
    "25e": ("2048-256", "4096-256"),
    "26": ("512-256",),
    "27": NONE,
    "28a": NONE,
    "28b": NONE,
    "29": ("512-256",),
    "30": ("512-256",),
    "31": ("512-256",),
    "32a": NONE,
    "32b": ("512-512", "512-1024"),
    "32c": ("512-512", "512-1024"),
    "32d": ("512-512",),
    "32e": NONE,
    "33a": NONE,
    "33b": NONE,
    "33c": ("2048-256", "4096-256"),
    "34a": NONE,
    "34b": NONE,
    "35a": NONE,
    "35b": ("512-1024", "512-2048", "512-4096"),
    "35c": DECODE[1:],
    "35d": DECODE,
    "35e": ("2048-256", "4096-256"),
    "36a": NONE,
    "36b": NONE,
    "36c": ("512-256", "1024-256", *DECODE[1:]),
    "36d": PREFILL,
    "37a": NONE,
    "37b": ("512-4096",),
    "37c": NONE,
    "38": UNDECIDABLE,
}


HIDDEN = "23b-1p3d-itl-10-ms-guarded"
"""Its one cell contradicts it by throughput, whatever is asked of ITL."""


def changes_of(entries: Sequence[ExpectedChange]) -> ExpectedChanges:
    return ExpectedChanges(entries=entries, source="e.toml", today="2026-11-27")


def judged(
    claim: Claim, figures: Figures = FIGURES, changes: ExpectedChanges | None = None
) -> ClaimVerdict:
    known = changes or changes_of(ENTRIES)
    return judge_claim(
        claim,
        SWEEP,
        SideSources(figures=figures).side,
        covers=lambda *cells: known.entry_for_claim(claim.id, *cells),
    )


def expected_cells(claim: Claim) -> set[str]:
    """Cells in which the claim is expected not to hold."""
    return {
        cell for entry in ENTRIES if claim.id in (entry.claims or ()) for cell in entry.cells or ()
    }


def part(claim: Claim) -> str:
    return claim.id.partition("-")[0]


def test_every_one_of_38_claims_is_there() -> None:
    assert {claim.number for claim in CLAIMS.values()} == set(range(1, 39))
    assert [part(claim) for claim in CLAIMS.values()] == list(BY_HAND)
    for claim in CLAIMS.values():
        assert claim.number == int(part(claim)[:2])
        assert claim.source.endswith(f": claim {claim.number}")


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=list(CLAIMS))
def test_a_verdict_is_the_one_found_by_hand(claim: Claim) -> None:
    expected = BY_HAND[part(claim)]
    if expected == UNDECIDABLE:
        assert claim.undecidable
        return
    verdict = judged(claim)
    assert set(verdict.contradicted) == set(expected)
    assert verdict.status == ("EXPECTED" if expected else "PASS")
    evidence = dict(verdict.evidence)
    assert evidence["statistics"] == (
        "read off plots: one run per side, no variance; intervals are how far readings may be off"
    )
    assert evidence["sides from"].startswith("figure: ")
    assert len([label for label in evidence if label.startswith("random-")]) > 0


def test_the_expected_changes_name_the_cells_that_were_found_by_hand() -> None:
    named = {claim: set(entry.cells or ()) for entry in ENTRIES for claim in entry.claims or ()}
    found = {
        claim.id: set(cells)
        for claim in CLAIMS.values()
        if (cells := BY_HAND[part(claim)]) and cells != UNDECIDABLE
    }
    assert named == found
    assert {entry.owner for entry in ENTRIES} == {"pytest-pdserve project"}


@pytest.mark.parametrize("claim", load_claims(SUITE / "claims.toml"), ids=lambda c: c.id)
def test_claims_of_every_system_hold_in_the_figures(claim: Claim) -> None:
    assert judged(claim).status == "PASS"
    assert claim.caution is None


def test_every_bare_itl_claim_has_a_number_that_is_guarded_or_known_or_a_fixed_value() -> None:
    """What is left bare is the article's sentence; the guard beside it says what it is worth."""
    guarded = {claim.number for claim in CLAIMS.values() if claim.id.endswith("-guarded")}
    bare = {claim.number for claim in CLAIMS.values() if claim.caution}
    assert bare - guarded == {29, 30, 31}
    assert guarded == {22, 23, 24, 25, 28, 33, 34, 35}
    for claim in CLAIMS.values():
        assert claim.undecidable or claim.regime.load is not None
        if claim.id.endswith("-guarded"):
            assert {"mean_itl_ms", "output_throughput"} == {r.metric for r in claim.relations}


def test_the_figures_are_the_160_values() -> None:
    with (ROOT / "benchmarks" / "article.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = ("mean_itl_ms", "mean_ttft_ms", "output_throughput", "request_throughput")
    expected = {
        (row["topology"], f"random-{row['input_len']}-{row['output_len']}-n1024", metric): float(
            row[metric]
        )
        for row in rows
        for metric in metrics
    }
    found = {
        (*key, metric): reading.value
        for key, readings in FIGURES.cells.items()
        for metric, reading in readings.items()
    }
    assert found == expected
    assert len(found) == 160
    assert {topology for topology, _ in FIGURES.cells} == set(ARTICLE_TOPOLOGIES)
    uncertain = [r.uncertainty for cell in FIGURES.cells.values() for r in cell.values()]
    assert min(uncertain) == 0.005
    assert max(uncertain) == 0.5


def test_every_record_says_figure_and_one_run() -> None:
    data = tomllib.loads(figures_path(SYSTEM).read_text())
    assert {(r["source"], r["runs"]) for r in data["record"]} == {("figure", 1)}
    assert len(data["record"]) == 40


def test_figures_are_no_baseline_and_no_machine() -> None:
    with pytest.raises(ConfigError, match="not valid JSON"):
        load_baseline(figures_path(SYSTEM), system=SYSTEM, suite="sweep")
    assert not list(figures_path(SYSTEM).parent.glob("*.json"))
    with pytest.raises(ConfigError) as refused:
        backend_of(SYSTEM)
    assert str(refused.value) == (
        "system 'article' has no [cluster] kind, so nothing can be measured on it; it consists "
        "of figures: run pytest suites/claims --system article"
    )


def flipped(claim: Claim) -> Claim:
    """The claim with the direction of its first relation turned round."""
    other: dict[Any, Any] = {
        "below": "above",
        "above": "below",
        "lowest": "highest",
        "highest": "lowest",
        "rises": "falls",
        "falls": "rises",
        "smaller": "larger",
        "larger": "smaller",
    }
    first = claim.relations[0]
    if first.direction:
        first = replace(first, direction=other[first.direction])
    elif first.kind in other:
        first = replace(first, kind=other[first.kind])
    elif first.kind == "best":
        first = replace(first, kind="lowest" if "throughput" in first.metric else "highest")
    else:  # bounds: everything that was admitted is now too much
        low, high = first.bounds
        first = replace(first, low=high * 1.001, high=high * 2)
        if high == float("inf"):
            first = replace(first, low=None, high=low * 0.999)
    return replace(claim, relations=(first, *claim.relations[1:]))


def renamed(claim: Claim) -> Claim:
    first = replace(claim.relations[0], metric="p99_e2el_ms")
    return replace(claim, relations=(first, *claim.relations[1:]))


def lacking(claim: Claim, verdict: ClaimVerdict) -> str:
    """The status of a claim with a missing value: FAIL if other cells contradict it anew."""
    return "FAIL" if set(verdict.contradicted) - expected_cells(claim) else "NOT JUDGED"


def demanding(claim: Claim) -> Claim:
    """A margin that nothing reaches, and bounds that nothing meets."""
    first = claim.relations[0]
    rank = first.kind == "rank"
    narrow = replace(first, margin=0.999 if first.kind != "above" else 99.0, low=0.5, high=0.5)
    if first.kind in ("highest", "best") or first.direction in ("rises", "larger"):
        narrow = replace(narrow, margin=99.0)
    if rank:
        narrow = replace(first, low=9, high=9)
    return replace(claim, relations=(narrow, *claim.relations[1:]))


@pytest.mark.quick_cases(55)
@pytest.mark.parametrize("mutate", [flipped, renamed, demanding])
@pytest.mark.parametrize("claim", DECIDED.values(), ids=list(DECIDED))
def test_a_mutated_claim_does_not_pass(claim: Claim, mutate: Callable[[Claim], Claim]) -> None:
    changes = changes_of(ENTRIES)
    verdict = judged(mutate(claim), changes=changes)
    if mutate is renamed:  # of a metric that the figures do not have, FAIL only by another part
        assert verdict.status == lacking(claim, verdict)
        assert "is not in the figures" in " ".join(verdict.misses)
    elif verdict.status == "PASS":  # in all of its cells the opposite was expected
        assert "covered nothing tonight" in changes.problems[0]
    elif mutate is demanding or claim.id == HIDDEN:
        assert verdict.status in ("FAIL", "EXPECTED")
    else:
        assert verdict.status == "FAIL"


@pytest.mark.parametrize("claim", DECIDED.values(), ids=list(DECIDED))
def test_a_contradiction_without_its_entry_fails(claim: Claim) -> None:
    verdict = judged(claim, changes=changes_of(()))
    assert verdict.status == ("FAIL" if BY_HAND[part(claim)] else "PASS")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.claims[0])
def test_an_entry_with_a_cell_less_does_not_cover_its_claim(entry: ExpectedChange) -> None:
    (claim,) = (CLAIMS[name] for name in entry.claims or ())
    fewer = replace(entry, cells=(entry.cells or ())[1:] or ("1-1",))
    assert judged(claim, changes=changes_of([fewer])).status == "FAIL"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.claims[0])
def test_a_cell_that_an_entry_names_in_vain_is_named(entry: ExpectedChange) -> None:
    (claim,) = (CLAIMS[name] for name in entry.claims or ())
    there = [point.name for point in SWEEP if claim.admits(point)]
    changes = changes_of([replace(entry, cells=(*there, "1-1"))])
    assert judged(claim, changes=changes).status == "EXPECTED"
    said = " ".join((*changes.problems, *changes.unknown_names({claim.id: there})))
    assert all(cell in said for cell in {*there, "1-1"}.difference(entry.cells or ()))


def test_the_articles_expected_changes_are_all_needed() -> None:
    changes = changes_of(ENTRIES)
    for claim in DECIDED.values():
        judged(claim, changes=changes)
    cells = {
        claim.id: [point.name for point in SWEEP if claim.admits(point)]
        for claim in CLAIMS.values()
    }
    assert (*changes.problems, *changes.unknown_names(cells)) == ()


@pytest.mark.parametrize("claim", DECIDED.values(), ids=list(DECIDED))
def test_a_value_that_is_gone_turns_its_claim_red(claim: Claim) -> None:
    relation = claim.relations[0]
    point = next(point for point in SWEEP if claim.admits(point))
    key = (relation.subjects[0], point.id)
    without = [c for c in FIGURES.record if (c.topology, c.workload.id) != key]
    assert len(without) == len(FIGURES.record) - 1
    verdict = judged(claim, replace(FIGURES, record=tuple(without)))
    assert verdict.status == lacking(claim, verdict)
    assert "is not in the figures" in " ".join(verdict.misses)


def _entry(name: str) -> dict[str, Any]:
    entries = tomllib.loads((SUITE / "article.toml").read_text())["claim"]
    found: dict[str, Any] = next(entry for entry in entries if entry["id"] == name)
    return found


@pytest.mark.quick_cases(26)
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=list(CLAIMS))
def test_a_claim_that_lacks_a_key_is_refused_or_keeps_its_meaning(
    claim: Claim, tmp_path: Path
) -> None:
    """Without a key that its kind needs, a claim is bad input, never a claim of something else."""
    entry = _entry(claim.id)
    optional = {"number", "load", "input_lens", "output_lens", "margin", "low", "high"}
    for key in set(entry) - optional - {"measure"}:
        rest = {k: v for k, v in entry.items() if k != key}
        path = tmp_path / "c.toml"
        path.write_text(f"schema_version = 1\n[[claim]]\n{_toml(rest)}", encoding="utf-8")
        with pytest.raises(ConfigError, match=key):
            load_claims(path)


def _toml(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {_inline(value)}\n" for key, value in table.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return repr(value) if not isinstance(value, str) else '"' + value.replace('"', '\\"') + '"'
