"""Endpoints that cannot be measured, named with URL, status and cause; and odd ones that can."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pytest_pdserve.backends.allocation import Endpoint
from pytest_pdserve.backends.attached.naming import parse_base_url
from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.results.folders import SHIPPED
from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.serving.endpoint import find_model
from pytest_pdserve.serving.scrape import scrape
from pytest_pdserve.values.errors import NotReadyError
from pytest_pdserve.values.errors import PathError
from pytest_pdserve.values.system import System
from tests.support.endpoints import MODEL
from tests.support.endpoints import Reply
from tests.support.endpoints import dripping
from tests.support.endpoints import endpoint
from tests.support.endpoints import listing
from tests.support.endpoints import models
from tests.support.endpoints import page
from tests.support.endpoints import redirect
from tests.support.endpoints import reset
from tests.support.endpoints import sending
from tests.support.endpoints import silent
from tests.support.endpoints import trickling

KEY = "sk-open:sesame"
PATIENCE_S = 5.0


@pytest.fixture(autouse=True)
def unproxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings decides what is reached."""
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme.upper()}_PROXY", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


@pytest.fixture
def system() -> System:
    """A system whose model is ``own``."""
    loaded = load_system("local-cpu", SHIPPED)
    return replace(loaded, model=replace(loaded.model, path="own"))


