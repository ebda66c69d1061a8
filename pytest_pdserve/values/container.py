"""Containers: settings of ``[container]`` in a system file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from typing import Literal

from msgspec import Meta

from pytest_pdserve.values.errors import ConfigError

ContainerKind = Literal["docker", "podman", "pyxis", "enroot", "none"]
ImageSource = Literal["none", "registry", "tarball", "squashfs"]

_Token = Annotated[str, Meta(pattern=r"^\S+(?![\s\S])")]
_UNIQUE = Meta(extra_json_schema={"uniqueItems": True})

_TARBALLS = (".tar.gz", ".tgz", ".tar")
_SQUASHFS = (".sqsh", ".squashfs")
_ENGINES = {"docker": "docker", "podman": "podman", "pyxis": "enroot", "enroot": "enroot"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder of the node that is mounted in a container."""

    source: str
    """Path on the node."""
    target: str
    """Path in the container."""
    read_only: bool = False
    """True if it is mounted read-only."""

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Parse ``source``, ``source:target`` or ``source:target:ro``, validated by the schema."""
        source, target, flag, *_ = [*text.split(":"), "", ""]
        return cls(source=source, target=target or source, read_only=flag == "ro")

    def shows(self, path: str) -> bool:
        """Return whether *path* is writable in the container at its own path."""
        inside = f"{path}/".startswith(f"{self.source.rstrip('/')}/")
        return inside and self.source == self.target and not self.read_only


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """Containers in which the processes of a system run."""

    kind: ContainerKind = "none"
    """Container runtime; ``pyxis`` is Slurm's plugin for enroot."""
    image: _Token = ""
    """Registry reference, path of a tarball (``docker save | pigz``) or of a ``.sqsh`` file."""
    tag: _Token = ""
    """Name of the image inside a tarball; empty for the name in the tarball."""
    mounts: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^/[^:,\s]*(:/[^:,\s]*(:ro)?)?$")], ...], _UNIQUE
    ] = ()
    """Folders to mount, each ``source``, ``source:target`` or ``source:target:ro``."""
    privileged: bool = False
    """True if containers are privileged, as in the article's launcher."""
    devices: Annotated[tuple[Annotated[str, Meta(pattern=r"^/dev/[^:\s]+$")], ...], _UNIQUE] = (
        "/dev/infiniband/uverbs*",
        "/dev/gdrdrv",
    )
    """Globs of device files to pass, if a node has them: EFA's verbs and GDRCopy's driver."""
    capabilities: Annotated[tuple[Annotated[str, Meta(pattern="^[A-Z][A-Z_]*$")], ...], _UNIQUE] = (
        "IPC_LOCK",
    )
    """Linux capabilities, if containers are not privileged.

    Registering memory with EFA pins it, which needs ``IPC_LOCK`` or a sufficient ``memlock`` limit.
    GDRCopy needs only its device file, NCCL only a shared ``/dev/shm``.
    """
    security_opt: tuple[str, ...] = ("seccomp=unconfined",)
    """Security options: Docker's default seccomp filter blocks NUMA calls for memory near a GPU."""
    ulimits: tuple[Annotated[str, Meta(pattern="^[a-z]+=-?[0-9]+(:-?[0-9]+)?$")], ...] = (
        "memlock=-1",
        "stack=67108864",
    )
    """Limits of processes: any amount of pinned memory, 64 MiB of stack."""
    gpus: Annotated[str, Meta(pattern="^(all|[0-9]+(,[0-9]+)*)?$")] = "all"
    """``all``, indices such as ``0,1``, or empty for none."""
    args: tuple[str, ...] = ()
    """Further arguments of ``docker run``, ``podman run`` or ``enroot start``; pyxis: ``srun``."""

    @property
    def engine(self) -> str:
        """Program that runs containers; empty for kind ``none``."""
        return _ENGINES.get(self.kind, "")

    @property
    def contained(self) -> bool:
        """True if processes run in containers."""
        return self.kind != "none"

    @property
    def supervised(self) -> bool:
        """True if a daemon or monitor runs the containers, so that they are not child processes."""
        return self.kind in ("docker", "podman")

    @property
    def image_source(self) -> ImageSource:
        """Kind of the image, by the form of :attr:`image`."""
        if not self.contained:
            return "none"
        if self.image.endswith(_TARBALLS):
            return "tarball"
        return "squashfs" if self.image.endswith(_SQUASHFS) else "registry"

    @property
    def prepared(self) -> bool:
        """True if the image is made available on nodes first; pyxis pulls images itself."""
        return self.contained and (self.kind, self.image_source) != ("pyxis", "registry")

    @property
    def volumes(self) -> tuple[Mount, ...]:
        """:attr:`mounts`, parsed."""
        return tuple(Mount.parse(text) for text in self.mounts)

    def check(self) -> None:
        """Raise if fields contradict each other; single fields are checked by the schema.

        :raises ConfigError: with the field, its value and what to write instead.
        """
        if trouble := self._trouble():
            raise ConfigError(trouble)

    def _trouble(self) -> str:
        image, kind, source = f"container.image = {self.image!r}", self.kind, self.image_source
        if kind == "none":
            if self.image:
                return f"{image} has no container.kind; set it, e.g. to docker"
            given = self != ContainerSpec()
            return "[container] has no container.kind; set it, e.g. to docker" if given else ""
        if not self.image:
            return f"container.kind = {kind!r} has no container.image; name the image"
        if source != "registry" and not self.image.startswith("/"):
            return f"{image} is a file, and nodes must find it: write its absolute path"
        if self.tag and source != "tarball":
            return f"container.tag = {self.tag!r} is for tarballs; put the tag in container.image"
        if self.supervised:
            if source == "squashfs":
                return f"{image} is for enroot and pyxis; {kind} takes a .tar.gz or a reference"
            return ""
        if source == "tarball":
            return f"{image} is for docker and podman; make a .sqsh for {kind} (enroot import)"
        if kind == "enroot" and source == "registry":
            return f"{image} is not a file, but enroot needs one; make a .sqsh (enroot import)"
        if self.privileged:
            return (
                f"container.privileged = true, but {kind} has no privileged containers; remove it"
            )
        return ""
