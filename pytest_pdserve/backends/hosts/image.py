"""A script for nodes: loads or pulls a container image, and prints its id and digests.

The node's own Python runs it, from 3.9 on; it imports only the standard library and ``tarball.py``,
which is copied next to it. The last line of standard output is one JSON object; the lines before it
are progress. An error is one sentence on standard error, and exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING or __package__:
    from pytest_pdserve.backends.hosts.tarball import CHUNK
    from pytest_pdserve.backends.hosts.tarball import GIB
    from pytest_pdserve.backends.hosts.tarball import Tarball
    from pytest_pdserve.backends.hosts.tarball import Trouble
    from pytest_pdserve.backends.hosts.tarball import child
else:
    sys.dont_write_bytecode = True  # the folder is the session's, and all its nodes see it
    from tarball import CHUNK
    from tarball import GIB
    from tarball import Tarball
    from tarball import Trouble
    from tarball import child

TICK_S = 10.0
_ANSWER_S = 60.0
"""Timeout of a short command of the container engine."""
_SQUASHFS = (b"hsqs", b"sqsh")
_TARBALLS = (".tar.gz", ".tgz", ".tar")


class Node:
    """Prints progress lines with the name of this node and the time."""

    def __init__(self) -> None:
        host = platform.node().partition(".")[0]
        self.name = os.environ.get("SLURMD_NODENAME") or host
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return round(time.monotonic() - self._began, 1)

    def report(self, text: str) -> None:
        """Print a progress line; ignore that standard output may be closed."""
        with contextlib.suppress(OSError):
            sys.stdout.write(f"node {self.name}: {text}\n")
            sys.stdout.flush()

    @contextlib.contextmanager
    def reporting(self, text: Callable[[], str]) -> Iterator[None]:
        """Print *text* now, and with the time every few seconds until the block ends."""
        done = threading.Event()

        def repeat() -> None:
            while not done.wait(TICK_S):
                self.report(f"{text()}, {self.seconds:.0f} s")

        self.report(text())
        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Engine:
    """Docker, or podman, which has the same commands."""

    def __init__(self, name: str, node: Node) -> None:
        self._name = name
        self._node = node
        self._env = dict(os.environ)
        if shutil.which(name) is None:
            raise Trouble(f"{name} is not on PATH; install it, or choose another container.kind")
        try:
            done = self._ask("version")
        except subprocess.TimeoutExpired as error:
            raise Trouble(f"{name} does not answer within {_ANSWER_S:.0f} s") from error
        if done.returncode:
            raise Trouble(f"{name} does not work on this node: {_last_line(done.stderr)}")

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._name, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_ANSWER_S,
            check=False,
        )

    def inspect(self, image: str) -> Mapping[str, Any] | None:
        """Return id and digests of an image; None if the node does not have it."""
        done = self._ask("image", "inspect", image)
        if done.returncode:
            return None
        facts = json.loads(done.stdout)[0]
        number = str(facts["Id"])
        number = number if number.startswith("sha256:") else f"sha256:{number}"
        return {"id": number, "digests": facts.get("RepoDigests") or []}

    def load(self, tarball: Tarball, what: str) -> str:
        """Load a tarball.

        :param what: name of the image, for progress lines.
        :returns: the last line of the engine's output.
        """

        def text() -> str:
            return f"loading {what} from {tarball.path}, {tarball.progress}"

        with tempfile.TemporaryFile() as output:
            with self._node.reporting(text), tarball.unpacked() as unpacker:
                argv = [self._name, "load"]
                with child(argv, stdin=unpacker.stdout, stdout=output, stderr=output) as load:
                    # Ours is closed, so that the unpacker notices when the engine gives up.
                    if unpacker.stdout is not None:
                        unpacker.stdout.close()
                    loaded = load.wait()
                unpacked = unpacker.wait()
            text_of_load = _content(output)
        if loaded:
            raise Trouble(self._error(f"{self._name} load of {tarball.path} failed", text_of_load))
        # An engine may stop reading at the archive's end, before the padding behind it.
        if unpacked not in (0, -signal.SIGPIPE):
            raise Trouble(f"{tarball.path} is damaged: its decompressor exited with {unpacked}")
        return _last_line(text_of_load)

    def pull(self, image: str) -> None:
        """Pull *image* from its registry."""
        with tempfile.TemporaryFile() as output, self._node.reporting(lambda: f"pulling {image}"):
            argv = [self._name, "pull", image]
            with child(argv, env=self._env, stdout=output, stderr=output) as pull:
                code = pull.wait()
            text = _content(output)
        if code:
            raise Trouble(self._error(f"{self._name} pull of {image} failed", text))

    @contextlib.contextmanager
    def logged_in(self, registry: str, region: str) -> Iterator[None]:
        """Log in to ECR for the duration of the block; the password goes through a pipe.

        The login is kept in a temporary folder: in a home that nodes share, logins would overwrite
        each other, and remain.
        """
        if shutil.which("aws") is None:
            raise Trouble(f"aws is not on PATH, and {registry} needs a login; install the AWS CLI")
        self._node.report(f"logging in to {registry}")
        with tempfile.TemporaryDirectory(prefix=login_prefix(os.getpid())) as folder:
            self._env["DOCKER_CONFIG"] = folder
            self._env["REGISTRY_AUTH_FILE"] = str(Path(folder) / "auth.json")
            self._log_in(registry, region)
            yield

    def _log_in(self, registry: str, region: str) -> None:
        get_password = ["aws", "ecr", "get-login-password", "--region", region]
        log_in = [self._name, "login", "--username", "AWS", "--password-stdin", registry]
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            with child(get_password, stdout=subprocess.PIPE, stderr=errors) as aws:
                with child(
                    log_in, env=self._env, stdin=aws.stdout, stdout=output, stderr=output
                ) as login:
                    if aws.stdout is not None:
                        aws.stdout.close()
                    login_code = login.wait()
                aws_code = aws.wait()
            if aws_code:
                error = _last_line(_content(errors))
                raise Trouble(f"aws gave no password for {registry} in {region}: {error}")
            if login_code:
                error = _last_line(_content(output))
                raise Trouble(f"{self._name} login to {registry} failed: {error}")

    def _error(self, what: str, output: str) -> str:
        """Return the message for a failed command; it has advice if the disk is full."""
        advice = f"; free space where {self._name} keeps its images ({self._name} info)"
        full = "no space left" in output.lower()
        return f"{what}: {_last_line(output)}" + (advice if full else "")


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def login_prefix(pid: int) -> str:
    """Return the prefix of the temporary folder with the registry login of process *pid*."""
    return f"pdserve-login-{pid}-"


def lock_path(image: str) -> Path:
    """Return the path of the lock file of *image* on this node, for this user's sessions."""
    key = hashlib.sha256(image.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pdserve-image-{os.getuid()}-{key}.lock"


@contextlib.contextmanager
def locked(image: str, node: Node) -> Iterator[IO[str]]:
    """Lock *image* on this node against this user's other sessions.

    :returns: the lock file, which stores the id that the image was loaded as.
    """
    path = lock_path(image)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            file = os.fdopen(os.open(path, flags, 0o600), "r+")
        except OSError as error:
            raise Trouble(f"lock {path} cannot be opened: {error.strerror}; remove it") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with node.reporting(lambda: f"waiting for another session that loads {image}"):
                    fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # `pdserve clean` has not removed it meanwhile
                yield file
                return


def from_tarball(engine: Engine, path: str, tag: str, memo: IO[str], node: Node) -> dict[str, Any]:
    """Load the image of a tarball, unless the node already has exactly that image.

    :param memo: the lock file, with name and id of the last load for the tarball's size and time.
        Without an entry, the manifest must be read, and for it much of the tarball.
    """
    tarball = Tarball(path)
    stored, number = _stored(memo, tarball.stamp)
    if stored and tag in ("", stored):
        ids, tag = {number}, stored
    elif tag and engine.inspect(tag) is None:
        ids = set()
    else:
        with node.reporting(lambda: f"reading image names in {path}, {tarball.progress}"):
            names, ids = tarball.contents()
        tag = tag or _only(names, path)
        if tag not in names:
            raise Trouble(f"{path} has no image {tag}; it has {', '.join(names) or 'no name'}")
    present, output = engine.inspect(tag), ""
    loaded = present is None or present["id"] not in ids
    if loaded:
        output = engine.load(tarball, tag)
        present = engine.inspect(tag)
    if present is None:
        raise Trouble(f"{path} has no image {tag}; the engine printed: {output}")
    node.report(f"{tag} is {'loaded' if loaded else 'present'}")
    memo.seek(0)
    memo.truncate()
    json.dump({"stamp": tarball.stamp, "image": tag, "id": present["id"]}, memo)
    return {"image": tag, **present, "loaded": loaded}


def _stored(memo: IO[str], stamp: Sequence[int]) -> tuple[str, str]:
    """Return name and id of the last load of a tarball with *stamp*; empty if not stored."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        entry = json.load(memo)
        if entry["stamp"] == list(stamp):
            return str(entry["image"]), str(entry["id"])
    return "", ""


def _tagged(image: str) -> str:
    """Return a name with its tag, ``latest`` if it has none."""
    bare = ":" not in image.rpartition("/")[2] and "@" not in image
    return f"{image}:latest" if image and bare else image


def _only(names: Sequence[str], path: str) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        raise Trouble(f"{path} names no image; save it by its name, not by its id")
    raise Trouble(f"{path} has {', '.join(names)}; choose one with container.tag")


def from_registry(engine: Engine, image: str, ecr: tuple[str, str], node: Node) -> dict[str, Any]:
    """Pull an image from a registry, unless the node has it."""
    present = engine.inspect(image)
    if present is not None:
        node.report(f"{image} is present")
        return {"image": image, **present, "loaded": False}
    with engine.logged_in(*ecr) if all(ecr) else contextlib.nullcontext():
        engine.pull(image)
    present = engine.inspect(image)
    if present is None:
        raise Trouble(f"{image} was pulled, but the engine does not have it")
    node.report(f"{image} is pulled")
    return {"image": image, **present, "loaded": True}


def from_squashfs(path: str, digest: bool, node: Node) -> dict[str, Any]:
    """Check that the node can read a squashfs file, and compute its digest if *digest*."""
    try:
        with open(path, "rb") as file:
            if file.read(4) not in _SQUASHFS:
                raise Trouble(f"{path} is not a squashfs file")
            number = f"sha256:{_sha256(file, path, node)}" if digest else ""
    except OSError as error:
        raise Trouble(f"image {path} cannot be read: {error.strerror}") from error
    node.report(f"{path} is present")
    return {"image": path, "id": number, "digests": [], "loaded": False}


def _sha256(file: IO[bytes], path: str, node: Node) -> str:
    digest = hashlib.sha256()
    size = os.fstat(file.fileno()).st_size
    file.seek(0)

    def text() -> str:
        return f"digest of {path}, {file.tell() / GIB:.1f} of {size / GIB:.1f} GiB read"

    with node.reporting(text):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make a container image present on this node.")
    parser.add_argument("--engine", required=True, choices=["docker", "podman", "enroot"])
    parser.add_argument("--image", required=True, help="Reference, tarball or squashfs file")
    parser.add_argument("--tag", default="", help="Name of the image in a tarball")
    parser.add_argument("--ecr-registry", default="", help="Registry to log in to")
    parser.add_argument("--ecr-region", default="", help="AWS region of that registry")
    parser.add_argument("--digest", action="store_true", help="Compute SHA-256 of a squashfs file")
    return parser


def make_present(options: argparse.Namespace, node: Node) -> dict[str, Any]:
    """Load or pull the image, unless the node has it.

    :returns: the JSON object of the output, without the time.
    :raises Trouble: if that fails.
    """
    if options.engine == "enroot":
        return from_squashfs(options.image, options.digest, node)
    engine = Engine(options.engine, node)
    with locked(options.image, node) as memo:
        if options.image.endswith(_TARBALLS):
            return from_tarball(engine, options.image, _tagged(options.tag), memo, node)
        ecr = (options.ecr_registry, options.ecr_region)
        return from_registry(engine, options.image, ecr, node)


def main() -> int:
    """Make the image present and print its id and digests."""
    # SystemExit unwinds the blocks, each of which ends its process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    node = Node()
    try:
        done = make_present(_parser().parse_args(), node)
    except (Trouble, OSError, subprocess.TimeoutExpired) as trouble:
        sys.stderr.write(f"node {node.name}: {trouble}\n")
        return 1
    sys.stdout.write(json.dumps({**done, "seconds": node.seconds}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
