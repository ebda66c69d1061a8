"""The load before the first measurement of a start: what it is, and that it is sent once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import cast

import pytest

from pytest_pdserve.plan.warm_load import WarmLoad
from pytest_pdserve.plan.warm_load import longer_load
from pytest_pdserve.plan.warm_load import warm_load
from pytest_pdserve.serving.readiness import Server
from pytest_pdserve.serving.warm_load import WarmUp
from pytest_pdserve.serving.warmup import Completions
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.workload import Workload


def load(prompt: int, output: int = 256, **fields: Any) -> Workload:
    return Workload(input_len=prompt, output_len=output, **{"num_prompts": 1024, **fields})


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([load(512, max_concurrency=64), load(4096, max_concurrency=8)], (64, 512)),
        ([load(512), load(4096)], (992, 512)),  # a tenth of the tokens is less than all at once
        ([load(512, num_prompts=16, max_concurrency=64)], (2, 512)),
        ([load(512, num_prompts=1)], (1, 512)),
        ([Workload(dataset="sharegpt", num_prompts=8)], None),
    ],
    ids=["largest concurrency", "a tenth", "few prompts", "one at least", "unknown lengths"],
)
def test_it_is_as_large_as_the_largest_concurrency(
    loads: Sequence[Workload], expected: tuple[int, int] | None
) -> None:
    made = warm_load(loads, min_requests=1)
    assert (made and (made.requests, made.prompt_tokens)) == expected


@pytest.mark.parametrize(
    ("prompts", "concurrency", "pairs", "requests"),
    [
        (256, None, 3, 27),  # a tenth of 256 x 4352 tokens, 4112 each
        (256, 16, 3, 16),
        (16, 4, 3, 6),  # two per pair
    ],
)
def test_longer_prompts_are_warmed_at_the_cells_own_concurrency(
    prompts: int, concurrency: int | None, pairs: int, requests: int
) -> None:
    cell = Workload(
        input_len=4096, output_len=256, num_prompts=prompts, max_concurrency=concurrency
    )
    assert longer_load(cell, pairs=pairs) == WarmLoad(
        requests=requests, prompt_tokens=4096, output_tokens=16
    )
    assert longer_load(Workload(num_prompts=4, dataset="sharegpt"), pairs=2) is None


@dataclass
class Asked:
    """Stands for what sends requests, and remembers them."""

    sent: list[tuple[str, tuple[int, ...], int]] = field(default_factory=list)

    def transfer(self, first: Any, other: Any, prompt: Sequence[int], *, tokens: int) -> None:
        self.sent.append((f"{first[0].name}>{other[0].name}", tuple(prompt), tokens))

    def ask_engine(self, engine: Any, prompt: Sequence[int], *, tokens: int) -> None:
        self.sent.append((f"{engine[0].name}.{engine[1]}", tuple(prompt), tokens))


def server(name: str, role: str, engines: int = 1) -> Server:
    return Server(name=name, role=role, url="http://n:1", process=None, engines=engines)


PD = [server("p", "prefill"), server("d0", "decode"), server("d1", "decode")]


def warm(
    warmth: WarmUp, workload: Workload, servers: Sequence[Server], asked: Asked | None = None
) -> Asked:
    asked = asked or Asked()
    warmth.warm_for(
        workload,
        [load(512, max_concurrency=4)],
        servers=servers,
        completions=cast("Completions", asked),
        vocabulary=1000,
    )
    return asked


def test_it_is_sent_once_over_all_pairs_and_longer_prompts_before_they_are_measured() -> None:
    warmth = WarmUp()
    first = warm(warmth, load(512, max_concurrency=4), PD)
    assert sorted(way for way, _, _ in first.sent) == ["p>d0"] * 2 + ["p>d1"] * 2
    assert {(len(prompt), tokens) for _, prompt, tokens in first.sent} == {(512, 16)}
    assert warm(warmth, load(512, 4096), PD).sent == []
    longer = warm(warmth, load(4096, max_concurrency=4), PD)
    assert sorted(way for way, _, _ in longer.sent) == ["p>d0"] * 2 + ["p>d1"] * 2
    assert {len(prompt) for _, prompt, _ in longer.sent} == {4096}
    assert warm(warmth, load(1024), PD).sent == []
    prompts = [prompt for _, prompt, _ in (*first.sent, *longer.sent)]
    assert len({prompt[:16] for prompt in prompts}) == len(prompts)
    assert warmth.done.pop("seconds") >= 0
    assert warmth.done == {
        "requests": 4,
        "prompt_tokens": 512,
        "output_tokens": 16,
        "longer_requests": 4,
        "longer_prompt_tokens": 4096,
    }


def test_every_pair_is_asked_and_no_output_is_longer_than_asked() -> None:
    few = warm_load([load(512, 4, num_prompts=1)], min_requests=3)
    assert few == WarmLoad(requests=3, prompt_tokens=512, output_tokens=4)


def test_a_load_that_failed_is_sent_again() -> None:
    class Fails(Asked):
        def transfer(self, *args: Any, **named: Any) -> None:
            raise PathError("no answer")

    warmth, workload = WarmUp(), load(512, max_concurrency=4)
    with pytest.raises(PathError):
        warm(warmth, workload, PD, Fails())
    assert len(warm(warmth, workload, PD).sent) == 4


def test_engines_that_answer_alone_are_each_asked() -> None:
    asked = warm(WarmUp(), load(512, max_concurrency=4), [server("a", "aggregated", engines=2)])
    assert sorted(way for way, _, _ in asked.sent) == ["a.0"] * 2 + ["a.1"] * 2


def test_an_endpoint_of_somebody_elses_is_left_alone() -> None:
    warmth = WarmUp()
    assert warm(warmth, load(512), [server("endpoint", "router")]).sent == []
    assert warmth.done == {}
