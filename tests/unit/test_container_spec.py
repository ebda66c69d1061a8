"""The ``container`` table of a system file: what it may say, and what does not go together."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.values.container import ContainerKind
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.container import Mount
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

LEAST = """
schema_version = 1
description = "a machine"
[cluster]
kind = "slurm"
nodes = 2
gpus_per_node = 8
[model]
path = "m"
[container]
"""
TARBALL = "/fsx/images/nixl-latest.tar.gz"


def loaded(folder: Path, text: str) -> System:
    (folder / "mine").mkdir()
    (folder / "mine" / "system.toml").write_text(LEAST + text)
    return load_system("mine", [folder])


def test_without_a_table_nothing_is_contained(local_cpu: System) -> None:
    spec = local_cpu.container
    assert spec == ContainerSpec()
    assert (spec.contained, spec.engine, spec.image_source, spec.prepared) == (
        *(False, "", "none", False),
    )


def test_the_articles_kind_of_cluster_runs_docker_from_a_tarball(p5_efa: System) -> None:
    assert p5_efa.container == ContainerSpec(kind="docker", image=TARBALL, mounts=("/fsx",))
    assert p5_efa.container.image_source == "tarball"


def test_every_field_can_be_written_in_a_file(tmp_path: Path) -> None:
    text = """
kind = "podman"
image = "/fsx/images/a.tgz"
tag = "nixl:v1"
mounts = ["/fsx", "/data:/input:ro"]
privileged = true
devices = ["/dev/infiniband/uverbs[0-7]"]
capabilities = ["SYS_PTRACE"]
security_opt = ["label=disable"]
ulimits = ["nofile=1024:2048"]
gpus = "0,1"
args = ["--group-add", "keep-groups"]
"""
    spec = loaded(tmp_path, text).container
    assert spec == ContainerSpec(
        kind="podman",
        image="/fsx/images/a.tgz",
        tag="nixl:v1",
        mounts=("/fsx", "/data:/input:ro"),
        privileged=True,
        devices=("/dev/infiniband/uverbs[0-7]",),
        capabilities=("SYS_PTRACE",),
        security_opt=("label=disable",),
        ulimits=("nofile=1024:2048",),
        gpus="0,1",
        args=("--group-add", "keep-groups"),
    )
    default = ContainerSpec()
    assert all(getattr(spec, f.name) != getattr(default, f.name) for f in fields(spec))


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('kind = "singularity"', "/container/kind"),
        ('kind = "docker"\nimage = "a b"', "/container/image"),
        ('kind = "docker"\nimage = "a"\nmounts = ["fsx"]', "/container/mounts/0"),
        ('kind = "docker"\nimage = "a"\nmounts = ["/a:/b:rw"]', "/container/mounts/0"),
        ('kind = "docker"\nimage = "a"\nmounts = ["/a,b"]', "/container/mounts/0"),
        ('kind = "docker"\nimage = "a"\ngpus = "most"', "/container/gpus"),
        ('kind = "docker"\nimage = "a"\ndevices = ["uverbs0"]', "/container/devices/0"),
        ('kind = "docker"\nimage = "a"\nulimits = ["memlock"]', "/container/ulimits/0"),
        ('kind = "docker"\nimage = "a"\nname = "x"', "/container"),
    ],
)
def test_what_the_schema_refuses(text: str, pointer: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    assert f"{pointer}:" in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            ContainerSpec(image="nixl:1"),
            "container.image = 'nixl:1' has no container.kind; set it, e.g. to docker",
        ),
        (
            ContainerSpec(kind="docker"),
            "container.kind = 'docker' has no container.image; name the image",
        ),
        (
            ContainerSpec(kind="docker", image="images/a.tar.gz"),
            "container.image = 'images/a.tar.gz' is a file, and nodes must find it: "
            "write its absolute path",
        ),
        (
            ContainerSpec(kind="docker", image="nixl", tag="v1"),
            "container.tag = 'v1' is for tarballs; put the tag in container.image",
        ),
        (
            ContainerSpec(kind="podman", image="/a.sqsh"),
            "container.image = '/a.sqsh' is for enroot and pyxis; "
            "podman takes a .tar.gz or a reference",
        ),
        (
            ContainerSpec(kind="pyxis", image=TARBALL),
            f"container.image = '{TARBALL}' is for docker and podman; "
            "make a .sqsh for pyxis (enroot import)",
        ),
        (
            ContainerSpec(kind="enroot", image="nixl:1"),
            "container.image = 'nixl:1' is not a file, but enroot needs one; "
            "make a .sqsh (enroot import)",
        ),
        (
            ContainerSpec(kind="pyxis", image="nixl:1", privileged=True),
            "container.privileged = true, but pyxis has no privileged containers; remove it",
        ),
    ],
    ids=lambda value: f"{value.kind}-{value.image}" if isinstance(value, ContainerSpec) else "",
)
def test_what_does_not_go_together(spec: ContainerSpec, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        spec.check()
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "docker"', "container.kind = 'docker' has no container.image"),
        ('image = "a:1"', "container.image = 'a:1' has no container.kind"),
        ('mounts = ["/fsx"]', "container.kind"),
        ("privileged = true", "container.kind"),
    ],
    ids=["no image", "image without kind", "mounts without kind", "rights without kind"],
)
def test_a_contradiction_is_found_as_the_file_is_loaded(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "image", "source", "engine", "prepared"),
    [
        ("docker", "nixl:1", "registry", "docker", True),
        ("docker", TARBALL, "tarball", "docker", True),
        ("podman", "/images/a.tar", "tarball", "podman", True),
        ("enroot", "/images/a.sqsh", "squashfs", "enroot", True),
        ("pyxis", "/images/a.squashfs", "squashfs", "enroot", True),
        ("pyxis", "nvcr.io#nvidia/pytorch:25.09-py3", "registry", "enroot", False),
    ],
)
def test_where_images_come_from(
    kind: ContainerKind, image: str, source: str, engine: str, prepared: bool
) -> None:
    spec = ContainerSpec(kind=kind, image=image)
    spec.check()
    assert (spec.image_source, spec.engine, spec.prepared) == (source, engine, prepared)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/fsx", Mount(source="/fsx", target="/fsx")),
        ("/fsx:/data", Mount(source="/fsx", target="/data")),
        ("/fsx:/data:ro", Mount(source="/fsx", target="/data", read_only=True)),
    ],
)
def test_the_three_forms_of_a_mount(text: str, mount: Mount) -> None:
    assert ContainerSpec(mounts=(text,)).volumes == (mount,)


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("/fsx", "/fsx/runs", True),
        ("/fsx/", "/fsx", True),
        ("/", "/fsx", True),
        ("/fsx", "/fsx2/runs", False),
        ("/fsx/runs", "/fsx", False),
        ("/fsx:/data", "/fsx/runs", False),
        ("/fsx:/fsx:ro", "/fsx/runs", False),
    ],
)
def test_what_a_mount_shows_under_its_own_name(text: str, path: str, shown: bool) -> None:
    assert Mount.parse(text).shows(path) == shown
