"""The simulated cluster: what goes in comes out, nothing is free, and one seed is one answer."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.placement import Placement
from pytest_pdserve.plan.placement import place
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.simulation.allocation import SimulatedAllocation
from pytest_pdserve.simulation.cache import PrefixCache
from pytest_pdserve.simulation.constants import BLOCK
from pytest_pdserve.simulation.constants import KV_BYTES_PER_TOKEN
from pytest_pdserve.simulation.constants import TOKEN_BUDGET
from pytest_pdserve.simulation.constants import fitted
from pytest_pdserve.simulation.deployment import SimulatedDeployment
from pytest_pdserve.simulation.deployment import deploy_simulated
from pytest_pdserve.simulation.deployment import findings_of
from pytest_pdserve.simulation.deployment import observation_of
from pytest_pdserve.simulation.engine import Segment
from pytest_pdserve.simulation.engine import series_s
from pytest_pdserve.simulation.engine import steps_until
from pytest_pdserve.simulation.model import serve
from pytest_pdserve.simulation.model import simulate
from pytest_pdserve.simulation.noise import draw
from pytest_pdserve.simulation.options import SimulationSpec
from pytest_pdserve.simulation.result import step_ends
from pytest_pdserve.simulation.service import Outcome
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import LaunchError
from pytest_pdserve.values.errors import PlacementError
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import ARTICLE_TOPOLOGIES
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Workload

NODES = ("node0", "node1", "node2", "node3")
SMALL = Workload(input_len=96, output_len=24, num_prompts=48)
SHIPPED_SYSTEM = load_system("simulated", SHIPPED)


def simulating(spec: SimulationSpec) -> System:
    """The shipped system with another table ``[simulation]``."""
    return replace(SHIPPED_SYSTEM, tables={**SHIPPED_SYSTEM.tables, "simulation": spec})


FRESH = simulating(SimulationSpec())


def placed(topology: str, nodes: int = 4) -> Placement:
    return place(Topology.parse(topology), NODES[:nodes], 8)


def numbers(workload: Workload) -> tuple[int, int, int]:
    """Requests, and the tokens in and out of each."""
    load = workload.known()
    assert load.lengths is not None
    return load.num_prompts, *load.lengths


def run(topology: str, workload: Workload = SMALL, system: System = FRESH, **more: Any) -> Outcome:
    return serve(placed(topology), [workload], system, **more)[0]


@pytest.mark.parametrize("topology", [*ARTICLE_TOPOLOGIES, "3p1d"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"output_len": 1},
        {"input_len": 1},
        {"num_prompts": 1},
        {"request_rate": 40.0},
        {"max_concurrency": 3},
        {"input_len": TOKEN_BUDGET + 5, "num_prompts": 5},
    ],
    ids=["all at once", "one out", "one in", "one", "poisson", "bounded", "chunked"],
)
def test_what_goes_in_comes_out(topology: str, change: dict[str, Any]) -> None:
    workload = replace(SMALL, **change)
    measured = simulate(placed(topology), workload, FRESH)
    result, served = measured.result, measured.served
    prompts, input_len, output_len = numbers(workload)
    assert (result.completed, result.failed) == (prompts, 0)
    assert result.total_input_tokens == prompts * input_len
    assert result.total_output_tokens == prompts * output_len
    assert result.chunks == result.total_output_tokens
    assert min(result.ttft_s) > 0
    assert all(gap > 0 for gaps in result.itl_s for gap in gaps)
    ends = [
        start + ttft + sum(gaps)
        for start, ttft, gaps in zip(result.start_s, result.ttft_s, result.itl_s, strict=True)
    ]
    assert max(ends) - min(result.start_s) == pytest.approx(result.duration_s)
    answering = [c for c in served if c.role != "prefill"]
    assert sum(c.requests or 0 for c in answering) == prompts
    assert sum(c.generation_tokens or 0 for c in answering) == result.total_output_tokens


@pytest.mark.parametrize("topology", ["1p3d", "2p2d", "3p1d"])
def test_one_transfer_per_request(topology: str) -> None:
    outcome = run(topology)
    decodes = [c for c in outcome.served if c.role == "decode"]
    prompts, input_len, _ = numbers(SMALL)
    blocks = math.ceil(input_len / BLOCK)
    assert sum(c.kv_transfers or 0 for c in decodes) == prompts
    assert sum(c.kv_bytes or 0 for c in decodes) == prompts * blocks * BLOCK * KV_BYTES_PER_TOKEN
    prefills = [c for c in outcome.served if c.role == "prefill"]
    assert sum(c.requests or 0 for c in prefills) == prompts


@pytest.mark.parametrize("topology", ARTICLE_TOPOLOGIES)
@pytest.mark.parametrize("field", ["num_prompts", "input_len", "output_len"])
def test_more_takes_longer(topology: str, field: str) -> None:
    more = replace(SMALL, **{field: 8 * getattr(SMALL, field)})
    assert run(topology, more).duration_s > run(topology).duration_s


def test_one_seed_is_one_answer_and_another_another() -> None:
    one, same = (simulate(placed("2p2d"), SMALL, FRESH) for _ in range(2))
    other = simulate(placed("2p2d"), SMALL, FRESH, repeat=1)
    assert one == same
    assert one.result.raw != other.result.raw


def test_lock_step_is_slower_than_nodes_on_their_own() -> None:
    times = [run(topology).duration_s for topology in ("route4", "route2", "dp")]
    assert times == sorted(times)
    assert times[0] < times[-1]


def test_engines_in_lock_step_wait_for_the_slowest() -> None:
    constants = replace(fitted(), sync_s=1e-12, sync_token_s=1e-12)
    ill = simulating(SimulationSpec(bad_node="node2", bad_node_factor=3.0))
    together = run("dp", system=ill, constants=constants)
    ends = {unit: max(r.last for r in together.requests if r.unit == unit) for unit in (0,)}
    assert ends[0] > 2 * run("dp", constants=constants).duration_s
    apart = run("route4", system=ill, constants=constants)
    sound = [max(r.last for r in apart.requests if r.unit == unit) for unit in (0, 1, 3)]
    assert max(sound) < max(r.last for r in apart.requests if r.unit == 2) / 2


def test_prefill_interferes_with_decode_unless_they_are_apart() -> None:
    busy = replace(SMALL, input_len=2048, num_prompts=64, request_rate=20.0)
    gaps = {
        t: max(map(max, simulate(placed(t), busy, FRESH).result.itl_s)) for t in ("route4", "1p3d")
    }
    assert gaps["route4"] > 1.5 * gaps["1p3d"]


@given(
    first=st.floats(0.001, 1.0),
    growth=st.floats(0.0, 0.01),
    count=st.integers(1, 5000),
    share=st.floats(0.01, 0.99),
)
@settings(max_examples=20, deadline=None)
def test_steps_taken_at_once_are_the_steps_one_by_one(
    first: float, growth: float, count: int, share: float
) -> None:
    segment = Segment(begin=2.0, first=first, growth=growth, count=count)
    ends = step_ends((segment,))
    assert len(ends) == count
    assert ends[-1] - 2.0 == pytest.approx(series_s(count, first, growth))
    within = series_s(count - 1, first, growth) + share * (first + growth * (count - 1))
    assert steps_until(within, first, growth) == count


def test_an_arrival_joins_at_the_next_step() -> None:
    pair = replace(SMALL, num_prompts=2, output_len=200, request_rate=2.0)
    outcome = serve(placed("dp", 1), [pair], FRESH)[0]
    early, late = outcome.requests
    ends = step_ends(outcome.segments[0])
    assert early.first < late.arrival < late.first < early.last
    waited = [end for end in ends if late.arrival < end < late.first]
    assert len(waited) <= 1


def test_a_prefix_cache_keeps_what_was_used_last() -> None:
    cache = PrefixCache(capacity=4 * BLOCK)
    cache.keep("a", 2 * BLOCK)
    cache.keep("b", 2 * BLOCK)
    assert cache.hit("a", 9 * BLOCK) == cache.hit("b", 9 * BLOCK) == 2 * BLOCK
    assert cache.hit("a", 2 * BLOCK) == BLOCK, "the last token is always computed"
    cache.keep("c", BLOCK)
    assert [cache.hit(name, 9 * BLOCK) // BLOCK for name in "abc"] == [1, 2, 1]
    cache.keep("d", BLOCK, generated=3 * BLOCK)
    assert [cache.hit(name, 9 * BLOCK) // BLOCK for name in "abcd"] == [0, 0, 0, 1]


OWN_LENGTHS = {"dataset": "sharegpt", "input_len": None, "output_len": None}
RAMP_UP = RampUp(strategy="linear", start_rps=1, end_rps=10)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_prompts": 0}, "workload num_prompts = 0: expected"),
        ({"input_len": 0}, "workload input_len = 0: expected"),
        ({"output_len": -1}, "workload output_len = -1: expected"),
        ({"request_rate": 0.0}, "workload request_rate = 0.0: expected"),
        ({"request_rate": math.nan}, "workload request_rate = nan: expected"),
        ({"max_concurrency": 0}, "workload max_concurrency = 0: expected"),
        (OWN_LENGTHS, "dataset 'sharegpt' cannot be simulated: "),
        ({"request_rate": 8.0, "burstiness": 0.5}, "a load with burstiness cannot be simulated"),
        ({"ramp_up": RAMP_UP}, "a load with ramp_up cannot be simulated"),
        ({"options": {"random-range-ratio": "0.5"}}, "options random-range-ratio cannot be sim"),
        (
            {"num_prompts": UNKNOWN},
            "workload random-96-24-n-unknown cannot be run: unknown are num_prompts",
        ),
        (
            {"options": UNKNOWN},
            "workload random-96-24-n48+unknown cannot be run: unknown are options",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_workloads_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run("dp", replace(SMALL, **change))
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def allocated() -> SimulatedAllocation:
    return SimulatedAllocation(FRESH, backend_of(FRESH).hosts(FRESH))


def deployed(topology: str, rotation: int = 0) -> AbstractContextManager[SimulatedDeployment]:
    return deploy_simulated(
        allocated(),
        Topology.parse(topology),
        FRESH,
        logs=Path("logs"),
        progress=lambda _: None,
        rotation=rotation,
    )


def test_other_tensor_parallel_sizes_are_refused() -> None:
    with pytest.raises(PlacementError, match="engines of 4 GPUs"), deployed("1p3d-tp4"):
        pass


def test_an_unknown_bad_node_is_refused() -> None:
    ill = simulating(SimulationSpec(bad_node="node9"))
    with pytest.raises(ConfigError, match="'node9', expected one of node0, node1, node2, node3"):
        run("dp", system=ill)


def test_nothing_starts_on_nodes_that_do_not_exist() -> None:
    nodes = allocated()
    with pytest.raises(LaunchError, match="simulated"):
        nodes.start([Command(name="x", node="node0", argv=("x",))], logs=[], secrets={})


@pytest.mark.parametrize("topology", ARTICLE_TOPOLOGIES)
def test_a_simulated_run_is_sane_and_says_what_it_is(topology: str) -> None:
    with deployed(topology) as deployment:
        measured = simulate(deployment.placement, SMALL, FRESH)
        found = findings_of(observation_of(deployment, SMALL, measured), FRESH)
    assert [(f.check, f.severity) for f in found] == [("simulated", "note")]


def test_instances_take_the_nodes_of_their_start() -> None:
    with deployed("1p1d") as first, deployed("1p1d", rotation=3) as second:
        assert first.placement.nodes == ("node0", "node1")
        first.replace_servers(second)
        assert first.placement.nodes == ("node3", "node0")


def spread(spec: SimulationSpec, nights: int = 200) -> tuple[float, float]:
    """Standard deviation of the log service factor, and correlation of two cells of a night."""
    pairs = [
        [math.log(draw(replace(spec, night=n), key).service) for key in "ab"] for n in range(nights)
    ]
    variance = sum(x * x + y * y for x, y in pairs) / (2 * nights)
    return math.sqrt(variance), sum(x * y for x, y in pairs) / nights / variance


def test_noise_is_as_large_and_as_shared_as_asked() -> None:
    sd, shared = spread(SimulationSpec(run_cv=0.01, icc=0.5), nights=800)
    assert sd == pytest.approx(0.01, rel=0.1)
    assert shared == pytest.approx(0.5, abs=0.12)


def test_no_noise_unless_asked_and_the_same_for_the_same_run() -> None:
    assert draw(SimulationSpec(), "a") == draw(SimulationSpec(seed=3), "b")
    noisy = SimulationSpec(**SimulationSpec.complete({"noise": "reference"}))
    assert draw(noisy, "a") == draw(noisy, "a") != draw(noisy, "b")
    drifting = SimulationSpec(drift_per_night=0.01, night=10)
    assert draw(drifting, "a").service == pytest.approx(1.01**10)


def test_noise_moves_all_times_of_a_run_together() -> None:
    plain, slow = (
        simulate(placed("1p3d"), SMALL, simulating(spec)).result.raw
        for spec in (SimulationSpec(), SimulationSpec(drift_per_night=0.05, night=1))
    )
    for name in ("mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "mean_e2el_ms"):
        assert slow[name] / plain[name] == pytest.approx(1.05)
    assert slow["output_throughput"] / plain["output_throughput"] == pytest.approx(1 / 1.05)


def test_first_tokens_have_noise_of_their_own() -> None:
    spread_out = replace(SMALL, input_len=1024, num_prompts=160)
    plain, noisy = (
        simulate(placed("dp"), spread_out, simulating(spec)).result.raw
        for spec in (SimulationSpec(seed=1), SimulationSpec(ttft_tail_cv=0.05, seed=1))
    )
    assert noisy["p50_ttft_ms"] == pytest.approx(plain["p50_ttft_ms"], rel=0.01)
    assert abs(math.log(noisy["p99_ttft_ms"] / plain["p99_ttft_ms"])) > 0.01
    assert noisy["mean_itl_ms"] == pytest.approx(plain["mean_itl_ms"])


def test_noise_of_first_tokens_leaves_throughput_alone() -> None:
    plain, noisy = (
        simulate(placed("1p3d"), SMALL, simulating(spec)).result.raw
        for spec in (SimulationSpec(seed=1), SimulationSpec(ttft_cv=0.3, seed=1))
    )
    assert noisy["mean_ttft_ms"] != pytest.approx(plain["mean_ttft_ms"], rel=1e-4)
    assert noisy["output_throughput"] == pytest.approx(plain["output_throughput"])
