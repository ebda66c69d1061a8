"""Whole commands in containers, of each kind; and that no secret is ever an argument."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.container import contain
from pytest_pdserve.plan.container import container_name
from pytest_pdserve.plan.container import containment_of
from pytest_pdserve.plan.container import ecr_registry
from pytest_pdserve.plan.container import image_command
from pytest_pdserve.plan.container import removal_argv
from pytest_pdserve.plan.host import Host
from pytest_pdserve.plan.launch import Launch
from pytest_pdserve.plan.launch import plan_launch
from pytest_pdserve.plan.ports import in_memory_claim
from pytest_pdserve.values.container import ContainerKind
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.system import System
from pytest_pdserve.values.topology import Topology

RUN = "20260822T101500-p5-efa"
HOSTS = tuple(
    Host(
        name=f"p5-0{n}",
        address=f"10.0.0.{n}",
        interface="ens32",
        devices=(
            "/dev/infiniband/uverbs0",
            "/dev/infiniband/uverbs1",
            "/dev/gdrdrv",
            "/dev/nvidia0",
        ),
    )
    for n in range(4)
)
COMMAND = Command(
    name="decode[1]/rank2",
    node="p5-00",
    argv=("vllm", "serve", "/m"),
    env=(("UCX_TLS", "^cuda_ipc"), ("EMPTY", "")),
    secrets=("VLLM_API_KEY",),
    ports=(8000, 5600),
)
KINDS: tuple[ContainerKind, ...] = ("docker", "podman", "enroot", "pyxis", "none")
IMAGES = {"docker": "nixl:1", "podman": "nixl:1", "enroot": "/i/a.sqsh", "pyxis": "/i/a.sqsh"}


def spec_of(kind: ContainerKind) -> ContainerSpec:
    return ContainerSpec(kind=kind, image=IMAGES.get(kind, ""), mounts=("/fsx", "/d:/data:ro"))


def contained(spec: ContainerSpec, command: Command = COMMAND, host: Host = HOSTS[0]) -> Command:
    shared = ("/fsx/runs/r", "/home/me/run", "/home/me/run/logs")
    image = spec.image or "unused"
    return contain(command, spec, host=host, image=image, run_id=RUN, shared=shared)


def split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


P5_DOCKER = """
docker run --rm --init --pull never --name pdserve-20260822T101500-p5-efa-prefill-0
--label pdserve.run=20260822T101500-p5-efa --label pdserve.name=prefill[0]
--network host --ipc host --uts host --ulimit memlock=-1 --ulimit stack=67108864
--security-opt seccomp=unconfined --cap-add IPC_LOCK --gpus all
--device /dev/infiniband/uverbs0 --device /dev/infiniband/uverbs1 --device /dev/gdrdrv
--mount type=bind,source=/fsx,target=/fsx
--env NCCL_SOCKET_IFNAME=ens32 --env GLOO_SOCKET_IFNAME=ens32 --env VLLM_HOST_IP=10.0.0.0
--env FI_PROVIDER=efa --env FI_EFA_FORK_SAFE=1 --env FI_EFA_USE_DEVICE_RDMA=1
--env FI_LOG_LEVEL=warn --env UCX_TLS=^cuda_ipc --env UCX_NET_DEVICES=all
--env VLLM_USE_DEEP_GEMM=1 --env VLLM_ENGINE_READY_TIMEOUT_S=3600
--env VLLM_NIXL_SIDE_CHANNEL_HOST=10.0.0.0 --env VLLM_NIXL_SIDE_CHANNEL_PORT=5600
--env VLLM_API_KEY --entrypoint vllm nixl:latest
serve /fsx/models/deepseek-ai/DeepSeek-V2-Lite --gpu-memory-utilization 0.9
--host 10.0.0.0 --port 8000 --tensor-parallel-size 8
--kv-transfer-config.kv_connector NixlConnector --kv-transfer-config.kv_role kv_producer
--kv-transfer-config.kv_load_failure_policy fail
--kv-transfer-config.kv_connector_extra_config.backends+ LIBFABRIC
"""


def launched(system: System) -> Launch:
    containment = containment_of(
        system, HOSTS, image="nixl:latest", run_id=RUN, run_folder="/fsx/runs/r"
    )
    claim = in_memory_claim(one_machine=False)
    topology = Topology.parse("1p3d")
    return plan_launch(topology, system, hosts=HOSTS, claim=claim, containment=containment)


def test_prefill_of_the_articles_cluster_in_docker(p5_efa: System) -> None:
    plain = launched(replace(p5_efa, container=ContainerSpec())).instances[0]
    command = launched(p5_efa).instances[0]
    name = "pdserve-20260822T101500-p5-efa-prefill-0"
    assert command.argv == split(P5_DOCKER)
    assert command == replace(
        plain,
        argv=command.argv,
        env=(),
        cleanup=(("docker", "rm", "--force", name),),
        pid_argv=("docker", "inspect", "--format", "{{.State.Pid}}", name),
    )


def test_every_command_of_a_launch_is_in_a_container_of_its_own(p5_efa: System) -> None:
    commands = launched(p5_efa).commands
    assert {command.argv[:2] for command in commands} == {("docker", "run")}
    names = [f"pdserve-{RUN}-{command.file_name}" for command in commands]
    assert [command.argv[command.argv.index("--name") + 1] for command in commands] == names
    assert names[-1] == f"pdserve-{RUN}-router"


MOUNTS = (
    "--mount type=bind,source=/fsx,target=/fsx --mount type=bind,source=/d,target=/data,readonly"
    " --mount type=bind,source=/home/me/run,target=/home/me/run"
)
"""The run folder below ``/fsx`` is seen already, and so are the logs below the other one."""


def test_docker_with_all_rights() -> None:
    spec = replace(spec_of("docker"), privileged=True, gpus="0,3", args=("--log-driver", "none"))
    host = replace(HOSTS[0], cpus=(1, 2), devices=())
    assert contained(spec, host=host).argv == split(
        "docker run --rm --init --pull never --name pdserve-20260822T101500-p5-efa-decode-1-rank2"
        f" --label pdserve.run={RUN} --label pdserve.name=decode[1]/rank2"
        " --network host --ipc host --uts host --ulimit memlock=-1 --ulimit stack=67108864"
        ' --security-opt seccomp=unconfined --privileged --gpus "device=0,3" --cpuset-cpus 1,2'
        f" {MOUNTS} --env UCX_TLS=^cuda_ipc --env EMPTY= --env VLLM_API_KEY"
        " --log-driver none --entrypoint vllm nixl:1 serve /m"
    )


def test_podman_takes_gpus_by_cdi_and_as_many_processes_as_docker() -> None:
    command = contained(replace(spec_of("podman"), gpus="all"))
    name = "pdserve-20260822T101500-p5-efa-decode-1-rank2"
    assert command.argv == split(
        f"podman run --rm --init --pull never --name {name}"
        f" --label pdserve.run={RUN} --label pdserve.name=decode[1]/rank2"
        " --network host --ipc host --uts host --ulimit memlock=-1 --ulimit stack=67108864"
        " --security-opt seccomp=unconfined --cap-add IPC_LOCK --device nvidia.com/gpu=all"
        " --device /dev/infiniband/uverbs0 --device /dev/infiniband/uverbs1 --device /dev/gdrdrv"
        f" --pids-limit -1 {MOUNTS} --env UCX_TLS=^cuda_ipc --env EMPTY= --env VLLM_API_KEY"
        " --entrypoint vllm nixl:1 serve /m"
    )
    assert command.cleanup == (("podman", "rm", "--force", name),)
    assert command.pid_argv == ("podman", "inspect", "--format", "{{.State.Pid}}", name)


def test_podman_takes_some_gpus_one_by_one() -> None:
    argv = contained(replace(spec_of("podman"), gpus="0,3")).argv
    assert "--device nvidia.com/gpu=0 --device nvidia.com/gpu=3" in " ".join(argv)


def test_enroot_becomes_the_command() -> None:
    command = contained(spec_of("enroot"))
    assert command.argv == split(
        "enroot start --rw --mount /fsx:/fsx:none:x-create=auto,rbind"
        " --mount /d:/data:none:x-create=auto,rbind,ro"
        " --mount /home/me/run:/home/me/run:none:x-create=auto,rbind"
        " --mount /dev/infiniband/uverbs0:/dev/infiniband/uverbs0:none:x-create=file,bind"
        " --mount /dev/infiniband/uverbs1:/dev/infiniband/uverbs1:none:x-create=file,bind"
        " --mount /dev/gdrdrv:/dev/gdrdrv:none:x-create=file,bind"
        " --env NVIDIA_VISIBLE_DEVICES=all --env UCX_TLS=^cuda_ipc --env EMPTY="
        " --env VLLM_API_KEY /i/a.sqsh vllm serve /m"
    )
    assert command == replace(COMMAND, argv=command.argv, env=())


def test_slurm_makes_the_container_for_pyxis() -> None:
    command = contained(replace(spec_of("pyxis"), args=("--container-workdir=/",)))
    assert command == replace(
        COMMAND,
        step_args=(
            "--container-image=/i/a.sqsh",
            "--container-mounts=/fsx:/fsx,/d:/data:ro,/home/me/run:/home/me/run",
            "--container-writable",
            "--no-container-mount-home",
            "--no-container-entrypoint",
            "--container-env=VLLM_API_KEY",
            "--container-workdir=/",
        ),
    )


def test_pyxis_says_nothing_of_what_there_is_not() -> None:
    spec = ContainerSpec(kind="pyxis", image="/i/a.sqsh")
    command = contain(
        replace(COMMAND, secrets=()), spec, host=HOSTS[0], image="/i/a.sqsh", run_id=RUN
    )
    assert not [a for a in command.step_args if a.startswith(("--container-m", "--container-e"))]


def test_steps_of_pyxis_are_the_same_on_every_node() -> None:
    assert len({contained(spec_of("pyxis"), host=host).step_args for host in HOSTS}) == 1


def test_without_containers_a_command_stays_as_it_is() -> None:
    assert contained(ContainerSpec()) is COMMAND


@pytest.mark.parametrize(
    ("model", "mounted"),
    [("/nvme/m", ["/fsx", "/home/me/run", "/nvme/m"]), ("org/m", ["/fsx", "/home/me/run"])],
    ids=["folder", "hub name"],
)
def test_all_commands_see_the_runs_folder_and_the_models(
    model: str, mounted: list[str], p5_efa: System
) -> None:
    system = replace(p5_efa, model=replace(p5_efa.model, path=model))
    commands = [replace(COMMAND, node=host.name) for host in HOSTS]
    containment = containment_of(
        system, HOSTS, image="nixl:1", run_id=RUN, run_folder="/home/me/run"
    )
    done = containment.wrap(commands)
    assert [c.node for c in done] == [host.name for host in HOSTS]
    for command in done:
        mounts = [value for option, value in pairwise(command.argv) if option == "--mount"]
        assert mounts == [f"type=bind,source={path},target={path}" for path in mounted]


def test_the_first_process_of_a_watched_command_is_its_own() -> None:
    watched = contained(spec_of("docker"), replace(COMMAND, watched=True))
    assert "--init" not in watched.argv
    assert "--init" in contained(spec_of("docker")).argv


@pytest.mark.parametrize("kind", ["docker", "podman", "enroot"])
def test_without_gpus_none_are_asked_for(kind: ContainerKind) -> None:
    argv = contained(replace(spec_of(kind), gpus="")).argv
    assert not [a for a in argv if "gpu" in a or "NVIDIA" in a]


def test_gpus_that_the_environment_chooses_stay_chosen() -> None:
    command = replace(COMMAND, env=(("NVIDIA_VISIBLE_DEVICES", "3"),))
    assert [a for a in contained(spec_of("enroot"), command).argv if "NVIDIA" in a] == [
        "NVIDIA_VISIBLE_DEVICES=3"
    ]


def test_what_a_command_cleans_up_itself_comes_first() -> None:
    command = contained(spec_of("docker"), replace(COMMAND, cleanup=(("rm", "x"),)))
    assert [argv[0] for argv in command.cleanup] == ["rm", "docker"]


NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,9}", fullmatch=True)


@given(
    kind=st.sampled_from(KINDS),
    env=st.dictionaries(NAMES, st.text(max_size=5)),
    secrets=st.lists(NAMES, unique=True, max_size=3),
)
def test_every_variable_arrives_once_and_no_secret_as_an_argument(
    kind: ContainerKind, env: dict[str, str], secrets: list[str]
) -> None:
    # As planned, a secret has no value; should a value be there, it must not become an argument.
    known = {**env, **dict.fromkeys(secrets, "sesame-open")}
    plain = replace(COMMAND, env=tuple(known.items()), secrets=tuple(secrets))
    command = contained(replace(spec_of(kind), gpus=""), plain)
    assert command.secrets == plain.secrets
    assert not [word for word in (*command.argv, *command.step_args) if "sesame" in word]
    given = [value for option, value in pairwise(command.argv) if option == "--env"]
    if kind in ("docker", "podman", "enroot"):
        assert command.env == ()
        values = [f"{k}={v}" for k, v in env.items() if k not in secrets]
        assert sorted(given) == sorted([*values, *secrets])
    else:
        assert command.env == plain.env
        assert given == []


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("router", "pdserve-r-1-router"),
        ("decode[12]", "pdserve-r-1-decode-12"),
        ("aggregated[0]/rank3", "pdserve-r-1-aggregated-0-rank3"),
    ],
)
def test_names_that_engines_admit(command: str, name: str) -> None:
    assert container_name("r-1", command) == name


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_what_is_left_of_a_run_is_found_by_its_label(kind: ContainerKind) -> None:
    assert removal_argv(kind, RUN) == (
        (kind, "ps", "--all", "--quiet", "--filter", f"label=pdserve.run={RUN}"),
        (kind, "rm", "--force"),
    )


@pytest.mark.parametrize("kind", ["enroot", "pyxis", "none"])
def test_no_engine_no_leftovers(kind: ContainerKind) -> None:
    assert removal_argv(kind, RUN) is None


ACCOUNT = "123456789012"


@pytest.mark.parametrize(
    ("registry", "region"),
    [
        (f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com", "us-east-1"),
        (f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        (f"{ACCOUNT}.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        (f"{ACCOUNT}.dkr-ecr.eu-west-1.on.aws", "eu-west-1"),
        (f"{ACCOUNT}.dkr-ecr-fips.us-east-2.on.aws", "us-east-2"),
        (f"{ACCOUNT}.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "cn-north-1"),
    ],
)
def test_registries_that_need_a_login(registry: str, region: str) -> None:
    assert ecr_registry(f"{registry}/team/nixl:1") == (registry, region)


@pytest.mark.parametrize(
    "image",
    [
        "nixl:1",
        "public.ecr.aws/team/nixl:1",
        "docker.io/team/nixl",
        f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com",
        f"evil.example/{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/nixl",
        f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com.evil.example/nixl",
        "12.dkr.ecr.us-east-1.amazonaws.com/nixl",
    ],
)
def test_registries_that_do_not(image: str) -> None:
    assert ecr_registry(image) is None


@pytest.mark.parametrize(
    ("spec", "digest", "argv"),
    [
        (
            ContainerSpec(kind="docker", image="/fsx/a.tar.gz"),
            False,
            "--engine docker --image /fsx/a.tar.gz",
        ),
        (
            ContainerSpec(kind="podman", image="/fsx/a.tar.gz", tag="nixl:1"),
            False,
            "--engine podman --image /fsx/a.tar.gz --tag nixl:1",
        ),
        (
            ContainerSpec(kind="docker", image=f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/a:1"),
            False,
            f"--engine docker --image {ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/a:1"
            f" --ecr-registry {ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com --ecr-region eu-west-1",
        ),
        (ContainerSpec(kind="docker", image="a:1"), False, "--engine docker --image a:1"),
        (
            ContainerSpec(kind="pyxis", image="/fsx/a.sqsh"),
            True,
            "--engine enroot --image /fsx/a.sqsh --digest",
        ),
    ],
    ids=["tarball", "tag", "ECR", "registry", "squashfs"],
)
def test_what_makes_an_image_present(spec: ContainerSpec, digest: bool, argv: str) -> None:
    command = image_command(
        spec, node="p5-03", script="/fsx/runs/r/image.py", python="python3", digest=digest
    )
    assert command == Command(
        name="image[p5-03]",
        node="p5-03",
        argv=("python3", "/fsx/runs/r/image.py", *split(argv)),
    )
    assert command.log_name == "image-p5-03.log"
