"""The node's script that makes an image present, with stand-ins for engines and the AWS CLI.

Archives, compression, pipes, locks and signals are real; Docker, podman, pigz and aws are not.
At the end, where it is installed, Docker's own client reads a planned command line.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import http.server
import io
import json
import os
import platform
import shutil
import signal
import socketserver
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from pytest_pdserve.backends.hosts import image as script
from pytest_pdserve.backends.hosts import tarball
from pytest_pdserve.backends.hosts.image import Node
from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import contain
from pytest_pdserve.plan.host import Host
from pytest_pdserve.values.container import ContainerSpec

DOCKER = r"""
import json, os, pathlib, sys, tarfile
here = pathlib.Path(os.environ["PDTEST_ENGINE"])
words = sys.argv[1:]
with open(here / "log", "a") as log:
    log.write(" ".join([pathlib.Path(sys.argv[0]).name, *words]) + "\n")
store = here / "images.json"
images = json.loads(store.read_text()) if store.exists() else {}
def fail(text):
    sys.exit(print(text, file=sys.stderr) or 1)
def keep(name, id):
    images[name] = {"Id": id, "RepoDigests": [name + "@sha256:d"]}
    store.write_text(json.dumps(images))
if words[0] == "version":
    if (here / "down").exists():
        fail("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
elif words[:2] == ["image", "inspect"]:
    if words[2] not in images:
        fail("Error: No such image: " + words[2])
    print(json.dumps([images[words[2]]]))
elif words[0] == "load":
    if (here / "full").exists():
        fail("write /layer.tar: no space left on device")
    if (here / "gate").exists():
        (here / "pid").write_text(str(os.getpid()))
        (here / "gate").open().read()
    found = {}
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            if member.name == "manifest.json":
                found = json.load(archive.extractfile(member))
    sys.stdin.buffer.read()
    for entry in found:
        for name in entry["RepoTags"] or ():
            keep(name, "sha256:" + pathlib.Path(entry["Config"]).name.partition(".")[0])
            print("Loaded image: " + name)
elif words[0] == "login":
    (here / "password").write_text(sys.stdin.read())
    (here / "config").write_text(os.environ["DOCKER_CONFIG"])
    if (here / "refuse").exists():
        fail("Error: unauthorized")
elif words[0] == "pull":
    if (here / "offline").exists():
        fail("Error: registry does not answer")
    keep(words[1], "sha256:pulled")
else:
    fail("unknown command " + words[0])
"""
AWS = r"""
import os, pathlib, sys
here = pathlib.Path(os.environ["PDTEST_ENGINE"])
with open(here / "log", "a") as log:
    log.write(" ".join(["aws", *sys.argv[1:]]) + "\n")
if (here / "expired").exists():
    sys.exit(print("The security token has expired", file=sys.stderr) or 255)
print("sesame")
"""
PIGZ = r"""
import os, pathlib, shutil, sys
with open(pathlib.Path(os.environ["PDTEST_ENGINE"]) / "log", "a") as log:
    log.write("pigz\n")
os.execv(shutil.which("gzip"), ["gzip", *sys.argv[1:]])
"""
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
A, B = "a" * 64, "b" * 64


class Bench:
    """A node: a PATH of stand-ins, an engine's store and a folder of images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin, self.engine, self.temp = root / "bin", root / "engine", root / "temp"
        for folder in (self.bin, self.engine, self.temp):
            folder.mkdir()
        for name in ("gzip", "cat"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        programs = {"docker": DOCKER, "podman": DOCKER, "aws": AWS, "pigz": PIGZ}
        for name, text in programs.items():
            (self.bin / name).write_text(f"#!{sys.executable}\n{text}")
            (self.bin / name).chmod(0o755)

    def start(self, *words: str) -> subprocess.Popen[str]:
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM")},
            "PATH": str(self.bin),
            "TMPDIR": str(self.temp),
            "PDTEST_ENGINE": str(self.engine),
            "SLURMD_NODENAME": "p5-03",
        }
        argv = [sys.executable, str(script.__file__), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=env, stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str) -> tuple[int, list[str], str]:
        process = self.start(*words)
        out, errors = process.communicate(timeout=60)
        return process.returncode, out.splitlines(), errors

    def done(self, *words: str) -> tuple[dict[str, Any], list[str]]:
        """What a good run ends with, without its time, and its progress."""
        code, lines, errors = self.run(*words)
        assert (code, errors) == (0, "")
        facts = json.loads(lines[-1])
        assert 0 <= facts.pop("seconds") < 60
        return facts, lines[:-1]

    def refused(self, *words: str) -> str:
        code, _, errors = self.run(*words)
        assert code == 1
        assert errors.count("\n") == 1
        assert errors.startswith("node p5-03: ")
        return errors.strip().removeprefix("node p5-03: ")

    def happens(self, *names: str) -> None:
        for name in names:
            (self.engine / name).touch()

    def has(self, **images: str) -> None:
        store = {name.replace("_", ":"): {"Id": number} for name, number in images.items()}
        (self.engine / "images.json").write_text(json.dumps(store))

    def log(self) -> list[str]:
        path = self.engine / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def archive(
        self,
        *names: str,
        config: str = A,
        oci: str = "",
        name: str = "nixl.tar.gz",
        entries: Any = None,
    ) -> str:
        """An archive as ``docker save`` makes it: layers first; *oci* is its manifest's digest."""
        listed = [{"Config": f"{config}.json", "RepoTags": list(names) or None, "Layers": []}]
        layer = os.urandom(200_000)
        members: dict[str, bytes] = {f"{hashlib.sha256(layer).hexdigest()}/layer.tar": layer}
        if oci:
            listed[0]["Config"] = f"blobs/sha256/{config}"
            index = {"manifests": [{"digest": f"sha256:{oci}"}]}
            members["index.json"] = json.dumps(index).encode()
        members["manifest.json"] = json.dumps(listed if entries is None else entries).encode()
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for member, text in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
        data = raw.getvalue()
        path = self.root / name
        path.write_bytes(data if name.endswith(".tar") else gzip.compress(data, 1))
        return str(path)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def facts(image: str, number: str, *, loaded: bool, digest: bool = True) -> Mapping[str, Any]:
    digests = [f"{image}@sha256:d"] if digest else []
    return {"image": image, "id": f"sha256:{number}", "digests": digests, "loaded": loaded}


# Tarballs


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("oci", ["", B], ids=["old layout", "OCI layout"])
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_tarball_is_loaded_under_the_name_that_it_says(
    engine: str, oci: str, bench: Bench
) -> None:
    path = bench.archive("nixl:latest", oci=oci)
    done, said = bench.done("--engine", engine, "--image", path)
    assert done == facts("nixl:latest", A, loaded=True)
    assert said == [
        f"node p5-03: reading image names in {path}, 0.0 of 0.0 GiB read",
        f"node p5-03: loading nixl:latest from {path}, 0.0 of 0.0 GiB read",
        "node p5-03: nixl:latest is loaded",
    ]
    log = bench.log()
    assert log[:3] == [f"{engine} version", "pigz", f"{engine} image inspect nixl:latest"]
    assert set(log[3:5]) == {f"{engine} load", "pigz"}
    assert log[5:] == [f"{engine} image inspect nixl:latest"]


@pytest.mark.slow
def test_the_next_session_reads_nothing(bench: Bench) -> None:
    words = ("--engine", "docker", "--image", bench.archive("nixl:latest"))
    bench.done(*words)
    bench.log()
    done, said = bench.done(*words)
    assert done == facts("nixl:latest", A, loaded=False)
    assert said == ["node p5-03: nixl:latest is present"]
    assert bench.log() == ["docker version", "docker image inspect nixl:latest"]


@pytest.mark.slow
def test_a_tarball_written_anew_is_not_the_one_remembered(bench: Bench) -> None:
    words = ("--engine", "docker", "--image", bench.archive("nixl:latest"))
    bench.done(*words)
    bench.archive("nixl:latest", config=B)
    assert bench.done(*words)[0] == facts("nixl:latest", B, loaded=True)


@pytest.mark.slow
@pytest.mark.parametrize("memo", ["{", "[]", '{"stamp": 1}'])
def test_a_memory_that_cannot_be_read_is_no_memory(memo: str, bench: Bench) -> None:
    words = ("--engine", "docker", "--image", bench.archive("nixl:latest"))
    bench.done(*words)
    (lock,) = bench.temp.glob("pdserve-image-*.lock")
    lock.write_text(memo)
    assert bench.done(*words)[0] == facts("nixl:latest", A, loaded=False)
    assert json.loads(lock.read_text())["image"] == "nixl:latest"


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("number", [A, B], ids=["config", "manifest"])
def test_an_image_that_somebody_else_loaded_is_known_by_either_id(
    number: str, bench: Bench
) -> None:
    bench.has(nixl_latest=f"sha256:{number}")
    done, _ = bench.done("--engine", "docker", "--image", bench.archive("nixl:latest", oci=B))
    assert done == facts("nixl:latest", number, loaded=False, digest=False)
    assert "docker load" not in bench.log()


def test_podmans_ids_have_no_algorithm(bench: Bench) -> None:
    bench.has(nixl_latest=A)
    done, _ = bench.done("--engine", "podman", "--image", bench.archive("nixl:latest"))
    assert done == facts("nixl:latest", A, loaded=False, digest=False)


@pytest.mark.slow
def test_another_image_of_that_name_is_not_taken_for_it(bench: Bench) -> None:
    bench.has(nixl_latest=f"sha256:{B}")
    path = bench.archive("nixl:latest")
    done, _ = bench.done("--engine", "docker", "--image", path, "--tag", "nixl")
    assert done == facts("nixl:latest", A, loaded=True)


def test_with_a_tag_a_fresh_node_reads_the_tarball_once(bench: Bench) -> None:
    path = bench.archive("nixl:1", "nixl:2")
    done, _ = bench.done("--engine", "docker", "--image", path, "--tag", "nixl:2")
    assert done == facts("nixl:2", A, loaded=True)
    assert bench.log().count("pigz") == 1


def test_gzip_does_where_there_is_no_pigz(bench: Bench) -> None:
    (bench.bin / "pigz").unlink()
    done, _ = bench.done("--engine", "docker", "--image", bench.archive("nixl:1"))
    assert done == facts("nixl:1", A, loaded=True)


def test_an_archive_that_is_not_compressed(bench: Bench) -> None:
    path = bench.archive("nixl:1", name="nixl.tar")
    for name in ("pigz", "gzip"):
        (bench.bin / name).unlink()
    done, _ = bench.done("--engine", "docker", "--image", path)
    assert done == facts("nixl:1", A, loaded=True)


@pytest.mark.slow
def test_what_a_tarball_lacks(bench: Bench) -> None:
    two = bench.archive("nixl:1", "nixl:2", name="two.tar.gz")
    none = bench.archive(name="none.tar.gz")
    other = bench.archive(name="other.tar.gz", entries={"no": "list"})
    words = ("--engine", "docker", "--image")
    assert bench.refused(*words, two) == (
        f"{two} has nixl:1, nixl:2; choose one with container.tag"
    )
    assert bench.refused(*words, two, "--tag", "vllm:1") == (
        f"{two} has no image vllm:1; the engine printed: Loaded image: nixl:2"
    )
    bench.has(vllm_1=f"sha256:{B}")
    assert bench.refused(*words, two, "--tag", "vllm:1") == (
        f"{two} has no image vllm:1; it has nixl:1, nixl:2"
    )
    assert bench.refused(*words, none) == (
        f"{none} names no image; save it by its name, not by its id"
    )
    assert bench.refused(*words, other).startswith(f"{other} is not what docker save writes: ")


@pytest.mark.slow
def test_files_that_are_no_tarballs(bench: Bench) -> None:
    words = ("--engine", "docker", "--image")
    lost = str(bench.root / "lost.tar.gz")
    assert bench.refused(*words, lost) == f"image {lost} cannot be read: No such file or directory"
    text = bench.root / "text.tar.gz"
    text.write_bytes(gzip.compress(b"hello"))
    assert bench.refused(*words, str(text)).startswith(f"{text} is not what docker save writes: ")
    short = Path(bench.archive("nixl:1"))
    short.write_bytes(short.read_bytes()[:100_000])
    assert bench.refused(*words, str(short)).startswith(f"{short} is not what docker save writes: ")
    assert "load" in bench.refused(*words, str(short), "--tag", "nixl:1")


def test_damage_that_the_engine_did_not_see(bench: Bench) -> None:
    path = Path(bench.archive("nixl:1"))
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert bench.refused("--engine", "docker", "--image", str(path), "--tag", "nixl:1") == (
        f"{path} is damaged: its decompressor exited with 1"
    )


def test_a_full_disk(bench: Bench) -> None:
    bench.happens("full")
    path = bench.archive("nixl:1")
    assert bench.refused("--engine", "docker", "--image", path) == (
        f"docker load of {path} failed: write /layer.tar: no space left on device; "
        "free space where docker keeps its images (docker info)"
    )


def test_neither_pigz_nor_gzip(bench: Bench) -> None:
    path = bench.archive("nixl:1")
    for name in ("pigz", "gzip"):
        (bench.bin / name).unlink()
    assert bench.refused("--engine", "docker", "--image", path) == (
        "neither pigz nor gzip is on PATH; install one"
    )


# Registries


def test_an_image_that_is_there_is_not_pulled(bench: Bench) -> None:
    bench.has(nixl_1=f"sha256:{A}")
    done, said = bench.done("--engine", "docker", "--image", "nixl:1")
    assert done == facts("nixl:1", A, loaded=False, digest=False)
    assert said == ["node p5-03: nixl:1 is present"]
    assert bench.log() == ["docker version", "docker image inspect nixl:1"]


def test_an_image_that_is_not_there_is_pulled(bench: Bench) -> None:
    done, said = bench.done("--engine", "podman", "--image", "nixl:1")
    assert done == facts("nixl:1", "pulled", loaded=True)
    assert said == ["node p5-03: pulling nixl:1", "node p5-03: nixl:1 is pulled"]
    assert "aws" not in " ".join(bench.log())


ECR_WORDS = (
    *("--engine", "docker", "--image", f"{ECR}/nixl:1"),
    *("--ecr-registry", ECR, "--ecr-region", "us-east-1"),
)


def test_ecr_is_logged_in_to_through_a_pipe(bench: Bench) -> None:
    done, said = bench.done(*ECR_WORDS)
    assert done == facts(f"{ECR}/nixl:1", "pulled", loaded=True)
    assert said[0] == f"node p5-03: logging in to {ECR}"
    log = bench.log()
    assert log[:2] == ["docker version", f"docker image inspect {ECR}/nixl:1"]
    assert sorted(log[2:4]) == [
        "aws ecr get-login-password --region us-east-1",
        f"docker login --username AWS --password-stdin {ECR}",
    ]
    assert log[4:] == [f"docker pull {ECR}/nixl:1", f"docker image inspect {ECR}/nixl:1"]
    assert (bench.engine / "password").read_text() == "sesame\n"
    assert "sesame" not in " ".join([*log, *said])


def test_no_login_is_left_behind(bench: Bench) -> None:
    bench.happens("offline")
    assert bench.refused(*ECR_WORDS) == (
        f"docker pull of {ECR}/nixl:1 failed: Error: registry does not answer"
    )
    config = Path((bench.engine / "config").read_text())
    assert config.parent == bench.temp
    assert not config.exists()


@pytest.mark.slow
def test_ecr_does_not_let_us_in(bench: Bench) -> None:
    bench.happens("refuse")
    assert bench.refused(*ECR_WORDS) == f"docker login to {ECR} failed: Error: unauthorized"
    bench.happens("expired")
    assert bench.refused(*ECR_WORDS) == (
        f"aws gave no password for {ECR} in us-east-1: The security token has expired"
    )
    (bench.bin / "aws").unlink()
    assert bench.refused(*ECR_WORDS) == (
        f"aws is not on PATH, and {ECR} needs a login; install the AWS CLI"
    )


def test_engines_that_are_not_there(bench: Bench) -> None:
    bench.happens("down")
    words = ("--engine", "docker", "--image", "nixl:1")
    assert bench.refused(*words) == (
        "docker does not work on this node: Cannot connect to the Docker daemon at "
        "unix:///var/run/docker.sock."
    )
    (bench.bin / "docker").unlink()
    assert bench.refused(*words) == (
        "docker is not on PATH; install it, or choose another container.kind"
    )


# Squashfs files


def test_a_squashfs_file_has_only_to_be_there(bench: Bench) -> None:
    path = bench.root / "a.sqsh"
    path.write_bytes(b"hsqs and more")
    words = ("--engine", "enroot", "--image", str(path))
    done, said = bench.done(*words)
    assert done == {"image": str(path), "id": "", "digests": [], "loaded": False}
    assert said == [f"node p5-03: {path} is present"]
    done, _ = bench.done(*words, "--digest")
    assert done["id"] == f"sha256:{hashlib.sha256(b'hsqs and more').hexdigest()}"


def test_files_that_are_no_squashfs(bench: Bench) -> None:
    path = bench.root / "a.sqsh"
    words = ("--engine", "enroot", "--image", str(path))
    assert bench.refused(*words) == f"image {path} cannot be read: No such file or directory"
    path.write_bytes(b"PK")
    assert bench.refused(*words) == f"{path} is not a squashfs file"


# Two sessions, signals, time


@pytest.mark.slow
def test_two_sessions_load_once(bench: Bench) -> None:
    os.mkfifo(bench.engine / "gate")
    path = bench.archive("nixl:1")
    words = ("--engine", "docker", "--image", path, "--tag", "nixl:1")
    first = bench.start(*words)
    assert first.stdout is not None
    assert "loading" in first.stdout.readline()
    second = bench.start(*words)
    assert second.stdout is not None
    assert second.stdout.readline() == (
        f"node p5-03: waiting for another session that loads {path}\n"
    )
    (bench.engine / "gate").write_text("go")
    outcomes = [
        json.loads(process.communicate(timeout=60)[0].splitlines()[-1])["loaded"]
        for process in (first, second)
    ]
    assert outcomes == [True, False]
    assert bench.log().count("docker load") == 1


@pytest.mark.slow
def test_sigterm_ends_the_script_and_its_children(bench: Bench) -> None:
    os.mkfifo(bench.engine / "gate")
    path = bench.archive("nixl:1")
    words = ("--engine", "docker", "--image", path, "--tag", "nixl:1")
    process = bench.start(*words)
    assert process.stdout is not None
    assert "loading" in process.stdout.readline()
    # Opens only when the stand-in waits at the other end, so that there is somebody to end.
    with (bench.engine / "gate").open("w"):
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM
        assert len(children) == 2
        assert not [child for child in children if child.is_running()]
    (bench.engine / "gate").unlink()
    assert bench.done(*words)[0] == facts("nixl:1", A, loaded=True)


def test_progress_comes_as_long_as_it_lasts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "TICK_S", 0.001)
    monkeypatch.setenv("SLURMD_NODENAME", "p5-03")
    enough = threading.Event()
    said: list[str] = []

    def text() -> str:
        said.append(f"step {len(said)}")
        if len(said) > 3:
            enough.set()
        return said[-1]

    with Node().reporting(text):
        assert enough.wait(30)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "node p5-03: step 0",
        "node p5-03: step 1, 0 s",
        "node p5-03: step 2, 0 s",
    ]


