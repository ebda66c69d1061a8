"""Containers: what servers run in, and which image they run from."""

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
    """A folder of the node that a container sees."""

    source: str
    """Path on the node."""
    target: str
    """Path in the container."""
    read_only: bool = False
    """Whether the container may only read it."""

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Read ``source``, ``source:target`` or ``source:target:ro``; the schema has the form."""
        source, target, flag, *_ = [*text.split(":"), "", ""]
        return cls(source=source, target=target or source, read_only=flag == "ro")

    def shows(self, path: str) -> bool:
        """Tell whether the container can write to *path* under the node's own name for it."""
        inside = f"{path}/".startswith(f"{self.source.rstrip('/')}/")
        return inside and self.source == self.target and not self.read_only


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """How the processes of a system are put in containers."""

    kind: ContainerKind = "none"
    """Who makes them; ``pyxis`` is Slurm's plugin, which has enroot make them."""
    image: _Token = ""
    """Registry reference, path of a tarball (``docker save | pigz``) or of a ``.sqsh`` file."""
    tag: _Token = ""
    """Name of the image inside of a tarball; empty is the one that the tarball says."""
    mounts: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^/[^:,\s]*(:/[^:,\s]*(:ro)?)?$")], ...], _UNIQUE
    ] = ()
    """Folders, each ``source``, ``source:target`` or ``source:target:ro``."""
    privileged: bool = False
    """Whether containers get all rights on the node; the article's launcher gives them."""
    devices: Annotated[tuple[Annotated[str, Meta(pattern=r"^/dev/[^:\s]+$")], ...], _UNIQUE] = (
        "/dev/infiniband/uverbs*",
        "/dev/gdrdrv",
    )
    """Globs of device files, of which a node's are passed: EFA's verbs and GDRCopy's driver."""
    capabilities: Annotated[tuple[Annotated[str, Meta(pattern="^[A-Z][A-Z_]*$")], ...], _UNIQUE] = (
        "IPC_LOCK",
    )
    """Linux capabilities, where containers are not privileged.

    Registering memory with EFA pins it, which the kernel allows up to the ``memlock`` limit, or
    without limit to who has ``IPC_LOCK``. GDRCopy needs its device file and NCCL a shared
    ``/dev/shm``: no capability for either.
    """
    security_opt: tuple[str, ...] = ("seccomp=unconfined",)
    """Docker's own seccomp filter refuses the NUMA calls that place memory near a GPU."""
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
        """Program that makes the containers; empty where there are none."""
        return _ENGINES.get(self.kind, "")

    @property
    def contained(self) -> bool:
        """Whether processes run in containers."""
        return self.kind != "none"

    @property
    def supervised(self) -> bool:
        """Whether an engine holds the containers, which are then no children of who starts them."""
        return self.kind in ("docker", "podman")

    @property
    def image_source(self) -> ImageSource:
        """Where the image comes from."""
        if not self.contained:
            return "none"
        if self.image.endswith(_TARBALLS):
            return "tarball"
        return "squashfs" if self.image.endswith(_SQUASHFS) else "registry"

    @property
    def prepared(self) -> bool:
        """Whether nodes need the image before they start anything; pyxis pulls on its own."""
        return self.contained and (self.kind, self.image_source) != ("pyxis", "registry")

    @property
    def volumes(self) -> tuple[Mount, ...]:
        """The mounts, parsed."""
        return tuple(Mount.parse(text) for text in self.mounts)

    def check(self) -> None:
        """Refuse what does not go together; each field alone is the schema's business.

        :raises ConfigError: naming the field, its value and what to write instead.
        """
        if trouble := self._trouble():
            raise ConfigError(trouble)

    def _trouble(self) -> str:
        image, kind, source = f"container.image = {self.image!r}", self.kind, self.image_source
        if kind == "none":
            if self.image:
                return f"{image} has no container.kind; say which, e.g. docker"
            given = self != ContainerSpec()
            return "[container] has no container.kind; say which, e.g. docker" if given else ""
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
            return f"{image} is no file, which enroot starts from; make a .sqsh (enroot import)"
        if self.privileged:
            return f"container.privileged = true, but {kind} has no privileged containers; drop it"
        return ""
