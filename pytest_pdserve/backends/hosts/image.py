"""The node's side of an image: makes it present, and says which one it is.

A script for any Python from 3.9 on, because a node's own runs it; it imports the standard library
and ``tarball.py``, which is copied beside it, and nothing else. The last line of standard output is
one JSON object; the lines before it are progress. What goes wrong is one sentence on standard
error, and exit status 1.
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
"""For an engine to answer a question."""
_SQUASHFS = (b"hsqs", b"sqsh")
_TARBALLS = (".tar.gz", ".tgz", ".tar")


class Node:
    """Says what happens here, and for how long it has."""

    def __init__(self) -> None:
        host = platform.node().partition(".")[0]
        self.name = os.environ.get("SLURMD_NODENAME") or host
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return round(time.monotonic() - self._began, 1)

    def say(self, text: str) -> None:
        """One line of progress; nobody listening is no reason to stop."""
        with contextlib.suppress(OSError):
            sys.stdout.write(f"node {self.name}: {text}\n")
            sys.stdout.flush()

    @contextlib.contextmanager
    def telling(self, text: Callable[[], str]) -> Iterator[None]:
        """Say *text* now, and with the time every few seconds until the block ends."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(TICK_S):
                self.say(f"{text()}, {self.seconds:.0f} s")

        self.say(text())
        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Engine:
    """Docker, or podman, which takes the same commands."""

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
            raise Trouble(f"{name} does not work on this node: {_last(done.stderr)}")

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
        """Id and digests of an image; None if the node does not have it."""
        done = self._ask("image", "inspect", image)
        if done.returncode:
            return None
        facts = json.loads(done.stdout)[0]
        number = str(facts["Id"])
        number = number if number.startswith("sha256:") else f"sha256:{number}"
        return {"id": number, "digests": facts.get("RepoDigests") or []}

    def load(self, tarball: Tarball, what: str) -> str:
        """Load a tarball.

        :returns: what the engine said of it.
        """

        def text() -> str:
            return f"loading {what} from {tarball.path}, {tarball.progress}"

        with tempfile.TemporaryFile() as output:
            with self._node.telling(text), tarball.unpacked() as unpacker:
                argv = [self._name, "load"]
                with child(argv, stdin=unpacker.stdout, stdout=output, stderr=output) as load:
                    # Ours is closed, so that the unpacker notices when the engine gives up.
                    if unpacker.stdout is not None:
                        unpacker.stdout.close()
                    loaded = load.wait()
                unpacked = unpacker.wait()
            said = _written(output)
        if loaded:
            raise Trouble(self._full(f"{self._name} load of {tarball.path} failed", said))
        # An engine may stop reading at the archive's end, before the padding behind it.
        if unpacked not in (0, -signal.SIGPIPE):
            raise Trouble(f"{tarball.path} is damaged: its decompressor exited with {unpacked}")
        return _last(said)

    def pull(self, image: str) -> None:
        """Pull an image from its registry."""
        with tempfile.TemporaryFile() as output, self._node.telling(lambda: f"pulling {image}"):
            argv = [self._name, "pull", image]
            with child(argv, env=self._env, stdout=output, stderr=output) as pull:
                code = pull.wait()
            said = _written(output)
        if code:
            raise Trouble(self._full(f"{self._name} pull of {image} failed", said))

    @contextlib.contextmanager
    def logged_in(self, registry: str, region: str) -> Iterator[None]:
        """Be logged in to ECR; the password goes through a pipe, and its traces end with the block.

        The login lies in a folder of its own, since homes may be shared: logins of several nodes
        would overwrite each other there, and stay.
        """
        if shutil.which("aws") is None:
            raise Trouble(f"aws is not on PATH, and {registry} needs a login; install the AWS CLI")
        self._node.say(f"logging in to {registry}")
        with tempfile.TemporaryDirectory(prefix=login_prefix(os.getpid())) as folder:
            self._env["DOCKER_CONFIG"] = folder
            self._env["REGISTRY_AUTH_FILE"] = str(Path(folder) / "auth.json")
            self._log_in(registry, region)
            yield

    def _log_in(self, registry: str, region: str) -> None:
        asked = ["aws", "ecr", "get-login-password", "--region", region]
        given = [self._name, "login", "--username", "AWS", "--password-stdin", registry]
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            with child(asked, stdout=subprocess.PIPE, stderr=errors) as aws:
                with child(
                    given, env=self._env, stdin=aws.stdout, stdout=output, stderr=output
                ) as login:
                    if aws.stdout is not None:
                        aws.stdout.close()
                    entered = login.wait()
                answered = aws.wait()
            if answered:
                said = _last(_written(errors))
                raise Trouble(f"aws gave no password for {registry} in {region}: {said}")
            if entered:
                said = _last(_written(output))
                raise Trouble(f"{self._name} login to {registry} failed: {said}")

    def _full(self, what: str, said: str) -> str:
        room = f"; make room where {self._name} keeps its images ({self._name} info)"
        return f"{what}: {_last(said)}" + (room if "no space left" in said.lower() else "")


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else "it says nothing"


def login_prefix(pid: int) -> str:
    """What the name of the folder begins with in which process *pid* keeps a registry's login."""
    return f"pdserve-login-{pid}-"