def found(system: System, url: str, *, key: str = "", model: str | None = None) -> str:
    """Return the name of the model that is measured at *url*."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    asked = Endpoint(url=parse_base_url(url, "URL"), api_key=key, model=model)
    with httpx.Client(headers=headers) as client:
        return find_model(client, asked, system).name


def refusal(system: System, url: str, *, key: str = "", model: str | None = None) -> str:
    """Return why nothing is measured at *url*."""
    with pytest.raises(NotReadyError) as refused:
        found(system, url, key=key, model=model)
    return str(refused.value)


HTML = page(200, b"<html>\n<h1>\x1b[31mWelcome</h1>", Content_Type="text/html")
REFUSED: list[tuple[str, dict[str, Reply], str]] = [
    ("no model", {"/v1/models": models()}, " lists no model"),
    (
        "two models",
        {"/v1/models": models("a", "b")},
        " lists a, b; choose one with --pdserve-model",
    ),
    (
        "nine models",
        {"/v1/models": models(*"abcdefghi")},
        " lists a, b, c, d, e and 4 more; choose one with --pdserve-model",
    ),
    (
        "names only",
        {"/v1/models": listing("a")},
        " lists 'a'; expected an object with an 'id'",
    ),
    (
        "a name that steers a terminal",
        {"/v1/models": models("a\x1b[2J")},
        " lists {'id': 'a\\x1b[2J'}; expected an object with an 'id'",
    ),
    (
        "a web page",
        {"/v1/models": HTML},
        " answered 200 OK: <html> <h1> [31mWelcome</h1>; expected JSON",
    ),
    (
        "deep JSON",
        {"/v1/models": page(200, b"[" * 100_000)},
        f" answered 200 OK: {'[' * 300}; expected JSON",
    ),
    (
        "500",
        {"/v1/models": page(500, b"engine died")},
        " answered 500 Internal Server Error: engine died",
    ),
    (
        "redirect loop",
        {"/v1/models": redirect("/v1/models")},
        " answered 307 with a redirect to /v1/models; redirects are not followed, name the "
        "endpoint's own URL",
    ),
    ("200 MB", {"/v1/models": sending(200)}, " answered with more than 4 MiB"),
    ("without end", {"/v1/models": sending(None)}, " answered with more than 4 MiB"),
    (
        "gzip bomb",
        {"/v1/models": page(200, gzip.compress(b"0" * 10**8), Content_Encoding="gzip")},
        " answered compressed (gzip), which was not asked for",
    ),
    (
        "reset",
        {"/v1/models": reset},
        " broke off its answer: [Errno 104] Connection reset by peer",
    ),
    (
        "401",
        {"/v1/models": page(401, b"no key")},
        " answered 401 Unauthorized: no key; it requires an API key: set PDSERVE_API_KEY",
    ),
]


@pytest.mark.parametrize(
    ("routes", "said"), [pytest.param(r, said, id=name) for name, r, said in REFUSED]
)
def test_an_endpoint_that_lists_no_one_model_is_refused_with_the_cause(
    routes: dict[str, Reply], said: str, system: System
) -> None:
    with endpoint(routes) as server:
        assert refusal(system, server.url) == f"{server.url}/v1/models{said}"
        assert server.asked == ["/v1/models"]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_endpoint_without_a_list_and_without_health_is_refused(
    status: int, system: System
) -> None:
    missing = {"/v1/models": page(status, b"gone"), "/health": page(404, b"lost")}
    with endpoint(missing) as server:
        reason = httpx.codes.get_reason_phrase(status)
        assert refusal(system, f"{server.url}/llm") == (
            f"{server.url}/llm/v1/models answered 404 Not Found: no such page, and "
            f"{server.url}/llm/health answered 404 Not Found: no such page; expected a list of "
            "models: give the URL without /v1"
        )
        assert refusal(system, server.url).startswith(
            f"{server.url}/v1/models answered {status} {reason}: gone, and {server.url}/health "
            "answered 404 Not Found: lost; "
        )


def test_a_model_that_is_not_listed_is_refused(system: System) -> None:
    with endpoint({"/v1/models": models("a", "b")}) as server:
        assert refusal(system, server.url, model="c") == (
            f"{server.url}/v1/models lists a, b; expected 'c', which was asked for"
        )


def test_a_key_that_is_not_accepted_is_not_shown(system: System) -> None:
    echo = page(401, f'{{"error": "Incorrect API key: {KEY}"}}'.encode())
    with endpoint({"/v1/models": echo}) as server:
        assert refusal(system, server.url, key=KEY) == (
            f'{server.url}/v1/models answered 401 Unauthorized: {{"error": "Incorrect API key: '
            '<API key>"}; the key in PDSERVE_API_KEY is not accepted'
        )


ACCEPTED: list[tuple[str, dict[str, Reply], str, str]] = [
    ("no /health", {"/health": page(404, b"")}, "", MODEL),
    ("with /v1", {}, "/v1", MODEL),
    ("with slashes", {}, "/v1//", MODEL),
    ("a path", {"/llm/v1/models": models("deep")}, "/llm/v1/", "deep"),
    ("no list", {"/v1/models": page(404, b"")}, "", "own"),
    ("another list", {"/v1/models": page(200, b'{"status": "ok"}')}, "", "own"),
    ("the system's own among others", {"/v1/models": models("a", "own")}, "", "own"),
]


@pytest.mark.parametrize(
    ("routes", "path", "model"), [pytest.param(*case, id=name) for name, *case in ACCEPTED]
)
def test_the_model_of_an_endpoint_is_asked_for(
    routes: dict[str, Reply], path: str, model: str, system: System
) -> None:
    with endpoint(routes) as server:
        assert found(system, server.url + path) == model


def test_an_endpoint_may_have_an_ipv6_address(system: System) -> None:
    with endpoint(address="::1") as server:
        assert found(system, f"{server.url}/v1") == MODEL


def test_one_of_several_models_is_chosen(system: System) -> None:
    with endpoint({"/v1/models": models("a", "b")}) as server:
        assert found(system, server.url, model="b") == "b"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody signed, and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, signed, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    make += ["-nodes", "-keyout", str(key), "-out", str(signed), "-days", "2"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    both.write_text(key.read_text() + signed.read_text())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_that_is_not_trusted_is_named(tls: ssl.SSLContext, system: System) -> None:
    with endpoint(tls=tls) as server:
        said = refusal(system, server.url.replace("http:", "https:"))
    assert "/v1/models has a certificate that is not trusted: " in said
    assert "self-signed certificate" in said
    assert said.endswith("; name the file of its authority in SSL_CERT_FILE")


def test_a_certificate_is_trusted_that_the_user_names(
    tls: ssl.SSLContext, certificate: Path, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with endpoint(tls=tls) as server:
        assert found(system, server.url.replace("http:", "https:")) == MODEL


def test_https_to_a_port_without_tls_is_named(system: System) -> None:
    with endpoint() as server:
        said = refusal(system, server.url.replace("http:", "https:"))
    assert "/v1/models does not speak TLS as asked: " in said
    assert said.endswith("; try http:// in place of https://")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_port_that_refuses_is_named(closed_port: int, system: System) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    assert refusal(system, url) == (
        f"{url}/v1/models cannot be reached: [Errno 111] Connection refused"
    )


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("nowhere.invalid", "cannot be reached: [Errno -"),
        ("a..b", "cannot be asked: encoding with 'idna' codec failed"),
        ("a" * 64 + ".de", "cannot be asked: encoding with 'idna' codec failed"),
    ],
    ids=["unknown", "an empty label", "a long label"],
)
def test_a_name_that_has_no_address_is_named(host: str, said: str, system: System) -> None:
    assert refusal(system, f"http://{host}").startswith(f"http://{host}/v1/models {said}")


def test_a_proxy_that_stands_between_is_named(
    system: System, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{KEY}@127.0.0.1:{closed_port}")
    monkeypatch.setenv("http_proxy", f"http://user:{KEY}@127.0.0.1:{closed_port}")
    assert refusal(system, "http://10.0.0.7:8010") == (
        "http://10.0.0.7:8010/v1/models cannot be reached: [Errno 111] Connection refused (sent "
        "through the proxy of HTTP_PROXY; see NO_PROXY)"
    )


@pytest.mark.parametrize(
    "reply",
    [silent, dripping, trickling],
    ids=["silent", "a byte of a header at a time", "a byte of the body at a time"],
)
def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_allowed(reply: Reply) -> None:
    with endpoint({"/slow": reply}) as server, httpx.Client() as client:
        with pytest.raises(AnswerError) as refused:
            read_answer(client, "GET", f"{server.url}/slow", limits=AnswerLimits(time_s=0.2))
        assert str(refused.value) == f"{server.url}/slow did not answer within 0.2 s"


def test_an_answer_that_is_no_longer_waited_for_is_no_longer_read() -> None:
    with endpoint({"/slow": trickling}) as server, httpx.Client() as client:
        with pytest.raises(AnswerError):
            read_answer(client, "GET", f"{server.url}/slow", limits=AnswerLimits(time_s=0.2))
        assert server.left.wait(PATIENCE_S)


@pytest.mark.parametrize("size_mib", [200, None], ids=["200 MiB", "without end"])
def test_counters_are_read_up_to_a_size(size_mib: int | None) -> None:
    with endpoint({"/metrics": sending(size_mib)}) as server, httpx.Client() as client:
        with pytest.raises(PathError) as refused:
            scrape(client, server.url)
        assert str(refused.value) == (
            f"{server.url}/metrics cannot be read: it answered with more than 16 MiB"
        )


def test_a_server_that_does_not_speak_http_is_named(system: System) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def greet() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        said = refusal(system, url)
        thread.join()
    assert said.startswith(f"{url}/v1/models broke off its answer: illegal status line: ")


def test_what_is_listed_beside_models_is_no_list(system: System) -> None:
    odd = page(200, json.dumps({"data": {"id": MODEL}}).encode())
    with endpoint({"/v1/models": odd, "/health": page(503, b"")}) as server:
        said = refusal(system, server.url)
    assert f"{server.url}/health answered 503 Service Unavailable" in said
