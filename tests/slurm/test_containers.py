"""Sessions in containers, with a stand-in for the engines: loaded once, told apart, removed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.house import MARK
from tests.support.house import STUBS
from tests.support.house import WORKLOAD
from tests.support.house import House
from tests.support.onehost import OneHost
from tests.support.onehost import said
from tests.support.onehost import wait_bench
from tests.support.onehost import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-c")]

STUB = STUBS / "container_stub.py"
IMAGE = "nixl:latest"
CONFIG = "a" * 64
LOOK = """
import json
def test_look(pdserve_deployment):
    with open({path!r}, "w") as file:
        json.dump(pdserve_deployment.api_key, file)
"""


@pytest.fixture
def engines(slurm_house: House, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines on PATH; the folder of what they have and what they were asked."""
    folder = slurm_house.path / "engines"
    temporary = slurm_house.path / "tmp"
    for each in (folder, folder / "bin", temporary):
        each.mkdir()
    for name in ("docker", "podman", "enroot"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{STUB}" {name} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PDSTUB_ENGINE", str(folder))
    monkeypatch.setenv("TMPDIR", str(temporary))  # locks of images lie there
    return folder


def save_image(folder: Path) -> Path:
    """A tarball as ``docker save`` writes it, as far as it is read."""
    path = folder / "nixl-latest.tar.gz"
    manifest = [{"Config": f"blobs/sha256/{CONFIG}", "RepoTags": [IMAGE], "Layers": []}]
    data = json.dumps(manifest).encode()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return path


