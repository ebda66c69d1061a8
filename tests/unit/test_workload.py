"""Workloads, the ids that name the whole of them, and the article's two panels."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import fields
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import assume
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_pdserve.results.kinds import RECORD
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Record
from pytest_pdserve.values.sweep import Sweep
from pytest_pdserve.values.workload import LENGTH_FLAGS
from pytest_pdserve.values.workload import UNKNOWN
from pytest_pdserve.values.workload import RampUp
from pytest_pdserve.values.workload import Workload

PLAIN = Workload(input_len=512, output_len=256, num_prompts=1024)
RAMP = RampUp(strategy="linear", start_rps=1, end_rps=10)
IMPORTED = Workload(
    dataset=UNKNOWN,
    num_prompts=4,
    burstiness=UNKNOWN,
    options=UNKNOWN,
    counted_tokens=(2048, 1024),
)


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        (PLAIN, "random-512-256-n1024"),
        (replace(PLAIN, request_rate=8.0), "random-512-256-n1024-rate8"),
        (replace(PLAIN, request_rate=0.1 + 0.2), "random-512-256-n1024-rate0.30000000000000004"),
        (
            replace(PLAIN, request_rate=8.0, burstiness=0.5),
            "random-512-256-n1024-rate8-burst0.5",
        ),
        (replace(PLAIN, ramp_up=RAMP), "random-512-256-n1024-ramp-linear-1to10"),
        (replace(PLAIN, max_concurrency=16), "random-512-256-n1024-c16"),
        (replace(PLAIN, dataset="random-mm"), "random-mm-512-256-n1024"),
        (
            replace(
                PLAIN, options={"seeded": "", "random-range-ratio": "0.5", "goodput": "a b+=/"}
            ),
            "random-512-256-n1024+goodput=a%20b%2B%3D%2F+random-range-ratio=0.5+seeded=",
        ),
        (
            Workload(num_prompts=64, request_rate=0.5, max_concurrency=4, dataset="sharegpt"),
            "sharegpt-n64-rate0.5-c4",
        ),
        (IMPORTED, "unknown-2048in-1024out-n4-burst-unknown+unknown"),
        (
            Workload(
                input_len=UNKNOWN,
                output_len=256,
                num_prompts=UNKNOWN,
                request_rate=UNKNOWN,
                max_concurrency=UNKNOWN,
                counted_tokens=(2050, 1024),
            ),
            "random-unknown-256-2050in-1024out-n-unknown-rate-unknown-c-unknown",
        ),
    ],
    ids=[
        *("lengths", "rate", "digits", "burstiness", "ramp-up", "concurrency", "data set"),
        *("options", "own lengths", "import", "unknown"),
    ],
)
def test_a_workload_is_named_for_what_it_asks(workload: Workload, name: str) -> None:
    assert workload.id == name


def test_what_a_client_does_by_itself_is_not_named() -> None:
    default = replace(PLAIN, request_rate=None, burstiness=1, ramp_up=None, options={})
    assert default.id == PLAIN.id


NAMES = st.one_of(
    st.sampled_from([*LENGTH_FLAGS, UNKNOWN, "sharegpt"]),
    st.sampled_from(
        [
            *("random-512", "random-512-256", "random-512-256-n4", "random-unknown", "sonnet-1"),
            *("a", "a-1", "a-n4", "a-n4-rate8", "a-1in-1out", "a-unknown", "a-unknown-unknown"),
            *("unknown-1", "n4", "a-", "-", "."),
        ]
    ),
    st.from_regex(r"[a-c1.-]{1,4}", fullmatch=True),
)
SMALL = st.integers(1, 3)
RATES = st.sampled_from([0.5, 1, 2, 8.0, 10.0, 1e-3, 0.1 + 0.2, 0.3]) | st.floats(0.001, 1e6)
RAMPS = st.builds(
    lambda strategy, ends: RampUp(strategy=strategy, start_rps=min(ends), end_rps=max(ends)),
    strategy=st.sampled_from(["linear", "exponential"]),
    ends=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
VALUES = st.one_of(
    st.sampled_from(["", "1", "a=1", "1+b=1", "-n4", "-c3", UNKNOWN, "%2B", "+", "/", "ä", "\n"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
FLAGS = st.sampled_from(["a", "a-1", "b", "1", "option", "unknown", "random-range-ratio"])
LOADS: dict[str, st.SearchStrategy[Any]] = {
    "num_prompts": SMALL | st.just(UNKNOWN),
    "request_rate": st.none() | RATES | st.just(UNKNOWN),
    "burstiness": st.just(1.0) | RATES | st.just(UNKNOWN),
    "ramp_up": st.none() | RAMPS,
    "max_concurrency": st.none() | SMALL | st.just(UNKNOWN),
    "options": st.dictionaries(FLAGS, VALUES, max_size=2) | st.just(UNKNOWN),
}
LENGTHS = SMALL | st.just(512) | st.just(UNKNOWN)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Workloads over all fields, unknowns among them, of pools in which many are nearly alike."""
    dataset = draw(NAMES)
    given: dict[str, Any] = {name: draw(values) for name, values in LOADS.items()}
    if given["request_rate"] not in (None, UNKNOWN):
        given["ramp_up"] = None
    elif given["request_rate"] is None and given["ramp_up"] is None:
        given["burstiness"] = draw(st.sampled_from([1.0, UNKNOWN]))
    if dataset in LENGTH_FLAGS or (dataset == UNKNOWN and draw(st.booleans())):
        given |= {"input_len": draw(LENGTHS), "output_len": draw(LENGTHS)}
    if UNKNOWN in (given.get("input_len", UNKNOWN), given.get("output_len", UNKNOWN)):
        given["counted_tokens"] = draw(st.none() | st.tuples(SMALL, SMALL))
    return Workload(dataset=dataset, **given)


