"""Commands in containers, and what makes and removes these; nothing here is run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from fnmatch import fnmatchcase

from pytest_pdserve.plan.command import Command
from pytest_pdserve.plan.host import Host
from pytest_pdserve.values.container import ContainerKind
from pytest_pdserve.values.container import ContainerSpec
from pytest_pdserve.values.container import Mount
from pytest_pdserve.values.system import System

RUN_LABEL = "pdserve.run"
"""Label of every container that pdserve starts; nobody else's are ever touched."""

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
    """*command* as it runs in a container on *host*; unchanged where there are no containers.

    Values of its secrets stay out of the argument list: the engine has them in its environment.

    :param image: the image as the node knows it: name, id or ``.sqsh`` file.
    :param shared: folders that the container must see at their own path, and may write.
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
    """How the commands of one session are put into containers: the one place that does it."""

    spec: ContainerSpec
    """Containers of the system; of kind ``none``, commands stay as they are."""
    hosts: Mapping[str, Host]
    """Nodes by name."""
    image: str
    """The image as nodes know it: name, id or ``.sqsh`` file."""
    run_id: str
    """Label of the session's containers."""
    shared: tuple[str, ...]
    """Folders that containers see at their own path, and may write."""

    def wrap(self, commands: Sequence[Command]) -> tuple[Command, ...]:
        """Return each of *commands* as it runs on its node."""
        return tuple(
            contain(
                command,
                self.spec,
                host=self.hosts[command.node],
                image=self.image,
                run_id=self.run_id,
                shared=self.shared,
            )
            for command in commands
        )


def containment_of(
    system: System, hosts: Sequence[Host], *, image: str, run_id: str, run_folder: str
) -> Containment:
    """Return how commands of *system* are contained: they see the run's and the model's folder."""
    model = system.model.path
    return Containment(
        spec=system.container,
        hosts={host.name: host for host in hosts},
        image=image,
        run_id=run_id,
        shared=(run_folder, *([model] if model.startswith("/") else [])),
    )


def container_name(run_id: str, command_name: str) -> str:
    """Name of a command's container, e.g. ``pdserve-20260822T101500-p5-efa-decode-1``."""
    words = re.findall(r"[A-Za-z0-9_.]+", f"{run_id} {command_name}")
    return "-".join(["pdserve", *words])


def removal_argv(
    kind: ContainerKind, run_id: str
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """How a node lists the containers of a run, and how it removes them, their ids appended.

    :returns: None where no engine holds containers that could outlive their processes.
    """
    if kind not in ("docker", "podman"):
        return None
    found = (kind, "ps", "--all", "--quiet", "--filter", f"label={RUN_LABEL}={run_id}")
    return found, (kind, "rm", "--force")


def ecr_registry(image: str) -> tuple[str, str] | None:
    """Registry and region of an image in a private registry of Amazon ECR, which needs a login.

    ``public.ecr.aws`` serves who is not logged in. Forms of the names: "Amazon ECR endpoints and
    quotas" in the AWS General Reference; China's end in ``.cn``.
    """
    found = _ECR.match(image)
    if found is None:
        return None
    return found["registry"], found["region"] or found["dual"]


def image_command(
    spec: ContainerSpec, *, node: str, script: str, python: str, digest: bool = False
) -> Command:
    """The command that makes the image present on *node*, which runs outside of containers.

    :param script: ``backends/hosts/image.py``, where the node finds it.
    :param digest: whether it also takes the SHA-256 of a ``.sqsh`` file; one node is enough.
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
    """Docker and podman; flags of docker/cli 0638fe2 (docs/reference/commandline/container_run.md).

    In the foreground and without a terminal, the client hands signals on to the first process of
    the container, and its end is the command's. That first process is a small init, so that
    SIGTERM ends programs without a handler for it too. A watched command is itself the first one,
    since its CPU time is what the engine's process id stands for. The image's entrypoint is
    replaced, the image is never pulled here, and a folder that is not there is an error, which it
    would not be with ``-v``. Podman's limit of 2048 processes is lifted; Docker has none.
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
    """Docker's own flag, or podman's CDI devices, which ``nvidia-ctk cdi generate`` describes."""
    if not spec.gpus:
        return []
    if spec.kind == "podman":
        return _each("--device", [f"nvidia.com/gpu={gpu}" for gpu in spec.gpus.split(",")])
    # The quotes are part of the value: without them Docker takes the comma for its own.
    return ["--gpus", "all" if spec.gpus == "all" else f'"device={spec.gpus}"']


def _bind(mount: Mount) -> str:
    read_only = ",readonly" if mount.read_only else ""
    return f"type=bind,source={mount.source},target={mount.target}{read_only}"


def _by_enroot(
    command: Command, spec: ContainerSpec, *, host: Host, image: str, mounts: Sequence[Mount]
) -> Command:
    """Enroot; options of NVIDIA/enroot 085d479 (doc/cmd/start.md) and src/runtime.sh of 012d362.

    It becomes the command by ``exec``, so nothing is left to clean up. The file system is writable,
    in memory, as vLLM's caches lie in it. GPUs come by the NVIDIA hook, which reads a variable. An
    image's entrypoint runs; ``args = ["--rc", FILE]`` replaces it.
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
    """Pyxis; options of NVIDIA/pyxis 0619349 (args.c).

    Slurm makes the container, and the step's runner is inside of it: the command stays as it is.
    One step serves many nodes, so nothing here may depend on one; enroot shows all of ``/dev``. A
    variable of the image would win over the step's, hence the list of secrets.
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