def calls(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


def removed(folder: Path) -> list[str]:
    """Names and ids of containers that engines were told to remove."""
    return [word for c in calls(folder) if c["argv"][0] == "rm" for word in c["argv"][2:]]


def measured(house: House, topology: str) -> tuple[dict[str, Any], str]:
    """The record of a session that also tells its API key."""
    path = house.path / "key.json"
    (house.path / "suites" / "test_look.py").write_text(LOOK.format(path=str(path)))
    text = said(house, "--topology", topology)
    assert "2 passed" in text, text
    (record,) = house.records()
    return record, json.loads(path.read_text())


@pytest.mark.slow
def test_docker_with_an_image_from_a_tarball(slurm_house: House, engines: Path) -> None:
    image = str(save_image(slurm_house.path))
    slurm_house.system(container={"kind": "docker", "image": image, "gpus": ""})
    record, key = measured(slurm_house, "1p3d")
    cluster = record["cluster"]
    assert (cluster["container"], cluster["image"]) == ("docker", IMAGE)
    assert cluster["image_digest"] == f"sha256:{CONFIG}"
    asked = calls(engines)
    loads = Counter(call["node"] for call in asked if call["argv"][0] == "load")
    assert loads == {f"pd{node}": 1 for node in range(4)}
    ran = [call["argv"] for call in asked if call["argv"][0] == "run"]
    named = {words[words.index("--name") + 1]: words for words in ran}
    label = rf"{re.escape(record['session']['id'])}-[0-9a-f]{{4}}"
    (of_run,) = {w for words in ran for w in words if re.fullmatch(rf"pdserve\.run={label}", w)}
    prefix = f"pdserve-{of_run.partition('=')[2]}-"
    ours = ("prefill-0", "decode-0", "decode-1", "decode-2", "router", f"bench-{WORKLOAD}")
    assert {prefix + name for name in ours} <= set(named)
    assert all(of_run in words for words in ran)
    assert all(process["argv"][:2] == ["docker", "run"] for process in record["processes"])
    assert list(engines.glob("container-*.json")) == []
    assert set(removed(engines)) <= set(named)
    assert not any(key in word for call in asked for word in call["argv"])
    kept = [p for p in slurm_house.runs.rglob("*") if p.is_file()]
    assert [path for path in kept if key.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_podman_with_an_image_from_a_registry(slurm_house: House, engines: Path) -> None:
    image = "registry.example/nixl:1"
    container = {"kind": "podman", "image": image, "gpus": ""}
    slurm_house.system(cluster={"nodes": 2}, container=container)
    record, key = measured(slurm_house, "1p1d")
    cluster = record["cluster"]
    assert (cluster["container"], cluster["image"]) == ("podman", image)
    assert cluster["image_digest"] == f"sha256:{'b' * 64}"
    pulls = Counter(call["node"] for call in calls(engines) if call["argv"][0] == "pull")
    assert pulls == {"pd0": 1, "pd1": 1}
    assert {call["engine"] for call in calls(engines)} == {"podman"}
    assert list(engines.glob("container-*.json")) == []
    assert not any(key in word for call in calls(engines) for word in call["argv"])


@pytest.mark.slow
def test_enroot_with_a_squashfs_file(slurm_house: House, engines: Path) -> None:
    image = slurm_house.path / "nixl.sqsh"
    image.write_bytes(b"hsqs" + bytes(1000))
    container = {"kind": "enroot", "image": str(image), "gpus": ""}
    slurm_house.system(cluster={"nodes": 2}, container=container)
    record, key = measured(slurm_house, "1p1d")
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert record["cluster"]["image"] == str(image)
    assert record["cluster"]["image_digest"] == f"sha256:{digest}"
    assert {call["argv"][0] for call in calls(engines)} == {"start"}
    assert not any(key in word for call in calls(engines) for word in call["argv"])


@pytest.mark.slow
def test_a_node_without_the_image(slurm_house: House, engines: Path) -> None:
    image = str(slurm_house.path / "missing.tar.gz")
    slurm_house.system(cluster={"nodes": 2}, container={"kind": "docker", "image": image})
    text = said(slurm_house, "--topology", "1p1d")
    assert re.search(r"\b[12] errors? in ", text), text
    assert "Traceback" not in text
    assert re.search(r"node pd[01] has no image: image\.py exited with code 1; ", text), text
    assert f"image {image} cannot be read: No such file or directory" in text


@pytest.mark.slow
def test_the_node_that_fails_is_named_and_not_those_that_are_stopped_for_it(
    slurm_house: House, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDSTUB_ENGINE_BROKEN", "pd1")
    image = "registry.example/nixl:1"
    slurm_house.system(cluster={"nodes": 2}, container={"kind": "docker", "image": image})
    text = said(slurm_house, "--topology", "1p1d")
    assert re.search(r"\b[12] errors? in ", text), text
    assert "node pd1 has no image: image.py exited with code 1; " in text, text
    assert "stub: no such image" in text


@contextlib.contextmanager
def somebody_elses(engines: Path) -> Iterator[Path]:
    """A container of another run on pd0; the file that is there as long as it is."""
    argv = ["run", "--name", "pdserve-other-decode-0", "--label", "pdserve.run=other"]
    environment = {k: v for k, v in os.environ.items() if k != MARK}
    client = subprocess.Popen(
        [sys.executable, STUB, "docker", *argv, "--entrypoint", "sleep", IMAGE, "300"],
        env={**environment, "SLURMD_NODENAME": "pd0"},
    )
    try:
        wait_until(lambda: list(engines.glob("container-*.json")), 10)
        (path,) = engines.glob("container-*.json")
        yield path
    finally:
        client.terminate()
        client.wait(10)


@pytest.mark.slow
@pytest.mark.parametrize("runners", [pytest.param("alive", marks=pytest.mark.slow), "killed"])
def test_a_killed_session_leaves_no_container(
    runners: str, slurm_house: House, slurm: OneHost, engines: Path
) -> None:
    image = str(save_image(slurm_house.path))
    container = {"kind": "docker", "image": image, "gpus": ""}
    slurm_house.system(cluster={"nodes": 2}, container=container)
    slurm_house.faults(every={"ignore_term": True}, bench={"hang": True})
    (engines / "images-pd0.json").write_text(json.dumps({IMAGE: f"sha256:{CONFIG}"}))
    with somebody_elses(engines) as other:
        process = slurm_house.start("--topology", "1p1d")
        wait_bench(slurm_house, process)
        (run,) = slurm_house.runs.iterdir()
        known = {path: json.loads(path.read_text()) for path in engines.glob("container-*.json")}
        assert len(known) == 5
        ours = {f.stem.removeprefix("container-") for f in known if f != other}
        ours |= {facts["name"] for path, facts in known.items() if path != other}
        process.kill()
        if runners == "killed":
            for each in slurm_house.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    command = " ".join(each.cmdline())
                    if "runner.py" in command or "container_stub.py" in command:
                        each.kill()
        process.wait(10)
        wait_until(lambda: not slurm.jobs() and not slurm_house.survivors(), 90)
        assert list(engines.glob("container-*.json")) == [other]
        assert psutil.pid_exists(known[other]["pid"])
        told = set(removed(engines))
        assert told
        assert all(name in ours or name.startswith(f"pdserve-{run.name}-") for name in told)
        listed = [call["argv"][-1] for call in calls(engines) if call["argv"][0] == "ps"]
        (label,) = set(listed)
        assert re.fullmatch(rf"label=pdserve\.run={re.escape(run.name)}-[0-9a-f]{{4}}", label)
