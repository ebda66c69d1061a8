"""Build commands that run in containers, and commands that create and remove containers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from fnmatch import fnmatchcase

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import Host
from pytest_pdserve.values.container import ContainerKind
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.container import Mount
from pytest_pdserve.values.system import System

RUN_LABEL = "pdserve.run"
"""Label of every container that pdserve starts; other containers are never touched."""

_ECR = re.compile(
    r"""(?P<registry>\d{12}\.
        (?: dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?
          | dkr-ecr(?:-fips)?\.(?P<dual>[a-z0-9-]+)\.on\.(?:aws|amazonwebservices\.com\.cn) )
        )/""",
    re.VERBOSE,
)


def contain(
    command: Command,
    spec: ContainerSpec,
    *,
    host: Host,
    image: str,
    run_id: str,
    shared: Sequence[str] = (),
) -> Command:
    """Return *command* wrapped to run in a container on *host*; unchanged for kind ``none``.

    Values of secrets are not in the argument list: the engine gets them in its environment.

    :param image: image on the node: name, id or ``.sqsh`` file.
    :param shared: folders to mount at their own path, writable.
    """
    mounts = _mounts(spec, shared)
    if spec.supervised:
        return _supervised(command, spec, host=host, image=image, run_id=run_id, mounts=mounts)
    if spec.kind == "enroot":
        return _by_enroot(command, spec, host=host, image=image, mounts=mounts)
    if spec.kind == "pyxis":
        return _by_pyxis(command, spec, image=image, mounts=mounts)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """Wraps the commands of a session to run in containers."""

    spec: ContainerSpec
    """Container settings of the system; with kind ``none``, commands are not changed."""
    hosts: Mapping[str, Host]
    """Nodes by name."""
    image: str
    """Image on the nodes: name, id or ``.sqsh`` file."""
    run_id: str
    """Label of the session's containers."""
    shared: tuple[str, ...]
    """Folders that are mounted at their own path, writable."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Images of servers that run in another one, by role: ``prefill``, ``decode``, ``router``."""

    def wrap(self, commands: Sequence[Command]) -> tuple[Command, ...]:
        """Return *commands*, each wrapped for its node."""
        return tuple(
            contain(
                command,
                self.spec,
                host=self.hosts[command.node],
                image=self.images.get(command.role, self.image),
                run_id=self.run_id,
                shared=self.shared,
            )
            for command in commands
        )


def containment_of(
    system: System, hosts: Sequence[Host], *, image: str, run_id: str, run_folder: str
) -> Containment:
    """Return the containment of *system*, with the folders of the run and the model mounted."""
    model = system.model.path
    return Containment(
        spec=system.container,
        hosts={host.name: host for host in hosts},
        image=image,
        run_id=run_id,
        shared=(run_folder, *([model] if model.startswith("/") else [])),
    )


def container_name(run_id: str, command_name: str) -> str:
    """Return the name of a container, e.g. ``pdserve-20260822T101500-p5-efa-decode-1``."""
    words = re.findall(r"[A-Za-z0-9_.]+", f"{run_id} {command_name}")
    return "-".join(["pdserve", *words])


