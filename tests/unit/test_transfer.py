"""Transfers without a model: their shapes, their pairs, and what is said of slow ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.judge.transfer import below_floor
from pytest_pdserve.judge.transfer import judge_transfers
from pytest_pdserve.judge.transfer import slow_nodes
from pytest_pdserve.judge.verdict import Status
from pytest_pdserve.plan.placement import place
from pytest_pdserve.plan.transfer import all_pairs
from pytest_pdserve.plan.transfer import check_positions
from pytest_pdserve.plan.transfer import named_pairs
from pytest_pdserve.plan.transfer import pair_rounds
from pytest_pdserve.plan.transfer import preflight_case
from pytest_pdserve.plan.transfer import shape_of
from pytest_pdserve.plan.transfer import topology_pairs
from pytest_pdserve.plan.transfer import transfer_cases
from pytest_pdserve.report.transfer import heat_map
from pytest_pdserve.report.transfer import transfer_lines
from pytest_pdserve.results.transfer import load_transfer_baseline
from pytest_pdserve.results.transfer import transfer_baseline_path
from pytest_pdserve.results.transfer import with_accepted
from pytest_pdserve.results.transfer import write_transfer_baseline
from pytest_pdserve.transfer.measuring import check_transfers
from pytest_pdserve.transfer.measuring import judge_and_confirm
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.model import KvShape
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.transfer import Pair
from pytest_pdserve.values.transfer import PairFigures
from pytest_pdserve.values.transfer import TransferBaseline
from pytest_pdserve.values.transfer import TransferCase
from pytest_pdserve.values.transfer import TransferFigure
from pytest_pdserve.values.transfer import TransferShape
from tests.support.systems import LEAST
from tests.support.systems import loaded
from tests.support.systems import refused

SHAPE = TransferShape(id="16MiB", descriptors=1, descriptor_bytes=16 * 2**20)
TINY = KvShape(bytes_per_token=16_384, regions=16, heads=4)
LATENT = KvShape(bytes_per_token=31_104, regions=27)
CPU = '[kv_transfer]\nbuffer_device = "cpu"\n'


def pair(text: str) -> Pair:
    """The pair ``reader<source``."""
    reader, source = text.split("<")
    return Pair(reader=reader, source=source)


def figures(text: str, ms: Sequence[float], shape: TransferShape = SHAPE) -> PairFigures:
    """What the pair *text* showed with one shape."""
    figure = TransferFigure(shape=shape, first_ms=9.0, ms=tuple(ms), posting_ms=(0.1,) * len(ms))
    return PairFigures(
        pair=pair(text),
        backend="UCX",
        provider="UCX_TLS=tcp",
        memory="DRAM",
        figures=(figure,),
    )


@pytest.mark.parametrize(
    ("text", "kv", "tokens", "descriptors", "descriptor_bytes"),
    [
        (CPU, TINY, 256, 2 * 16, 128 * 1024),
        (CPU, TINY, 32, 1 * 16, 128 * 1024),
        (CPU, LATENT, 32, 2 * 27, 18 * 1024),
        ("", LATENT, 4096, 6912, 18 * 1024),
        ("", LATENT, 4090, 6912, 18 * 1024),
        ("[transfer]\nblock_size = 64\n", LATENT, 4096, 1728, 72 * 1024),
        ("", TINY, 32, 2 * 16, 16 * 1024),
    ],
    ids=["CPU", "one block", "latent on CPUs", "GPU", "rounded up", "said block", "heads on a GPU"],
)
def test_a_prompt_has_a_descriptor_for_each_region_of_each_block(
    text: str, kv: KvShape, tokens: int, descriptors: int, descriptor_bytes: int, tmp_path: Path
) -> None:
    shape = shape_of(TransferCase(prompt_tokens=tokens), loaded(tmp_path, LEAST + text), kv)
    assert (shape.descriptors, shape.descriptor_bytes) == (descriptors, descriptor_bytes)


@pytest.mark.parametrize(
    ("kv", "descriptor_bytes"),
    [
        (replace(TINY, heads=8), 16 * 1024 // 8),
        (TINY, 16 * 1024 // 4),
        (LATENT, 18 * 1024),
    ],
    ids=["heads are divided", "two ranks store the same head", "a latent is whole in each"],
)
def test_ranks_of_an_engine_share_heads(kv: KvShape, descriptor_bytes: int, tmp_path: Path) -> None:
    system = loaded(tmp_path, LEAST.replace("gpus_per_node = 1", "gpus_per_node = 8"))
    shape = shape_of(TransferCase(prompt_tokens=64), system, kv)
    assert (shape.descriptors, shape.descriptor_bytes) == (4 * kv.regions, descriptor_bytes)


@pytest.mark.parametrize(
    ("topology", "parts"),
    [("1p3d", 4), ("1p3d-tp2", 2), ("1p3d-tp2x4", 4), ("1p3d-tp4x2", 4)],
)
def test_a_transfer_has_the_pieces_of_the_topologys_larger_engine(
    topology: str, parts: int, tmp_path: Path
) -> None:
    """The tiny model has four heads, which eight ranks store twice."""
    system = loaded(tmp_path, LEAST.replace("gpus_per_node = 1", "gpus_per_node = 8"))
    case = TransferCase(prompt_tokens=64)
    shape = shape_of(case, system, TINY, topology=Topology.parse(topology))
    assert shape.descriptor_bytes == 16 * 1024 // parts
    whole = shape_of(case, system, LATENT, topology=Topology.parse(topology))
    assert whole.descriptor_bytes == 18 * 1024


@pytest.mark.parametrize("text", ["0,2", "2,0", "0", "0,1,1", "1, 1", "0,99999999999999"])
def test_pairs_that_no_node_can_have_are_refused_before_nodes_are_acquired(
    text: str, tmp_path: Path
) -> None:
    system = loaded(tmp_path, LEAST)
    check_positions(["0,1", "p5-1, 0", "p5-1,p5-2"], system)
    with pytest.raises(ConfigError) as raised:
        check_positions([text], system)
    assert str(raised.value) == (
        f"--pair {text!r}: expected two of the 2 nodes of system 'mine', by name or by position "
        "from 0 to 1, e.g. --pair 0,1"
    )


def test_a_spare_node_has_a_position_too(tmp_path: Path) -> None:
    system = loaded(tmp_path, LEAST.replace("nodes = 2", "nodes = 2\nspare_nodes = 1"))
    check_positions(["0,2"], system)


def test_a_block_is_what_serve_args_say(tmp_path: Path) -> None:
    text = LEAST + 'serve_args = ["--block-size", "32"]\n'
    shape = shape_of(TransferCase(prompt_tokens=64), loaded(tmp_path, text), TINY)
    assert (shape.descriptors, shape.descriptor_bytes) == (2 * 16, 32 * 1024)


def test_prompts_of_an_unknown_model_are_refused_and_sizes_are_not(tmp_path: Path) -> None:
    system = loaded(tmp_path, LEAST)
    with pytest.raises(ConfigError, match="the KV cache of model 'm' is unknown on this machine"):
        shape_of(TransferCase(prompt_tokens=64), system, None)
    assert shape_of(TransferCase(mib=16), system, None) == SHAPE
    assert preflight_case(system, prompts=False) == TransferCase(mib=64)
    assert preflight_case(system, prompts=True) == TransferCase(prompt_tokens=4096)


def test_cases_are_the_sweeps_ends_and_sizes_by_number_in_flight(tmp_path: Path) -> None:
    ids = [case.id for case in transfer_cases(loaded(tmp_path, LEAST))]
    assert ids[:6] == ["512tok", "512tok-x4", "4096tok", "4096tok-x4", "1MiB", "1MiB-x4"]
    text = LEAST + "[transfer]\nprompt_lens = [9]\nsizes_mib = [2]\nin_flight = [1]\n"
    assert [case.id for case in transfer_cases(loaded(tmp_path, text))] == ["9tok", "2MiB"]


def test_a_system_of_one_node_has_no_transfers(tmp_path: Path) -> None:
    check_transfers(loaded(tmp_path, LEAST))
    system = loaded(tmp_path, LEAST.replace("nodes = 2", "nodes = 1"))
    with pytest.raises(ConfigError, match=r"^system 'mine' has 1 node, and a transfer needs two; "):
        check_transfers(system)


def test_a_figures_file_and_an_endpoint_have_no_transfers(tmp_path: Path) -> None:
    text = LEAST.replace('"local"', '"simulated"') + "[transfer]\npreflight = true\n"
    assert "/transfer: is not read where [cluster] kind is 'simulated'" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("topology", "pairs"),
    [
        ("1p3d", ["b<a", "c<a", "d<a"]),
        ("2p2d", ["c<a", "c<b", "d<a", "d<b"]),
        ("route4", []),
    ],
)
def test_decode_nodes_read_from_prefill_nodes(topology: str, pairs: list[str]) -> None:
    placement = place(Topology.parse(topology), ("a", "b", "c", "d"), 1)
    assert list(topology_pairs(placement)) == list(map(pair, pairs))


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_node_is_in_one_pair_of_a_round(count: int) -> None:
    pairs = all_pairs([f"n{number}" for number in range(count)])
    rounds = pair_rounds(pairs, one_machine=False)
    assert sorted(map(str, pairs)) == sorted(str(each) for part in rounds for each in part)
    for part in rounds:
        nodes = [node for each in part for node in (each.reader, each.source)]
        assert len(nodes) == len(set(nodes))
    assert len(rounds) < len(pairs) or count < 4


def test_pairs_of_one_machine_are_measured_alone() -> None:
    pairs = all_pairs(["a", "b", "c", "d"])
    assert pair_rounds(pairs, one_machine=True) == tuple((each,) for each in pairs)


def test_pairs_are_named_by_name_and_by_position() -> None:
    assert named_pairs(["0,b", "b,a"], ["a", "b", "c"]) == (pair("a<b"), pair("b<a"))


@pytest.mark.parametrize("text", ["a", "a,a", "a,x", "a,b,c", "0,3", ""])
def test_what_is_not_two_nodes_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected two of the nodes a, b, c"):
        named_pairs([text], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("slow", "fast", "named"),
    [
        ("b<a a<b b<c c<b", "a<c c<a", ["b"]),
        ("b<a", "c<a d<a", ["b"]),
        ("b<a c<a d<a", "", ["a"]),
        ("b<a", "", []),
        ("b<a a<b", "", []),
        ("b<a", "a<b b<c c<b a<c c<a", []),
        ("a<b b<a a<c c<a b<c c<b", "", []),
        ("", "a<b", []),
    ],
    ids=[
        *("one node of three", "a decode node", "the prefill node", "one pair", "both directions"),
        *("a pair between good nodes", "all", "none"),
    ],
)
def test_a_node_is_named_if_all_of_its_pairs_are_slow(
    slow: str, fast: str, named: list[str]
) -> None:
    asked = {pair(t): True for t in slow.split()} | {pair(t): False for t in fast.split()}
    assert list(slow_nodes(asked)) == named


def accepted(*runs: Sequence[float], tmp_path: Path) -> TransferBaseline:
    """A baseline of runs, each of one pair with these repeats."""
    system, found = loaded(tmp_path, LEAST), None
    for ms in runs:
        found = with_accepted(found, [figures("a<b", ms)], system=system, fingerprint="0a")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("runs", "ms", "status", "said"),
    [
        ([[10.0] * 3], 10.9, Status.PASS, "+9%, limit +10%"),
        ([[10.0] * 3], 11.2, Status.FAIL, "+12%, limit +10%"),
        ([[9.0, 10.0, 11.0]], 17.0, Status.PASS, "+70%, limit +74%"),
        ([[9.0, 10.0, 11.0]], 18.0, Status.FAIL, "+80%, limit +74%"),
        ([[10.0] * 3, [8.0] * 3, [12.0] * 3], 19.0, Status.PASS, "+90%, limit +148%"),
        ([[10.0] * 3], 2.0, Status.PASS, "-80%, limit +10%"),
    ],
    ids=["within", "beyond", "within its spread", "beyond its spread", "runs differ", "faster"],
)
def test_a_pair_is_slower_by_five_spreads_and_at_least_ten_percent(
    runs: list[list[float]], ms: float, status: Status, said: str, tmp_path: Path
) -> None:
    (verdict,) = judge_transfers([figures("a<b", [ms] * 3)], accepted(*runs, tmp_path=tmp_path))
    assert verdict.status is status
    assert verdict.text.endswith(said)


@pytest.mark.parametrize(
    ("again", "status"),
    [(10.5, Status.PASS), (18.0, Status.FAIL), (40.0, Status.FAIL)],
    ids=["a disturbance", "slow again", "slower"],
)
def test_a_slow_pair_fails_if_it_is_slow_twice(
    again: float, status: Status, tmp_path: Path
) -> None:
    asked: list[tuple[Pair, ...]] = []

    def measure_again(pairs: tuple[Pair, ...]) -> list[PairFigures]:
        asked.append(pairs)
        return [figures("a<b", [again])]

    first = [figures("a<b", [20.0]), figures("b<a", [10.0])]
    baseline = accepted([10.0], tmp_path=tmp_path)
    slow, fast = judge_and_confirm(first, baseline, measure_again=measure_again)
    assert asked == [(pair("a<b"),)]
    assert (slow.status, fast.status) == (status, Status.PASS)
    assert slow.figure.median_ms == min(again, 20.0)


@pytest.mark.parametrize(
    "other",
    [
        replace(SHAPE, id="other"),
        replace(SHAPE, descriptor_bytes=1),
        replace(SHAPE, in_flight=2),
    ],
    ids=["id", "bytes", "in flight"],
)
def test_another_shape_has_no_reference(other: TransferShape, tmp_path: Path) -> None:
    measured = [figures("a<b", [10.0], other)]
    (verdict,) = judge_transfers(measured, accepted([1.0], tmp_path=tmp_path))
    assert verdict.status is Status.NEW


def test_a_pair_below_the_floor_says_what_was_expected() -> None:
    measured = [figures("a<b", [100.0]), figures("c<b", [10.0])]
    assert below_floor(measured, 1.0, source="floor_gb_s") == {
        pair("a<b"): "a <- b by UCX (UCX_TLS=tcp, DRAM), 16MiB: 100.00 ms (0.17 GB/s, posting "
        "0.10 ms), expected at least 1 GB/s (floor_gb_s)"
    }


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    system = loaded(tmp_path, LEAST)
    path = transfer_baseline_path(system, tmp_path, "0a", tmp_path / "state")
    assert load_transfer_baseline(system, tmp_path, "0a", tmp_path / "state") is None
    made = accepted([10.0, 11.0], [10.5], tmp_path=tmp_path)
    write_transfer_baseline(path, made)
    assert load_transfer_baseline(system, tmp_path, "0a", tmp_path / "state") == made
    with pytest.raises(ConfigError, match="was measured on other hardware") as said:
        load_transfer_baseline(system, tmp_path, "0b", tmp_path / "state")
    assert "pdserve transfer --system mine --accept" in str(said.value)


def test_a_map_of_many_nodes_fits_80_columns() -> None:
    nodes = [f"compute-dy-p5-{number}" for number in range(1, 25)]
    measured = [figures(f"{p.reader}<{p.source}", [0.05]) for p in all_pairs(nodes)]
    lines = heat_map(measured, SHAPE, colour=False)
    assert max(map(len, lines)) <= 80
    assert sum("335.5" in line for line in lines) == 3 * 24
    text = "\n".join(lines)
    assert all(node in text for node in nodes)
    assert "\x1b[" not in text
    assert "\x1b[" in "\n".join(heat_map(measured, SHAPE, colour=True))


def test_what_is_printed_fits_80_columns(tmp_path: Path) -> None:
    shape = TransferShape(id="4096tok-x4", descriptors=6912, descriptor_bytes=18432, in_flight=4)
    system = loaded(tmp_path, LEAST)
    measured = [figures(t, [151.23, 140.0, 160.0], shape) for t in ("a<b", "b<a")]
    baseline = with_accepted(None, measured, system=system, fingerprint="0a")
    lines = transfer_lines(judge_transfers(measured, baseline), system, colour=False)
    assert "limits of time: 4096tok-x4 +43%" in lines
    assert max(map(len, lines)) <= 80
    assert "6,912 x 18 KiB" in "\n".join(lines)
