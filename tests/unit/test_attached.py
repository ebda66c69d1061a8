"""An endpoint that somebody else runs, in the place of a system's own servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pdserve.backends.attached import AttachedSpec
from pytest_pdserve.backends.attached import attached_to
from pytest_pdserve.backends.attached import endpoint_of
from pytest_pdserve.backends.attached import with_endpoint
from pytest_pdserve.backends.attached.naming import parse_base_url
from pytest_pdserve.backends.attached.naming import parse_instances
from pytest_pdserve.backends.attached.naming import read_api_key
from pytest_pdserve.backends.backend import Request
from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.judge.client_checks import check_answers
from pytest_pdserve.judge.client_checks import check_tokens
from pytest_pdserve.serving.endpoint import ServedModel
from pytest_pdserve.serving.endpoint import named_servers
from pytest_pdserve.serving.endpoint import with_served_model
from pytest_pdserve.serving.model import with_model_path
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.observation import ControlAnswers
from pytest_pdserve.values.observation import Observation
from pytest_pdserve.values.result import BenchResult
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.workload import Workload

URL = "http://h:8010"


def test_an_endpoint_that_is_not_named_is_asked_for(p5_efa: System, tmp_path: Path) -> None:
    attached = replace(p5_efa, cluster=replace(p5_efa.cluster, kind="attached"), tables={})
    backend = backend_of(attached)
    said = (
        "system 'p5-efa' is of kind 'attached' and names no endpoint; give --pdserve-base-url, or "
        "[attached] base_url in the system file"
    )
    with pytest.raises(ConfigError) as checked:
        backend.check(attached)
    request = Request(folder=tmp_path / "run" / "attached", progress=lambda _: None)
    with pytest.raises(ConfigError) as asked, backend.acquire(attached, request):
        pass
    assert str(checked.value) == str(asked.value) == said


def test_an_endpoint_takes_the_place_of_a_systems_own_servers(p5_efa: System) -> None:
    attached = attached_to(p5_efa, "http://n:1")
    backend = backend_of(attached)
    backend.check(attached)
    assert (attached.cluster.kind, attached.tables) == (
        "attached",
        {"attached": AttachedSpec(base_url="http://n:1")},
    )
    assert (attached.model, attached.sweep) == (p5_efa.model, p5_efa.sweep)
    assert not backend.starts_servers
    assert backend.describe_hardware(attached) == {"endpoint": "http://n:1"}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h:8010", "http://h:8010"),
        ("http://h:8010/", "http://h:8010"),
        ("http://h:8010/v1", "http://h:8010"),
        ("http://h:8010/v1///", "http://h:8010"),
        ("https://h/llm/v1/", "https://h/llm"),
        ("http://h/v1beta", "http://h/v1beta"),
        ("HTTP://[::1]:8010/v1", "http://[::1]:8010"),
    ],
)
def test_a_base_url_may_have_v1_and_slashes_at_its_end(text: str, url: str) -> None:
    assert parse_base_url(text, "URL") == url


@pytest.mark.parametrize(
    "text",
    [
        *("h:8010", "ftp://h", "http://", "http://:8010", "http://h:0", "http://h:65536"),
        *("http://h:x", "http://[::1", "http://h 1", "http://h\n:80", "http://h\x07", ""),
    ],
)
def test_what_is_not_a_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_base_url(text, "--pdserve-base-url")
    assert str(refused.value) == (
        f"--pdserve-base-url {text!r} is not a URL like http://10.0.0.1:8010"
    )


@pytest.mark.parametrize(
    "text", ["http://me:sesame@h:8010", "http://me:sesame@h:0", "me:sesame@h", "http:/me:sesame@h"]
)
def test_a_password_in_a_url_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_base_url(text, "URL")
    assert str(refused.value) == "URL holds a password; put the key into PDSERVE_API_KEY"


@pytest.mark.parametrize("text", ["http://h/v1?api-key=sesame", "http://h/#sesame"])
def test_a_query_in_a_url_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_base_url(text, "URL")
    assert str(refused.value) == (
        "URL holds a query or a fragment ('?' or '#'); expected a URL like http://10.0.0.1:8010"
    )


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            ["http://h:1"],
            "X 'http://h:1' does not begin with a role; expected one of aggregated, prefill, "
            "decode, then '=' and a URL, e.g. prefill=http://10.0.0.1:8000",
        ),
        (
            ["prefil=http://h:1"],
            "X 'prefil=http://h:1' does not begin with a role; expected one of aggregated, "
            "prefill, decode, then '=' and a URL, e.g. prefill=http://10.0.0.1:8000",
        ),
        (["decode=h:1"], "X decode= 'h:1' is not a URL like http://10.0.0.1:8010"),
        (["decode="], "X decode= '' is not a URL like http://10.0.0.1:8010"),
        (
            ["decode=http://me:sesame@h"],
            "X holds a password; put the key into PDSERVE_API_KEY",
        ),
        (
            ["prefill=http://h:1", "decode=http://h:1/v1"],
            "X names http://h:1 2 times; expected each instance once",
        ),
    ],
)
def test_an_instance_has_a_role_and_a_url_of_its_own(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_instances(texts, "X")
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sesame\n", "holds a newline (character 7 of 7)"),
        ("ses\r\name", "holds a newline (character 4 of 8)"),
        (" sesame", "begins or ends with a space"),
        ("sesame ", "begins or ends with a space"),
        ("  ", "begins or ends with a space"),
        ("sés", "holds a character that is not ASCII (character 2 of 3)"),
        ("se\udcff", "holds a character that is not ASCII (character 3 of 3)"),
        ("se\tsame", "holds a control character (character 3 of 7)"),
        ("sesame\x7f", "holds a control character (character 7 of 7)"),
    ],
)
def test_a_key_that_no_header_carries_is_refused_and_not_shown(
    key: str, said: str, p5_efa: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSERVE_API_KEY", key)
    with pytest.raises(ConfigError) as refused:
        backend_of(attached_to(p5_efa, URL)).check(attached_to(p5_efa, URL))
    assert str(refused.value) == (
        f"PDSERVE_API_KEY {said}; expected visible ASCII characters, as an HTTP header carries "
        'them: set it anew, e.g. PDSERVE_API_KEY="$(cat FILE)"'
    )


@pytest.mark.parametrize("key", ["", "sk-a_b.c~d+e/f=", "two words", "\"'`$(x)"])
def test_a_key_may_have_every_visible_character(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDSERVE_API_KEY", key)
    assert read_api_key() == key


PAIR = ("prefill=http://h:1", "decode=http://h:2")


def test_a_topology_has_the_instances_that_are_named(p5_efa: System) -> None:
    attached = attached_to(p5_efa, URL, instance_urls=PAIR)
    backend = backend_of(attached)
    backend.serves(Topology.parse("1p1d"), attached)
    backend.serves(Topology.parse("1p3d"), attached_to(p5_efa, URL))
    for topology, has in (("1p3d", "1 prefill and 3 decode"), ("route2", "2 aggregated")):
        with pytest.raises(ConfigError) as refused:
            backend.serves(Topology.parse(topology), attached)
        assert str(refused.value) == (
            "--pdserve-instance-url names 1 prefill and 1 decode, but topology "
            f"{topology!r} has {has}; name each of its instances once, or none"
        )


def test_named_instances_are_called_as_a_sessions_own(p5_efa: System) -> None:
    urls = (*PAIR, "decode=http://h:3/v1")
    attached = attached_to(p5_efa, URL, instance_urls=urls)
    servers = named_servers(endpoint_of(attached), Topology.parse("1p2d-tp4x2"), attached)
    assert [(s.name, s.role, s.url, s.ranks, s.process) for s in servers] == [
        ("prefill[0]", "prefill", "http://h:1", 4, None),
        ("decode[0]", "decode", "http://h:2", 2, None),
        ("decode[1]", "decode", "http://h:3", 2, None),
    ]


def test_options_say_more_of_the_endpoint_of_a_system_file(p5_efa: System) -> None:
    filed = attached_to(p5_efa, URL, model="a", instance_urls=("aggregated=http://h:1",))
    assert with_endpoint(filed, None, None, ()) is filed
    spec = with_endpoint(filed, None, "b", PAIR).tables["attached"]
    assert spec == AttachedSpec(base_url=URL, model="b", instance_urls=PAIR)
    elsewhere = with_endpoint(filed, "http://i/v1", None, ()).tables["attached"]
    assert elsewhere == AttachedSpec(base_url="http://i")


@pytest.mark.parametrize(
    ("model", "urls", "option"),
    [("m", (), "--pdserve-model"), (None, PAIR, "--pdserve-instance-url")],
)
def test_an_option_of_an_endpoint_needs_one(
    model: str | None, urls: tuple[str, ...], option: str, p5_efa: System
) -> None:
    with pytest.raises(ConfigError) as refused:
        with_endpoint(p5_efa, None, model, urls)
    assert str(refused.value) == (
        f"{option} needs an endpoint that is up; give --pdserve-base-url, or a system of kind "
        "'attached' whose file names one, not 'p5-efa'"
    )


TINY = "/elsewhere/pytest-pdserve"


def test_the_systems_own_model_may_have_another_name_at_the_endpoint(local_cpu: System) -> None:
    own = with_model_path(local_cpu)
    path = own.model.path
    assert with_served_model(own, ServedModel(name=path)) == (own, None)
    for served in (
        ServedModel(name="alias", root=path),
        ServedModel(name=f"{TINY}/{Path(path).name}"),
    ):
        measured, foreign = with_served_model(own, served)
        assert (measured.model, foreign) == (own.model, None)
        assert measured.bench.args[-2:] == ("--served-model-name", served.name)


def test_another_model_takes_the_place_of_the_systems(p5_efa: System, tmp_path: Path) -> None:
    own = p5_efa.model.path
    measured, foreign = with_served_model(p5_efa, ServedModel(name="org/other"))
    assert (measured.model.path, foreign) == ("org/other", own)
    assert measured.bench.args[-2:] == ("--tokenizer", own)
    (tmp_path / "tokenizer.json").touch()
    here = ServedModel(name="alias", root=str(tmp_path))
    measured, foreign = with_served_model(p5_efa, here)
    assert (measured.bench.args[-2:], foreign) == (("--tokenizer", str(tmp_path)), None)


def seen_with(result: BenchResult, **fields: object) -> Observation:
    workload = Workload(input_len=512, output_len=256, num_prompts=4)
    seen = Observation(topology=Topology.parse("dp"), workload=workload, result=result)
    return replace(seen, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recounted", "short"),
    [
        (((16, 8), (16, 9)), True),
        (((16, 1), (16, 1)), True),
        (((16, 8), (16, 12)), False),
        (((16, 8),), False),
        ((), False),
        (((16, 17), (16, 40)), False),
    ],
)
def test_text_is_missing_if_every_answer_has_too_few_tokens(
    recounted: tuple[tuple[int, int], ...], short: bool, make_result: Callable[..., BenchResult]
) -> None:
    controls = ControlAnswers(answers=(" a b", " c d"), recounted=recounted)
    said = [f.severity for f in check_answers(seen_with(make_result(), controls=controls))]
    assert said == (["invalid"] if short else [])


def test_prompts_of_another_tokenizer_are_unproven(make_result: Callable[..., BenchResult]) -> None:
    result = make_result(total_input_tokens=5000)
    (finding,) = check_tokens(seen_with(result, foreign_tokenizer="own"))
    assert (finding.severity, finding.message) == (
        "unproven",
        "5000 input tokens by the server's count, expected 2048 by the tokenizer of own; name the "
        "model's own in [bench] args (--tokenizer)",
    )
    (finding,) = check_tokens(seen_with(result))
    assert finding.severity == "invalid"