@given(st.lists(workloads(), min_size=2, max_size=8))
def test_two_loads_share_an_id_only_if_they_are_the_same(loads: list[Workload]) -> None:
    for one, other in itertools.combinations(loads, 2):
        assert (one.id == other.id) is (one == other)


@given(workloads(), workloads(), st.sampled_from([each.name for each in fields(Workload)]))
def test_loads_that_differ_in_one_field_differ_in_their_id(
    load: Workload, donor: Workload, name: str
) -> None:
    assume(getattr(load, name) != getattr(donor, name))
    try:
        changed = replace(load, **{name: getattr(donor, name)})
    except ConfigError:  # what does not go with the load's other fields
        assume(False)
    assert changed.id != load.id
    assert changed.seed(0) != load.seed(0) or changed.seed(1) != load.seed(1)


BY_ITSELF = {"input_len": None, "output_len": None}
"""Of a data set that brings lengths of its own."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"request_rate": 0.3}, {"request_rate": 0.1 + 0.2}),
        ({"request_rate": None}, {"request_rate": UNKNOWN}),
        ({"burstiness": 1.0}, {"burstiness": UNKNOWN}),
        ({"request_rate": 8.0}, {"request_rate": 8.0, "burstiness": 8.0}),
        ({"max_concurrency": None}, {"max_concurrency": UNKNOWN}),
        ({"ramp_up": RAMP}, {"ramp_up": replace(RAMP, strategy="exponential")}),
        ({"ramp_up": RAMP}, {"ramp_up": replace(RAMP, end_rps=11)}),
        ({"options": {}}, {"options": UNKNOWN}),
        ({"options": {UNKNOWN: ""}}, {"options": UNKNOWN}),
        ({"options": {"a": "1", "b": "1"}}, {"options": {"a": "1+b=1"}}),
        ({"options": {"a": "1"}}, {"options": {"a1": ""}}),
        ({"options": {"a": "%2B"}}, {"options": {"a": "+"}}),
        ({}, {**BY_ITSELF, "dataset": "random-512-256"}),
        ({"input_len": UNKNOWN}, {**BY_ITSELF, "dataset": "random-unknown-256"}),
        ({"output_len": UNKNOWN}, {"output_len": UNKNOWN, "counted_tokens": (512, 256)}),
        ({"dataset": UNKNOWN}, {**BY_ITSELF, "dataset": UNKNOWN, "counted_tokens": (512, 256)}),
        ({"request_rate": 8}, {"max_concurrency": 8}),
        ({"request_rate": UNKNOWN}, {"max_concurrency": UNKNOWN}),
    ],
    ids=[
        *("digits", "no rate", "no burstiness", "burstiness", "no bound", "strategies", "ends"),
        "no option",
        *(
            "an unknown option",
            "an odd value",
            "an odd flag",
            "a quoted value",
            "a name of lengths",
        ),
        *("a name of an unknown", "counted", "counted or asked", "rate or bound", "either unknown"),
    ],
)
def test_loads_that_are_nearly_alike_have_ids_of_their_own(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert replace(PLAIN, **one).id != replace(PLAIN, **other).id


@given(workloads())
@example(PLAIN)
@example(replace(PLAIN, input_len=UNKNOWN, output_len=UNKNOWN))
@example(IMPORTED)
def test_no_data_set_has_a_name_that_makes_it_another_load(load: Workload) -> None:
    others = {name: getattr(load, name) for name in LOADS}
    for cut in (match.start() for match in re.finditer("-", load.id)):
        try:
            rival = Workload(dataset=load.id[:cut], **others)
        except ConfigError:  # no name of a data set, or of one that takes lengths
            continue
        assert (rival.id == load.id) is (rival == load)


@given(workloads())
def test_an_id_is_made_of_what_file_names_can_have(load: Workload) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._~%+=-]+", load.id)


TOKENS = "expected a whole number of tokens from 1 to 10,000,000"
REQUESTS = "expected a whole number of requests from 1 to 10,000,000"
RATE = "expected requests per second from 0.001 to 1,000,000, or None to send all at once"
FINITE = "expected a finite number"
RAMP_UP = "expected a RampUp with a strategy ('linear', 'exponential') and two whole rates from 1"
BOUND = "expected a whole number of requests from 1 to 1,000,000, or None for no bound"
NAME = "expected a name of letters, digits, '.', '_' and '-', at most 60"
OPTIONS = "expected a dict of flags without dashes in front, and their values as text"
COUNTED = "expected a tuple of two whole numbers from 0"
FIELD = (
    "is set by pdserve, or a field of the load (input_len, output_len, num_prompts, request_rate, "
    "burstiness, ramp_up, max_concurrency, dataset, options, counted_tokens); leave it out"
)
OWN = "brings lengths of its own; leave it out (lengths are for random, random-mm, sonnet)"
UNCOUNTED = {"input_len": UNKNOWN}
"""What tokens are counted for."""


def ramp(**changes: Any) -> dict[str, Any]:
    return {"ramp_up": replace(RAMP, **changes)}


def ramp_said(values: str) -> str:
    return f"ramp_up = RampUp(strategy={values}): {RAMP_UP}"


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"input_len": 0}, f"input_len = 0: {TOKENS}"),
    ({"input_len": -512}, f"input_len = -512: {TOKENS}"),
    ({"input_len": 512.0}, f"input_len = 512.0: {TOKENS}"),
    ({"input_len": "512"}, f"input_len = '512': {TOKENS}"),
    ({"input_len": True}, f"input_len = True: {TOKENS}"),
    ({"input_len": 10_000_001}, f"input_len = 10000001: {TOKENS}"),
    ({"input_len": 10**400}, f"input_len = 1{'0' * 79}: {TOKENS}"),
    ({"input_len": None}, "input_len is missing: data set 'random' takes lengths"),
    ({"output_len": 0}, f"output_len = 0: {TOKENS}"),
    ({"output_len": [256]}, f"output_len = [256]: {TOKENS}"),
    ({"output_len": None}, "output_len is missing: data set 'random' takes lengths"),
    ({"num_prompts": 0}, f"num_prompts = 0: {REQUESTS}"),
    ({"num_prompts": 4.5}, f"num_prompts = 4.5: {REQUESTS}"),
    ({"num_prompts": "4"}, f"num_prompts = '4': {REQUESTS}"),
    ({"num_prompts": None}, f"num_prompts = None: {REQUESTS}"),
    ({"num_prompts": math.inf}, f"num_prompts = inf: {FINITE}"),
    ({"request_rate": 0}, f"request_rate = 0: {RATE}"),
    ({"request_rate": -8.0}, f"request_rate = -8.0: {RATE}"),
    ({"request_rate": 1e-4}, f"request_rate = 0.0001: {RATE}"),
    ({"request_rate": 1e7}, f"request_rate = 10000000.0: {RATE}"),
    ({"request_rate": "inf"}, f"request_rate = 'inf': {RATE}"),
    (
        {"request_rate": math.inf},
        f"request_rate = inf: {FINITE}; leave it out to send all at once",
    ),
    (
        {"request_rate": math.nan},
        f"request_rate = nan: {FINITE}; leave it out to send all at once",
    ),
    ({"burstiness": 0}, "burstiness = 0: expected a number above 0"),
    ({"burstiness": -1.0}, "burstiness = -1.0: expected a number above 0"),
    ({"burstiness": None}, "burstiness = None: expected a number above 0"),
    ({"burstiness": "1"}, "burstiness = '1': expected a number above 0"),
    ({"burstiness": math.nan}, f"burstiness = nan: {FINITE}"),
    ({"ramp_up": "linear"}, f"ramp_up = 'linear': {RAMP_UP}"),
    ({"ramp_up": UNKNOWN}, f"ramp_up = 'unknown': {RAMP_UP}"),
    (
        {"ramp_up": {"strategy": "linear", "start_rps": 1, "end_rps": 2}},
        f"ramp_up = {{'strategy': 'linear', 'start_rps': 1, 'end_rps': 2}}: {RAMP_UP}",
    ),
    (ramp(strategy="cubic"), ramp_said("'cubic', start_rps=1, end_rps=10")),
    (ramp(start_rps=0), ramp_said("'linear', start_rps=0, end_rps=10")),
    (ramp(end_rps=math.inf), ramp_said("'linear', start_rps=1, end_rps=inf")),
    (ramp(end_rps=UNKNOWN), ramp_said("'linear', start_rps=1, end_rps='unknown'")),
    (ramp(end_rps=2.5), ramp_said("'linear', start_rps=1, end_rps=2.5")),
    (ramp(end_rps="10"), ramp_said("'linear', start_rps=1, end_rps='10'")),
    (ramp(start_rps=11), "ramp_up from 11 to 10 req/s: expected a rate that grows"),
    (
        {**ramp(), "request_rate": 8.0},
        "request_rate = 8.0 with a ramp_up: the ramp-up sets the rate; leave request_rate out",
    ),
    (
        {"burstiness": 0.5},
        "burstiness = 0.5 without a request_rate: it has no effect where all is sent at once; set "
        "a rate, or leave it out",
    ),
    ({"max_concurrency": 0}, f"max_concurrency = 0: {BOUND}"),
    ({"max_concurrency": 1.5}, f"max_concurrency = 1.5: {BOUND}"),
    ({"max_concurrency": "16"}, f"max_concurrency = '16': {BOUND}"),
    ({"dataset": ""}, f"dataset = '': {NAME}"),
    ({"dataset": "a b"}, f"dataset = 'a b': {NAME}"),
    ({"dataset": "../x"}, f"dataset = '../x': {NAME}"),
    ({"dataset": "a\n"}, f"dataset = 'a\\n': {NAME}"),
    ({"dataset": "ä"}, f"dataset = 'ä': {NAME}"),
    ({"dataset": "x" * 61}, f"dataset = '{'x' * 61}': {NAME}"),
    ({"dataset": None}, f"dataset = None: {NAME}"),
    ({**BY_ITSELF, "dataset": b"random"}, f"dataset = b'random': {NAME}"),
    ({"dataset": "sharegpt"}, f"input_len = 512: data set 'sharegpt' {OWN}"),
    (
        {"dataset": "sharegpt", "input_len": None},
        f"output_len = 256: data set 'sharegpt' {OWN}",
    ),
    ({"options": None}, f"options = None: {OPTIONS}"),
    ({"options": "none"}, f"options = 'none': {OPTIONS}"),
    ({"options": (("a", "1"),)}, f"options = (('a', '1'),): {OPTIONS}"),
    ({"options": {"a": 1}}, f"options = {{'a': 1}}: {OPTIONS}"),
    ({"options": {"a": None}}, f"options = {{'a': None}}: {OPTIONS}"),
    ({"options": {"a": b"1"}}, f"options = {{'a': b'1'}}: {OPTIONS}"),
    ({"options": {"a": "\ud800"}}, f"options = {{'a': '\\ud800'}}: {OPTIONS}"),
    ({"options": {"a": "x" * 1001}}, f"options = {{'a': '{'x' * 73}: {OPTIONS}"),
    ({"options": {"--a": "1"}}, f"options = {{'--a': '1'}}: {OPTIONS}"),
    ({"options": {"A": "1"}}, f"options = {{'A': '1'}}: {OPTIONS}"),
    ({"options": {"a=1+b": "1"}}, f"options = {{'a=1+b': '1'}}: {OPTIONS}"),
    ({"options": {"": "1"}}, f"options = {{'': '1'}}: {OPTIONS}"),
    (
        {"options": {"request-rate": "8"}},
        f"options.request-rate: {FIELD}",
    ),
    (
        {"options": {"sonnet-input-len": "8"}},
        f"options.sonnet-input-len: {FIELD}",
    ),
    (
        {"options": {"seed": "1"}},
        f"options.seed: {FIELD}",
    ),
    (
        {"counted_tokens": (8, 4)},
        "counted_tokens = (8, 4): expected None, since the lengths are known",
    ),
    ({**UNCOUNTED, "counted_tokens": 8}, f"counted_tokens = 8: {COUNTED}"),
    ({**UNCOUNTED, "counted_tokens": (8,)}, f"counted_tokens = (8,): {COUNTED}"),
    ({**UNCOUNTED, "counted_tokens": (8, 0.5)}, f"counted_tokens = (8, 0.5): {COUNTED}"),
    ({**UNCOUNTED, "counted_tokens": (-8, 4)}, f"counted_tokens = (-8, 4): {COUNTED}"),
)


@pytest.mark.parametrize(
    ("changes", "message"), REFUSED, ids=[said.partition(": ")[0][:60] for _, said in REFUSED]
)
def test_a_load_that_cannot_be_asked_for_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Workload(**{"input_len": 512, "output_len": 256, "num_prompts": 4, **changes})
    assert str(refused.value) == f"workload {message}"


def test_a_load_of_which_something_is_unknown_cannot_be_run() -> None:
    with pytest.raises(ConfigError) as refused:
        IMPORTED.known()
    assert str(refused.value) == (
        f"workload {IMPORTED.id} cannot be run: unknown are burstiness, dataset, options"
    )


def test_a_known_load_is_what_was_asked_for() -> None:
    load = replace(PLAIN, request_rate=8.0, options={"goodput": "ttft:100"})
    known = load.known()
    assert (known.lengths, known.num_prompts, known.max_concurrency) == ((512, 256), 1024, None)
    assert (known.request_rate, known.burstiness) == (8.0, 1.0)
    assert known.options == {"goodput": "ttft:100"}


def test_lengths_are_known_both_or_not_at_all() -> None:
    assert PLAIN.lengths == (512, 256)
    assert replace(PLAIN, input_len=UNKNOWN).lengths is None
    assert IMPORTED.lengths is None


def test_seeds_differ_between_loads_repeats_and_sessions_and_nothing_else() -> None:
    other = replace(PLAIN, output_len=512)
    same = Sweep(input_lens=(512,), output_lens=(256,)).points()[0]
    seeds = [PLAIN.seed(0), PLAIN.seed(1), other.seed(0), PLAIN.seed(0, "tonight")]
    assert len({*seeds, PLAIN.seed(0, "tomorrow")}) == 5
    assert same.workload.seed(0, "tonight") == seeds[3]


def test_the_articles_panels_share_a_cell() -> None:
    assert {point.test_id: point.panels for point in Sweep().points()} == {
        "512-256": ("prefill", "decode"),
        "1024-256": ("prefill",),
        "2048-256": ("prefill",),
        "4096-256": ("prefill",),
        "512-512": ("decode",),
        "512-1024": ("decode",),
        "512-2048": ("decode",),
        "512-4096": ("decode",),
    }


def test_a_scaled_sweep_remembers_the_articles_lengths() -> None:
    points = Sweep(length_divisor=16, num_prompts=4, request_rate=2.0).points()
    second = points[1]
    assert second.workload.lengths == (64, 16)
    assert second.article_lengths == (1024, 256)
    assert (second.test_id, second.name) == ("64-16", "1024-256-rate2")
    assert second.id == second.workload.id == "random-64-16-n4-rate2"
    asked = {(p.workload.num_prompts, p.workload.request_rate) for p in points}
    assert asked == {(4, 2.0)}


def test_a_point_is_named_in_the_articles_lengths_whatever_else_is_asked() -> None:
    sweep = Sweep(ramp_up=RAMP, max_concurrency=8, options={"goodput": "ttft:100"})
    assert sweep.points()[0].name == "512-256"


@pytest.mark.parametrize(
    "arrivals",
    [
        {"request_rate": 2.0, "burstiness": 0.5},
        {"ramp_up": RAMP, "burstiness": 0.5},
        {},
    ],
    ids=["at a rate", "ramped up", "at once"],
)
def test_every_workload_of_a_sweep_is_asked_all_of_it(arrivals: dict[str, Any]) -> None:
    asked: dict[str, Any] = {
        "num_prompts": 4,
        "max_concurrency": 8,
        "dataset": "sonnet",
        "options": {"goodput": "ttft:100"},
        **arrivals,
    }
    (workload,) = Sweep(input_lens=(512,), output_lens=(256,), **asked).workloads()
    assert workload == Workload(input_len=512, output_len=256, **asked)


def test_a_data_set_with_lengths_of_its_own_makes_a_sweep_of_one_load() -> None:
    (point,) = Sweep(dataset="sharegpt", num_prompts=8).points()
    assert (point.panels, point.article_lengths) == (("prefill", "decode"), None)
    assert point.id == point.name == point.test_id == "sharegpt-n8"


@pytest.mark.parametrize("name", ["input_lens", "output_lens"])
def test_a_data_set_with_lengths_of_its_own_takes_none(name: str) -> None:
    lengths: dict[str, Any] = {name: (512,)}
    sweep = Sweep(dataset="sharegpt", **lengths)
    with pytest.raises(ConfigError) as refused:
        sweep.points()
    assert str(refused.value) == (
        f"sweep.{name}: data set 'sharegpt' brings lengths of its own; leave it out"
    )


def test_a_length_that_cannot_be_scaled_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.length_divisor = 3 does not divide length 512"):
        Sweep(length_divisor=3).workloads()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workloads())
def test_a_workload_is_read_back_from_a_record(
    make_record: Callable[..., Record], workload: Workload
) -> None:
    written = json.dumps(RECORD.dump(make_record(workload=workload), "r.json"), allow_nan=False)
    read = RECORD.parse(json.loads(written), "r.json").workload
    assert (read, read.id) == (workload, workload.id)


def test_a_load_that_is_sent_at_once_has_no_rate(make_record: Callable[..., Record]) -> None:
    written = RECORD.dump(make_record(workload=PLAIN), "r.json")
    assert written["workload"]["request_rate"] is None
    assert RECORD.parse(written, "r.json").workload.request_rate is None