def removal_argv(
    kind: ContainerKind, run_id: str
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the commands that list a run's containers, and remove them (with ids appended).

    :returns: None for kinds whose containers end with their processes.
    """
    if kind not in ("docker", "podman"):
        return None
    listing = (kind, "ps", "--all", "--quiet", "--filter", f"label={RUN_LABEL}={run_id}")
    return listing, (kind, "rm", "--force")


def ecr_registry(image: str) -> tuple[str, str] | None:
    """Return registry and region of an image in a private Amazon ECR registry; None for others.

    A private registry needs a login, ``public.ecr.aws`` does not. Forms of the names: "Amazon ECR
    endpoints and quotas" in the AWS General Reference; those in China end in ``.cn``.
    """
    match = _ECR.match(image)
    if match is None:
        return None
    return match["registry"], match["region"] or match["dual"]


def image_command(
    spec: ContainerSpec, *, node: str, script: str, python: str, digest: bool = False
) -> Command:
    """Return the command that pulls or imports the image on *node*, outside of containers.

    :param script: path of ``backends/hosts/image.py`` on the node.
    :param digest: whether it also computes the SHA-256 of a ``.sqsh`` file; one node is enough.
    """
    argv = [python, script, "--engine", spec.engine, "--image", spec.image]
    if spec.tag:
        argv += ["--tag", spec.tag]
    if spec.image_source == "registry" and (ecr := ecr_registry(spec.image)):
        argv += ["--ecr-registry", ecr[0], "--ecr-region", ecr[1]]
    if digest:
        argv.append("--digest")
    return Command(name=f"image[{node}]", node=node, argv=tuple(argv))


def _mounts(spec: ContainerSpec, shared: Sequence[str]) -> list[Mount]:
    mounts = list(spec.volumes)
    for folder in shared:
        if not any(mount.shows(folder) for mount in mounts):
            mounts.append(Mount(source=folder, target=folder))
    return mounts


def _supervised(
    command: Command,
    spec: ContainerSpec,
    *,
    host: Host,
    image: str,
    run_id: str,
    mounts: Sequence[Mount],
) -> Command:
    """Return *command* run by Docker or podman.

    ``docker run`` (flags: docker/cli 0638fe2, docs/reference/commandline/container_run.md)
    forwards signals to the container's first process, and exits with it. With ``--init`` that is a
    small init, so that SIGTERM also ends programs without a handler. A watched command must be that
    process itself, since the engine reports its id, whose CPU time is sampled.
    The image's entrypoint is replaced, and it is never pulled. With ``--mount``, unlike ``-v``, a
    missing folder is an error. Podman's limit of 2048 processes is lifted; Docker has none.
    """
    name = container_name(run_id, command.name)
    argv = [spec.engine, "run", "--rm", *([] if command.watched else ["--init"])]
    argv += ["--pull", "never", "--name", name]
    argv += ["--label", f"{RUN_LABEL}={run_id}", "--label", f"pdserve.name={command.name}"]
    argv += ["--network", "host", "--ipc", "host", "--uts", "host"]
    argv += _each("--ulimit", spec.ulimits) + _each("--security-opt", spec.security_opt)
    argv += ["--privileged"] if spec.privileged else _each("--cap-add", spec.capabilities)
    argv += _gpus(spec) + _each("--device", _devices(spec, host))
    if host.cpus:
        argv += ["--cpuset-cpus", ",".join(map(str, host.cpus))]
    if spec.kind == "podman":
        argv += ["--pids-limit", "-1"]
    argv += _each("--mount", [_bind(mount) for mount in mounts])
    argv += _environment(command)
    argv += [*spec.args, "--entrypoint", command.argv[0], image, *command.argv[1:]]
    return replace(
        command,
        argv=tuple(argv),
        env=(),
        cleanup=(*command.cleanup, (spec.engine, "rm", "--force", name)),
        pid_argv=(spec.engine, "inspect", "--format", "{{.State.Pid}}", name),
    )


def _gpus(spec: ContainerSpec) -> list[str]:
    """Return Docker's ``--gpus``, or podman's CDI devices (see ``nvidia-ctk cdi generate``)."""
    if not spec.gpus:
        return []
    if spec.kind == "podman":
        return _each("--device", [f"nvidia.com/gpu={gpu}" for gpu in spec.gpus.split(",")])
    # The quotes are part of the value: without them, Docker splits it at the comma.
    return ["--gpus", "all" if spec.gpus == "all" else f'"device={spec.gpus}"']


def _bind(mount: Mount) -> str:
    read_only = ",readonly" if mount.read_only else ""
    return f"type=bind,source={mount.source},target={mount.target}{read_only}"


def _by_enroot(
    command: Command, spec: ContainerSpec, *, host: Host, image: str, mounts: Sequence[Mount]
) -> Command:
    """Return *command* run by enroot.

    Options: NVIDIA/enroot 085d479 (doc/cmd/start.md) and src/runtime.sh of 012d362.

    Enroot replaces itself by the command (``exec``), so there is nothing to clean up. The file
    system is writable, in memory, because vLLM's caches are in it. The NVIDIA hook, which reads an
    environment variable, adds GPUs. An image's entrypoint runs; ``args = ["--rc", FILE]`` replaces
    it.
    """
    argv = ["enroot", "start", "--rw"]
    for mount in mounts:
        flags = "x-create=auto,rbind" + (",ro" if mount.read_only else "")
        argv += ["--mount", f"{mount.source}:{mount.target}:none:{flags}"]
    for device in _devices(spec, host):
        argv += ["--mount", f"{device}:{device}:none:x-create=file,bind"]
    if spec.gpus and "NVIDIA_VISIBLE_DEVICES" not in dict(command.env):
        argv += ["--env", f"NVIDIA_VISIBLE_DEVICES={spec.gpus}"]
    argv += [*_environment(command), *spec.args, image, *command.argv]
    return replace(command, argv=tuple(argv), env=())


def _by_pyxis(
    command: Command, spec: ContainerSpec, *, image: str, mounts: Sequence[Mount]
) -> Command:
    """Return *command* run by pyxis; options: NVIDIA/pyxis 0619349 (args.c).

    Slurm creates the container, and the step's runner is inside it: only arguments of the step are
    added. A step covers many nodes, so nothing may depend on the node; enroot mounts all of
    ``/dev``. A variable of the image would override the step's, hence the list of secrets.
    """
    step = [f"--container-image={image}"]
    if mounts:
        step.append(f"--container-mounts={','.join(map(_pyxis_mount, mounts))}")
    step += ["--container-writable", "--no-container-mount-home", "--no-container-entrypoint"]
    if command.unwritten:
        step.append(f"--container-env={','.join(command.unwritten)}")
    return replace(command, step_args=(*command.step_args, *step, *spec.args))


def _pyxis_mount(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")


def _environment(command: Command) -> list[str]:
    plain = {k: v for k, v in command.env if k not in command.unwritten}
    return _each("--env", [*(f"{k}={v}" for k, v in plain.items()), *command.unwritten])


def _devices(spec: ContainerSpec, host: Host) -> list[str]:
    return [d for d in host.devices if any(fnmatchcase(d, glob) for glob in spec.devices)]


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