def lock_path(image: str) -> Path:
    """Path of the lock of *image* on this node, for this user's sessions."""
    key = hashlib.sha256(image.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pdserve-image-{os.getuid()}-{key}.lock"


@contextlib.contextmanager
def locked(image: str, node: Node) -> Iterator[IO[str]]:
    """Be the only one of this user's sessions on this node that sees to *image*.

    :returns: the lock's file; it remembers what the image was loaded as.
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
                with node.telling(lambda: f"waiting for another session that sees to {image}"):
                    fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # `pdserve clean` has not removed it meanwhile
                yield file
                return


def from_tarball(engine: Engine, path: str, tag: str, memo: IO[str], node: Node) -> dict[str, Any]:
    """See that the node has the image of a tarball, and not another one of the same name.

    What a tarball was loaded as is remembered beside the lock, with its size and time; without
    that, its manifest tells, for which much of it must be read.
    """
    tarball = Tarball(path)
    known, number = _remembered(memo, tarball.stamp)
    if known and tag in ("", known):
        ids, tag = {number}, known
    elif tag and engine.inspect(tag) is None:
        ids = set()
    else:
        with node.telling(lambda: f"reading names in {path}, {tarball.progress}"):
            names, ids = tarball.contents()
        tag = tag or _only(names, path)
        if tag not in names:
            raise Trouble(f"{path} has no image {tag}; it has {', '.join(names) or 'no name'}")
    present, said = engine.inspect(tag), ""
    loaded = present is None or present["id"] not in ids
    if loaded:
        said = engine.load(tarball, tag)
        present = engine.inspect(tag)
    if present is None:
        raise Trouble(f"{path} has no image {tag}; the engine says: {said}")
    node.say(f"{tag} is {'loaded' if loaded else 'present'}")
    memo.seek(0)
    memo.truncate()
    json.dump({"stamp": tarball.stamp, "image": tag, "id": present["id"]}, memo)
    return {"image": tag, **present, "loaded": loaded}


def _remembered(memo: IO[str], stamp: Sequence[int]) -> tuple[str, str]:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        known = json.load(memo)
        if known["stamp"] == list(stamp):
            return str(known["image"]), str(known["id"])
    return "", ""


def _tagged(image: str) -> str:
    """A name with its tag, as engines complete it."""
    bare = ":" not in image.rpartition("/")[2] and "@" not in image
    return f"{image}:latest" if image and bare else image


def _only(names: Sequence[str], path: str) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        raise Trouble(f"{path} names no image; save it by its name, not by its id")
    raise Trouble(f"{path} has {', '.join(names)}; say which with container.tag")


def from_registry(engine: Engine, image: str, ecr: tuple[str, str], node: Node) -> dict[str, Any]:
    """See that the node has an image of a registry."""
    present = engine.inspect(image)
    if present is not None:
        node.say(f"{image} is present")
        return {"image": image, **present, "loaded": False}
    with engine.logged_in(*ecr) if all(ecr) else contextlib.nullcontext():
        engine.pull(image)
    present = engine.inspect(image)
    if present is None:
        raise Trouble(f"{image} was pulled, and is not there")
    node.say(f"{image} is pulled")
    return {"image": image, **present, "loaded": True}


def from_squashfs(path: str, digest: bool, node: Node) -> dict[str, Any]:
    """See that a node can read a squashfs file, and take its digest if that is asked."""
    try:
        with open(path, "rb") as file:
            if file.read(4) not in _SQUASHFS:
                raise Trouble(f"{path} is no squashfs file")
            number = f"sha256:{_sha256(file, path, node)}" if digest else ""
    except OSError as error:
        raise Trouble(f"image {path} cannot be read: {error.strerror}") from error
    node.say(f"{path} is present")
    return {"image": path, "id": number, "digests": [], "loaded": False}


def _sha256(file: IO[bytes], path: str, node: Node) -> str:
    taken = hashlib.sha256()
    size = os.fstat(file.fileno()).st_size
    file.seek(0)

    def text() -> str:
        return f"digest of {path}, {file.tell() / GIB:.1f} of {size / GIB:.1f} GiB read"

    with node.telling(text):
        while chunk := file.read(CHUNK):
            taken.update(chunk)
    return taken.hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make a container image present on this node.")
    parser.add_argument("--engine", required=True, choices=["docker", "podman", "enroot"])
    parser.add_argument("--image", required=True, help="Reference, tarball or squashfs file")
    parser.add_argument("--tag", default="", help="Name of the image in a tarball")
    parser.add_argument("--ecr-registry", default="", help="Registry to log in to")
    parser.add_argument("--ecr-region", default="", help="AWS region of that registry")
    parser.add_argument("--digest", action="store_true", help="Take SHA-256 of a squashfs file")
    return parser


def make_present(asked: argparse.Namespace, node: Node) -> dict[str, Any]:
    """Make the image present.

    :returns: what standard output ends with, apart from the time that it took.
    :raises Trouble: if it cannot be done.
    """
    if asked.engine == "enroot":
        return from_squashfs(asked.image, asked.digest, node)
    engine = Engine(asked.engine, node)
    with locked(asked.image, node) as memo:
        if asked.image.endswith(_TARBALLS):
            return from_tarball(engine, asked.image, _tagged(asked.tag), memo, node)
        ecr = (asked.ecr_registry, asked.ecr_region)
        return from_registry(engine, asked.image, ecr, node)


def main() -> int:
    """Do what the arguments ask; see the module's docstring."""
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
