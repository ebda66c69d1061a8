"""What a user can get wrong: each is one sentence and exit code 4, before anything starts."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.support.drawn import write_nights
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.house import only_sentence


def sentence(house: House, *arguments: object) -> str:
    """The sentence of a run that must not start anything."""
    said = only_sentence(house.run(*arguments))
    assert not house.runs.is_dir()
    assert house.survivors() == []
    return said


@pytest.fixture(autouse=True)
def sweep(house: House) -> None:
    house.suites("sweep")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--topology 2x4", "topology '2x4' is not of the form 'dp', 'route<R>', "),
        ("--topology dp,dp", "topology 'dp' occurs 2 times in 'dp,dp'"),
        ("--topology 4p0d", "topology '4p0d' has 4 prefill and 0 decode instances; "),
        ("--topology 0p4d", "topology '0p4d' has 0 prefill and 4 decode instances; "),
        ("--topology 4p1d", "topology '4p1d' needs 5 nodes (1 x (4 prefill + 1 decode)), but the "),
        (
            "--topology route3",
            "topology 'route3' needs a number of nodes that 3 groups divide, but the system has 4",
        ),
        (
            "--topology 1p3d-tp2",
            "topology '1p3d-tp2' asks for tensor-parallel size 2, but a node has 1 GPUs",
        ),
        (
            "--topology 1p3d-tp3 --system p5-efa",
            "topology '1p3d-tp3': tensor-parallel size 3 does not divide the 8 GPUs of a node",
        ),
        ("--system moon", "system 'moon' is unknown; known are "),
        ("--pdserve-repeats 0", "--pdserve-repeats '0' is not a whole number of at least 1"),
        ("--pdserve-repeats 1.5", "--pdserve-repeats '1.5' is not a whole number of at least 1"),
        ("--pdserve-first-runs 0", "--pdserve-first-runs '0' is not a whole number of at least 1"),
        (
            "--pdserve-base-url 10.0.0.1:8010",
            "--pdserve-base-url '10.0.0.1:8010' is not a URL like ",
        ),
        ("--pdserve-base-url http://h:x", "--pdserve-base-url 'http://h:x' is not a URL like http"),
        ("--pdserve-base-url http://u:p@h", "--pdserve-base-url holds a password; put the key "),
        ("-n 2", "pdserve suites own their cluster; run them without -n"),
    ],
)
def test_options(arguments: str, said: str, house: House) -> None:
    assert sentence(house, *arguments.split()).startswith(said)


def test_a_password_in_a_url_is_not_repeated(house: House) -> None:
    said = sentence(house, "--pdserve-base-url", "http://user:hunter2@host:1")
    assert "hunter2" not in said


def test_malformed_toml_has_file_and_line(house: House) -> None:
    path = house.system()
    path.write_text("schema_version = 1\n[cluster\n")
    assert re.fullmatch(
        re.escape(f"{path} is not valid TOML: ") + r".*line 2, column \d+\)", sentence(house)
    )


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("table", "changes", "pointer"),
    [
        ("cluster", {"nodes": 0}, "/cluster/nodes: 0 is less than the minimum of 1"),
        ("cluster", {"kind": "cloud"}, "/cluster/kind: 'cloud' is not a backend; known are "),
        ("cluster", {"colour": "red"}, "/cluster: Additional properties are not allowed"),
        ("ports", {"http": 70000}, "/ports/http: 70000 is greater than the maximum of 65535"),
        ("judgement_floors", {"speed": 0.1}, "/judgement/floors/speed: is not a judged metric; "),
        ("judgement", {"max_reruns": -1}, "/judgement/max_reruns: -1 is less than the minimum"),
    ],
)
def test_a_system_that_breaks_the_schema_has_file_and_pointer(
    table: str, changes: dict[str, object], pointer: str, house: House
) -> None:
    path = house.system("stub", **{table: changes})
    assert sentence(house).startswith(f"{path}: {pointer}")


def test_sweep_lengths_that_do_not_divide(house: House) -> None:
    path = house.system(sweep={"length_divisor": 5})
    said = f"{path}: sweep.length_divisor = 5 does not divide length 32"
    assert sentence(house) == said


def test_a_baseline_that_is_no_json_has_file_and_line(house: House) -> None:
    house.baseline.write_text('{\n"schema_version": 1,,\n}')
    assert sentence(house).startswith(f"{house.baseline} is not valid JSON: ")
    assert "line 2 column" in sentence(house)


NIGHTS = f"/cells/1p3d/{WORKLOAD}/nights"


@pytest.mark.parametrize(
    ("night", "said"),
    [
        (
            {"values": {"speed": 1.0}},
            f"{NIGHTS}/0/values/speed: unknown metric 'speed'; expected one of ",
        ),
        ({"values": {"mean_itl_ms": "fast"}}, f"{NIGHTS}/0/values/mean_itl_ms: 'fast' is not of "),
        ({"values": {"completed": 8.0}}, f"{NIGHTS}/0/values/completed: completed is a count; "),
        ({"session": "nowhere"}, f"{NIGHTS}/0/session: 'nowhere' is not one of /sessions"),
    ],
    ids=["unknown metric", "no number", "a count", "unknown session"],
)
def test_a_malformed_night_has_file_and_pointer(
    night: dict[str, object], said: str, house: House
) -> None:
    write_nights(house.baseline, {("1p3d", WORKLOAD): {"mean_itl_ms": [8.0]}})
    data = json.loads(house.baseline.read_text())
    data["cells"]["1p3d"][WORKLOAD]["nights"][0].update(night)
    house.baseline.write_text(json.dumps(data))
    assert sentence(house).startswith(f"{house.baseline}: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("until = 2026-13-01", "{} is not valid TOML: "),
        (
            'until = "2026-02-30"',
            "{}: /expected/0/until: '2026-02-30' is not a date like 2026-12-31",
        ),
        ('until = "soon"', "{}: /expected/0/until: 'soon' does not match "),
        (
            'until = 2026-12-31\nmetrics = ["p50_itl_ms"]',
            "{}: /expected/0/metrics: 'p50_itl_ms' is ",
        ),
    ],
    ids=["no TOML", "no day", "no date", "not judged"],
)
def test_a_malformed_expected_change_has_file_and_pointer(
    text: str, said: str, house: House
) -> None:
    path = house.baseline.with_name("expected.toml")
    head = 'schema_version = 1\n[[expected]]\nowner = "ann"\nreason = "r"\n'
    path.write_text(f"{head}{text}\n")
    assert sentence(house).startswith(said.format(path))


@pytest.mark.slow
def test_a_malformed_baseline_of_this_host_is_found_before_the_start(house: House) -> None:
    house.system(judgement={"host_references": True})
    house.run("--topology", "1p1d").assert_outcomes(passed=1, skipped=1)
    (path,) = (house.path / "state").rglob("sweep.json")
    path.write_text("{}")
    said = only_sentence(house.run("--topology", "1p1d"))
    assert said.startswith(f"{path}: /: ")


def test_a_runs_folder_that_is_a_file(house: House) -> None:
    house.runs.write_text("")
    assert sentence(house) == f"runs folder {house.runs} cannot be used: {house.runs} is a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_folder_that_is_not_writable(house: House) -> None:
    house.path.chmod(0o500)
    said = sentence(house)
    house.path.chmod(0o700)
    assert "is not readable and writable; choose another with --pdserve-runs" in said


def test_ports_that_are_exhausted(house: House) -> None:
    house.system(ports={"http": 27997, "span": 3})
    assert re.fullmatch(
        r"no 1 free ports in 27997-27999 \(http\) on local\d; "
        r"free some, or raise ports\.span = 3 in the system file",
        sentence(house, "--topology", "1p3d"),
    )


def test_memory_that_does_not_suffice(house: House) -> None:
    house.system(cluster={"memory_per_instance_gib": 5000})
    assert re.fullmatch(
        r"4 instances of stub need 20000\.0 GiB \(5000 GiB each\), but \d+\.\d GiB of memory are "
        r"free; choose a topology with fewer instances",
        sentence(house, "--topology", "1p3d"),
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'metric = "mean_itl_ms"',
            'metric = "speed"',
            "{}: claim '1p3d-itl-below-dp': unknown metric 'speed'; known are mean_ttft_ms, ",
        ),
        ('subject = "1p3d"', 'subject = "3d"', "{}: claim '1p3d-itl-below-dp': topology '3d' has "),
        (
            'kind = "below"',
            'kind = "better"',
            "{}: /claim/0/relations/0/kind: 'better' is not one of ",
        ),
        ("schema_version = 1", "schema_version = ", "{} is not valid TOML: "),
    ],
)
def test_claims(old: str, new: str, said: str, house: House) -> None:
    house.suites("claims")
    path = house.path / "suites" / "claims" / "claims.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    assert sentence(house, "--topology", "dp").startswith(said.format(path))
