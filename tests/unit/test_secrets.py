"""Secrets: which names and values are secret, text without them, and files that hold one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pytest_pdserve.backends.planned import plan_topology
from pytest_pdserve.backends.slurm.planning import job_environment
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.plan.container import contain
from pytest_pdserve.plan.host import Host
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.results.redaction import redact_file
from pytest_pdserve.values.container import ContainerKind
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.record import Finding
from pytest_pdserve.values.secrets import SESSION_KEY_PREFIX
from pytest_pdserve.values.secrets import Redactor
from pytest_pdserve.values.secrets import is_secret_name
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology
from tests.support.systems import LEAST
from tests.support.systems import loaded
from tests.support.systems import refused

HF = "hf_" + "abcdEFGH" * 4
SLURM = LEAST.replace("local", "slurm")
TOP = 'description = "a machine"\n'
PASS_IT = "write pass_env = [{}] at the top of the file instead, and set the variable"


def with_top(line: str, text: str = LEAST) -> str:
    """*text* with a line above its tables."""
    return text.replace(TOP, f"{TOP}{line}\n")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("DB_PASSWORD", True),
        ("CLIENT_SECRET", True),
        ("hf_token", True),
        ("--api-key", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("VLLM_MAX_TOKENS", False),
        ("KEYBOARD", False),
        ("AWS_ACCESS_KEY_ID", False),
        ("SECRETS_FOLDER", False),
    ],
)
def test_names_of_secrets_end_in_what_they_are(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[env]\nHF_TOKEN = "x"', "/env/HF_TOKEN: is a secret: "),
        ('[env]\nMY_PASSWORD = ""', "/env/MY_PASSWORD: is a secret: "),
        ('[pd_env]\nA_SECRET = "x"', "/pd_env/A_SECRET: is a secret: "),
        ('[model.decode]\nenv = { S3_KEY = "x" }', "/model/decode/env/S3_KEY: is a secret: "),
        (f'[env]\nA = "{HF}"', "/env/A: begins like a secret of Hugging Face: "),
        ('[env]\nA = "sk-short"', "/env/A: begins like a secret of OpenAI or Anthropic: "),
        ('[env]\nA = "ghp_short"', "/env/A: begins like a secret of GitHub: "),
        ('[env]\nA = "http://me:pw@proxy:3128"', "/env/A: holds a secret: "),
        ('[env]\nA = "Bearer abcdefghijklmnop"', "/env/A: holds a secret: "),
        (f'[bench]\nargs = ["--header", "A=Bearer {HF}"]', "/bench/args/1: holds a secret: "),
        ('[bench]\nargs = ["--my-token", "x"]', "/bench/args/0: gives the secret --my-token a "),
        ('[bench]\nargs = ["--my_token=x"]', "/bench/args/0: gives the secret --my_token a value"),
        (
            '[container]\nkind = "docker"\nimage = "i"\nargs = ["--env", "HF_TOKEN=x"]',
            "/container/args/1: gives the secret HF_TOKEN a value: ",
        ),
        (
            '[container]\nkind = "docker"\nimage = "i"\nargs = ["--env=A_KEY=x"]',
            "/container/args/0: gives the secret A_KEY a value: ",
        ),
        (
            '[container]\nkind = "docker"\nimage = "i"\nargs = ["-eA_KEY=x"]',
            "/container/args/0: gives the secret A_KEY a value: ",
        ),
        ('[sweep.options]\napi-key = "x"', "/sweep/options/api-key: gives the secret --api-key a "),
        ('[slurm.parameters]\nexport = "A,B_TOKEN=x"', "/slurm/parameters/export: gives the sec"),
    ],
    ids=lambda each: each.replace(HF, "HF") if "\n" in each else "",
)
def test_a_secret_in_a_file_is_refused_with_its_place_and_not_shown(
    text: str, said: str, tmp_path: Path
) -> None:
    told = refused(tmp_path, f"{SLURM}{text}\n").partition("system.toml: ")[2]
    assert told.startswith(said)
    assert "this file goes into records" in told
    assert 'pass_env = ["' in told or "pass_env = [the name of a variable that has it]" in told
    for secret in (HF, '"x"', "=x", "sk-short", "ghp_short", ":pw", "abcdefghijklmnop"):
        assert secret not in told


def test_the_way_to_pass_a_secret_is_told_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine" / "system.toml"
    assert refused(tmp_path, f'{LEAST}serve_args = ["--hf-token", "{HF}"]\n') == (
        f"{file}: /model/serve_args/0: gives the secret --hf-token a value: this file goes into "
        "records, and arguments are seen by everyone on a node; write "
        'pass_env = ["HF_TOKEN"] at the top of the file instead, and set the variable where '
        "pytest runs"
    )


@pytest.mark.parametrize("url", ["http://me:pw@h:1", "me:pw@h:1"])
def test_a_password_in_a_url_is_not_shown(url: str, tmp_path: Path) -> None:
    file = tmp_path / "mine" / "system.toml"
    text = LEAST.replace("local", "attached") + f'[attached]\nbase_url = "{url}"\n'
    assert refused(tmp_path, text) == (
        f"{file}: /attached/base_url: holds a password: remove it, and put the key into "
        "PDSERVE_API_KEY"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'pass_env = ["VLLM_API_KEY"]',
            "/pass_env/0: 'VLLM_API_KEY' is set by the session, which makes the key; remove it",
        ),
        (
            'pass_env = ["A", "B"]\n[pd_env]\nB = "1"\n[env]',
            "/pass_env/1: 'B' is set in /pd_env too; remove one of the two",
        ),
        ('pass_env = ["A B"]', "/pass_env/0: 'A B' does not match "),
    ],
    ids=["the session's own", "set too", "no name"],
)
def test_names_that_cannot_be_passed_are_refused(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine" / "system.toml"
    assert refused(tmp_path, with_top(line)).startswith(f"{file}: {said}")


def passing(folder: Path) -> System:
    return loaded(folder, with_top('pass_env = ["HF_TOKEN", "MY_LOGIN"]', SLURM))


def test_instances_and_client_get_what_is_passed_and_the_router_does_not(tmp_path: Path) -> None:
    commands = plan_topology(passing(tmp_path), Topology.parse("1p1d")).commands
    by_name = {each.name.partition(" ")[0]: each for each in commands}
    passed = ("HF_TOKEN", "MY_LOGIN")
    assert {name: each.passed for name, each in by_name.items()} == {
        "prefill[0]": passed,
        "decode[0]": passed,
        "router": (),
        "client": passed,
        "bench": passed,
    }
    assert "HF_TOKEN=<passed through>" in by_name["decode[0]"].render()
    assert not [each for command in commands for each in command.env if each[0] in passed]


@pytest.mark.parametrize(
    ("kind", "image", "words"),
    [
        ("docker", "i:1", "--env VLLM_API_KEY --env HF_TOKEN --env MY_LOGIN"),
        ("podman", "i:1", "--env VLLM_API_KEY --env HF_TOKEN --env MY_LOGIN"),
        ("enroot", "/i.sqsh", "--env VLLM_API_KEY --env HF_TOKEN --env MY_LOGIN"),
        ("pyxis", "i:1", "--container-env=VLLM_API_KEY,HF_TOKEN,MY_LOGIN"),
    ],
)
def test_a_container_is_given_names_and_no_values(
    kind: ContainerKind, image: str, words: str, tmp_path: Path
) -> None:
    command = plan_topology(passing(tmp_path), Topology.parse("1p1d")).launch.instances[0]
    inside = contain(
        command,
        ContainerSpec(kind=kind, image=image),
        host=Host(name="n", address="10.0.0.1", interface="e"),
        image=image,
        run_id="r",
    )
    assert words in " ".join((*inside.argv, *inside.step_args))


def test_a_variable_that_is_not_set_is_missed_only_when_servers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, topology = passing(tmp_path), Topology.parse("1p1d")
    monkeypatch.setenv("HF_TOKEN", HF)
    monkeypatch.delenv("MY_LOGIN", raising=False)
    plan_topology(system, topology)
    with pytest.raises(ConfigError) as caught:
        plan_topology(system, topology, starting=True)
    assert str(caught.value) == (
        f"{system.source}: /pass_env/1: 'MY_LOGIN' is not set in the environment of this session; "
        "export it, or remove it from pass_env"
    )
    monkeypatch.setenv("MY_LOGIN", "me")
    plan_topology(system, topology, starting=True)


def test_a_job_is_submitted_without_any_secret() -> None:
    shell = {"HF_TOKEN": "x", "A_PASSWORD": "x", "A": HF, "MY_LOGIN": "open sesame", "PATH": "/bin"}
    redactor = Redactor.of(shell, ["MY_LOGIN"])
    assert job_environment(shell, redactor) == {"PATH": "/bin"}


VALUE = "a\"b'c\\d/e f+g:häh"
ENVIRONMENT = {"MY_TOKEN": VALUE, "PATH": "/usr/local/bin", "MY_LOGIN": "open sesame"}


@pytest.mark.parametrize(
    "written",
    [VALUE, repr(VALUE), json.dumps(VALUE), json.dumps(VALUE, ensure_ascii=False), quote(VALUE)],
    ids=["as it is", "Python", "JSON in ASCII", "JSON", "URL"],
)
def test_a_known_value_is_taken_out_however_it_is_written(written: str) -> None:
    redacted = Redactor.of(ENVIRONMENT).text(f"key={written}; then more")
    assert redacted.replace('"', "").replace("'", "") == "key=<MY_TOKEN>; then more"


def test_what_was_passed_through_is_secret_whatever_its_name_is() -> None:
    text = "PATH=/usr/local/bin MY_LOGIN=open sesame"
    assert Redactor.of(ENVIRONMENT).text(text) == text
    expected = "PATH=/usr/local/bin MY_LOGIN=<MY_LOGIN>"
    assert Redactor.of(ENVIRONMENT, ["MY_LOGIN", "NOT_SET"]).text(text) == expected


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"token {HF}.", "token <redacted>."),
        (f"x{HF}", f"x{HF}"),
        (f"{SESSION_KEY_PREFIX}{'aB3-' * 8}", "<redacted>"),
        ("sk-proj-abc123def456ghi789", "<redacted>"),
        ("AKIAABCDEFGHIJKLMNOP", "<redacted>"),
        ("github_pat_" + "a1" * 15, "<redacted>"),
        ("'Authorization': 'Bearer short'", "'Authorization': 'Bearer <redacted>'"),
        ("authorization: Basic dXNlcjpwdw==", "authorization: Basic <redacted>"),
        ("Bearer abcdefghijklmnopqrst", "Bearer <redacted>"),
        ("GET http://me:pw@h:1/v1", "GET http://<redacted>@h:1/v1"),
        ("-----BEGIN PRIVATE KEY-----\nab\n-----END PRIVATE KEY-----\n.", "<redacted>\n."),
        ("a bearer of basic authentication", "a bearer of basic authentication"),
        ("hf_overrides sk-learn risk-free-asset-allocation", None),
        ("http://h:1/a@b http://10.0.0.1:8000", None),
        ("0.12345678901", None),
    ],
)
def test_known_forms_are_taken_out_and_words_stay(text: str, redacted: str | None) -> None:
    assert Redactor().text(text) == (text if redacted is None else redacted)


@pytest.mark.parametrize("value", ["short", "12345678901", "", "  "])
def test_a_value_that_stands_anywhere_by_chance_is_not_looked_for(value: str) -> None:
    assert Redactor.of({"A_KEY": value}).names == {}


def test_each_line_of_a_long_secret_is_taken_out() -> None:
    secret = "first line of a secret\nsecond line of it all\nend"
    text = Redactor.of({"A_KEY": secret}).text("1: first line of a secret\n2: end")
    assert text == "1: <A_KEY>\n2: end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    numbers: tuple[float, ...]
    texts: tuple[Any, ...]
    table: dict[str, Any]
    finding: Finding


def test_every_text_of_a_value_is_redacted_and_nothing_else_changed() -> None:
    redactor = Redactor.of({"A_KEY": "open sesame"})
    clean = Nested(
        numbers=(1.0, float("nan")),
        texts=("a", ["b"], None),
        table={"x": {"y": "c"}},
        finding=Finding(check="c", severity="note", message="m"),
    )
    assert redactor.value(clean) is clean
    finding = replace(clean.finding, message="said open sesame")
    dirty = replace(clean, texts=(["open sesame"],), table={"x": ("open sesame",)}, finding=finding)
    assert redactor.value(dirty) == replace(
        dirty,
        texts=(["<A_KEY>"],),
        table={"x": ("<A_KEY>",)},
        finding=replace(finding, message="said <A_KEY>"),
    )


def test_a_log_is_redacted_in_place_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "open sesame")
    log, clean = tmp_path / "a.log", tmp_path / "b.log"
    lines = b"\xff\xfe\r\n" + b"line\n" * 2500
    log.write_bytes(lines + b"key open sesame\n" + lines)
    log.chmod(0o640)
    clean.write_bytes(lines)
    before = (clean.stat().st_mtime_ns, clean.stat().st_ino)
    for path in (log, clean, tmp_path / "not there"):
        redact_file(path)
    assert log.read_bytes() == lines + b"key <A_KEY>\n" + lines
    assert log.stat().st_mode & 0o777 == 0o640
    assert (clean.stat().st_mtime_ns, clean.stat().st_ino) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "b.log"]


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED[0].glob("[!_.]*")))
def test_no_shipped_system_holds_what_looks_like_a_secret(name: str) -> None:
    assert load_system(name, SHIPPED).name == name