def test_progress_names_the_share_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.touch()
    archive = tarball.Tarball(str(path))
    archive.size, archive.read = int(17.2 * 2**30), int(3.1 * 2**30)
    assert archive.progress == "3.1 of 17.2 GiB read"


def test_a_node_without_slurm_has_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    monkeypatch.setattr(platform, "node", lambda: "p5-03.cluster.local")
    assert Node().name == "p5-03"


@pytest.mark.parametrize("module", [script, tarball], ids=["image.py", "tarball.py"])
def test_any_python_from_3_9_on_runs_the_script(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(), feature_version=(3, 9))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    own = {"tarball", "pytest_pdserve"}  # the next test sees that the package need not be there
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names | own


def test_the_script_needs_nothing_but_the_file_beside_it(tmp_path: Path) -> None:
    for module in (script, tarball):
        shutil.copy(str(module.__file__), tmp_path)
    # Without PYTHONPATH and site-packages.
    argv = [sys.executable, "-E", "-S", str(tmp_path / "image.py"), "--help"]
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.py", "tarball.py"]


# Docker's own client


class Daemon(http.server.BaseHTTPRequestHandler):
    """Hears what the client asks for, and refuses it."""

    heard: list[Mapping[str, Any]]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("OSType", "linux")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.heard.append({"path": self.path, **json.loads(body)})
        self.send_error(500, "heard enough")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    heard: list[Mapping[str, Any]] = []
    handler = type("Heard", (Daemon,), {"heard": heard})
    with socketserver.UnixStreamServer(str(tmp_path / "d.sock"), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"unix://{tmp_path / 'd.sock'}", heard
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(shutil.which("docker") is None, reason="no Docker client on this machine")
@pytest.mark.parametrize("privileged", [False, True], ids=["rights by name", "all rights"])
def test_dockers_own_client_reads_the_command_as_it_is_meant(
    privileged: bool, daemon: tuple[str, list[Mapping[str, Any]]], tmp_path: Path
) -> None:
    address, heard = daemon
    spec = ContainerSpec(
        kind="docker",
        image="nixl:1",
        mounts=("/fsx", "/d:/data:ro"),
        privileged=privileged,
        gpus="0,3" if privileged else "all",
    )
    plain = Command(
        name="decode[1]",
        node="p5-03",
        argv=("vllm", "serve", "/m", "--port", "8000"),
        env=(("UCX_TLS", "^cuda_ipc"), ("EMPTY", "")),
        secrets=("VLLM_API_KEY",),
    )
    host = Host(name="p5-03", address="10.0.0.3", interface="ens32", devices=("/dev/gdrdrv",))
    command = contain(plain, spec, host=host, image="nixl:1", run_id="r-1")
    env = {
        "PATH": os.environ["PATH"],
        "DOCKER_HOST": address,
        "DOCKER_CONFIG": str(tmp_path),
        "VLLM_API_KEY": "sesame",
    }
    done = subprocess.run(command.argv, env=env, capture_output=True, text=True, timeout=60)
    assert "heard enough" in done.stderr
    (asked,) = heard
    assert asked["path"].endswith("/containers/create?name=pdserve-r-1-decode-1")
    assert (asked["Entrypoint"], asked["Cmd"]) == (["vllm"], ["serve", "/m", "--port", "8000"])
    assert sorted(asked["Env"]) == ["EMPTY=", "UCX_TLS=^cuda_ipc", "VLLM_API_KEY=sesame"]
    assert asked["Labels"] == {"pdserve.run": "r-1", "pdserve.name": "decode[1]"}
    assert [asked[k] for k in ("Image", "Tty", "OpenStdin", "AttachStdin", "AttachStdout")] == [
        *("nixl:1", False, False, False, True),
    ]
    config = asked["HostConfig"]
    assert [config[k] for k in ("NetworkMode", "IpcMode", "UTSMode")] == ["host"] * 3
    assert (config["AutoRemove"], config["Init"], config["Privileged"]) == (True, True, privileged)
    assert [cap.removeprefix("CAP_") for cap in config["CapAdd"] or ()] == (
        [] if privileged else ["IPC_LOCK"]
    )
    assert config["SecurityOpt"] == ["seccomp=unconfined"]
    assert {u["Name"]: (u["Soft"], u["Hard"]) for u in config["Ulimits"]} == {
        "memlock": (-1, -1),
        "stack": (67108864, 67108864),
    }
    assert [(d["PathOnHost"], d["PathInContainer"]) for d in config["Devices"]] == [
        ("/dev/gdrdrv", "/dev/gdrdrv")
    ]
    assert [(r["Count"], r["DeviceIDs"]) for r in config["DeviceRequests"]] == [
        (0, ["0", "3"]) if privileged else (-1, None)
    ]
    assert [(m["Source"], m["Target"], m.get("ReadOnly", False)) for m in config["Mounts"]] == [
        ("/fsx", "/fsx", False),
        ("/d", "/data", True),
    ]
