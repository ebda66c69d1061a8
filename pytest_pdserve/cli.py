"""The ``pdserve`` command: plans shown, topologies held, results imported, baselines kept."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import NoReturn

from pytest_pdserve import rejudge
from pytest_pdserve import upkeep
from pytest_pdserve.arguments import add_runs
from pytest_pdserve.arguments import add_system
from pytest_pdserve.options import DEFAULT_SYSTEM
from pytest_pdserve.options import DEFAULT_TOPOLOGY
from pytest_pdserve.values.errors import ClientError
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.errors import PdserveError
from pytest_pdserve.values.errors import StoreError
from pytest_pdserve.values.topology import Topology
from pytest_pdserve.values.topology import parse_topologies
from pytest_pdserve.values.workload import NAME
from pytest_pdserve.values.workload import UNKNOWN

if TYPE_CHECKING:
    from pytest_pdserve.serving.deployment import Deployment
    from pytest_pdserve.values.container import ContainerSpec
    from pytest_pdserve.values.system import System

USAGE_ERROR = 4
"""Exit code for bad input, as pytest's own."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence, and exits as for other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"pdserve: {message[:400]}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :returns: 0, 1 for trouble with machines or a FAIL, 3 where nothing FAILed but something of a
        stored session could not be judged, 4 for bad input, 130 after an interrupt.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "selftest":
            return _selftest(options)
        if options.command == "judge":
            text, code = rejudge.run(options, _load_system(options.system))
            print(text)
            return code
        if options.command in ("baseline", "calibrate"):
            print(upkeep.run(options, _load_system(options.system)))
            return 0
        system, topologies = _load(options.system, options.topology)
        if options.command == "plan" and options.explore:
            return _explore(options, system)
        if options.command == "plan":
            print("\n".join(_plan(system, topology) for topology in topologies))
            return 0
        _check_one(options.command, topologies)
        if options.command == "import":
            return _import(options, system, topologies[0])
        return _serve(system, topologies[0], options.runs)
    except PdserveError as error:
        print(f"pdserve: {error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pdserve", description="Prefill/decode topologies: show them, stand them up."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    texts = {
        "plan": "Print each node's commands and environment; touch nothing",
        "serve": "Stand a topology up and hold it until interrupted",
        "import": "Make records of result files that vllm bench serve wrote elsewhere",
    }
    made = {
        name: commands.add_parser(name, help=text, description=text) for name, text in texts.items()
    }
    for command in made.values():
        command.add_argument(
            "--topology",
            default=DEFAULT_TOPOLOGY,
            metavar="ID",
            help="Topology, e.g. 1p3d (default: %(default)s)",
        )
        add_system(command, default=DEFAULT_SYSTEM)
    _add_explore(made["plan"])
    _add_selftest(commands)
    upkeep.add_parsers(commands)
    rejudge.add_parser(commands)
    for name in ("serve", "import"):
        add_runs(made[name])
    made["import"].add_argument(
        "--dataset",
        default=UNKNOWN,
        metavar="NAME",
        help="--dataset-name of the runs, which their results do not tell (default: %(default)s)",
    )
    made["import"].add_argument(
        "--vllm-version", metavar="VERSION", help="Version of vLLM that served (default: unknown)"
    )
    made["import"].add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    return parser


def _add_explore(plan: argparse.ArgumentParser) -> None:
    group = plan.add_argument_group("explore", "which topologies meet a target, as simulated")
    add = group.add_argument
    add("--explore", action="store_true", help="Simulate all topologies of so many nodes")
    add("--input-len", default="512", metavar="N[,N…]", help="Prompt lengths (%(default)s)")
    add("--output-len", default="256", metavar="N[,N…]", help="Output lengths (%(default)s)")
    add("--rate", default="inf", metavar="R", help="Arrivals, req/s; inf for all at once")
    add("--slo-ttft-ms", default="inf", metavar="MS", help="Highest mean TTFT that will do")
    add("--slo-itl-ms", default="inf", metavar="MS", help="Highest mean ITL that will do")
    add("--num-prompts", default="1024", metavar="N", help="Requests simulated (%(default)s)")
    add("--nodes", metavar="N", help="Nodes (default: what the system file says)")
    add("--fresh", action="store_true", help="Empty prefix caches, also for the sweep's own cells")
    add("--seed", default="0", metavar="N", help="Of lengths, arrivals, routing (%(default)s)")


def _add_selftest(commands: Any) -> None:
    text = (
        "Plant regressions into simulated nights, and tell what the judge finds; exit 1 if broken"
    )
    add = commands.add_parser("selftest", help=text, description=text).add_argument
    add("--profile", default="reference", metavar="NAME", help="Noise profile (%(default)s)")
    add("--nights", default=1000, type=int, metavar="N", help="Clean nights (%(default)s)")
    add("--seed", default=0, type=int, metavar="S", help="Of every draw (%(default)s)")
    add("--uncalibrated", action="store_true", help="Do not tell the judge the profile's ICC")


def _selftest(options: argparse.Namespace) -> int:
    from pytest_pdserve.selftest import render  # noqa: PLC0415 - numpy and scipy
    from pytest_pdserve.selftest import selftest  # noqa: PLC0415

    report = selftest(
        options.profile,
        nights=options.nights,
        seed=options.seed,
        calibrated=not options.uncalibrated,
    )
    print(render(report))
    return 1 if report.broken else 0


def _explore(options: argparse.Namespace, system: System) -> int:
    from pytest_pdserve.explore import explore  # noqa: PLC0415 - the simulation is an extra
    from pytest_pdserve.explore import question_of  # noqa: PLC0415
    from pytest_pdserve.explore import render  # noqa: PLC0415
    from pytest_pdserve.explore import replays  # noqa: PLC0415

    question = question_of(vars(options), system)
    answers = explore(question, system)
    print(render(question, answers, replayed=replays(question, system)))
    return 0


def _check_one(command: str, topologies: Sequence[Topology]) -> None:
    if len(topologies) != 1:
        raise ConfigError(f"pdserve {command} takes one topology, got {len(topologies)}")


def _import(options: argparse.Namespace, system: System, topology: Topology) -> int:
    from pytest_pdserve.results.imported import import_result  # noqa: PLC0415
    from pytest_pdserve.results.store import check_runs_folder  # noqa: PLC0415
    from pytest_pdserve.results.store import create_run  # noqa: PLC0415
    from pytest_pdserve.results.store import load_bench_result  # noqa: PLC0415

    if system.cluster.kind == "simulated":
        raise ConfigError(f"{system.name!r} is simulated: results of real servers are not its own")
    if system.cluster.kind == "figures":
        raise ConfigError(f"{system.name!r} is figures: results of real servers are not its own")
    if not NAME.fullmatch(options.dataset):
        raise ConfigError(
            f"--dataset {options.dataset!r:.60} is no name of letters, digits, '.', '_' and '-', "
            "such as random or sharegpt; records are filed by it"
        )
    check_runs_folder(options.runs)
    try:
        results = [(path, load_bench_result(path)) for path in options.results]
    except ClientError as error:
        raise ConfigError(str(error)) from error
    store = create_run(options.runs, system.name, label="imported")
    for source, result in results:
        record, path = import_result(
            result,
            source=source,
            topology=topology,
            system=system.name,
            dataset=options.dataset,
            versions={"vllm": options.vllm_version} if options.vllm_version else {},
            store=store,
        )
        print(path)
        for finding in record.findings:
            print(f"  {finding.severity}: {finding.message}")
    return 0


def _load(name: str, topology: str) -> tuple[System, tuple[Topology, ...]]:
    from pytest_pdserve.serving.model import with_model_path  # noqa: PLC0415

    topologies = parse_topologies(topology)
    return with_model_path(_load_system(name)), topologies


def _load_system(name: str) -> System:
    from pytest_pdserve.results.systems import baseline_folders  # noqa: PLC0415
    from pytest_pdserve.results.systems import load_system  # noqa: PLC0415

    return load_system(name, baseline_folders(Path.cwd()))


def _plan(system: System, topology: Topology) -> str:
    from pytest_pdserve.checks import planning  # noqa: PLC0415
    from pytest_pdserve.plan.container import contain_all  # noqa: PLC0415
    from pytest_pdserve.plan.host import planned_hosts  # noqa: PLC0415
    from pytest_pdserve.plan.launch import plan_launch  # noqa: PLC0415
    from pytest_pdserve.plan.slurm import job_parameters  # noqa: PLC0415

    hosts = planned_hosts(system)
    launch = plan_launch(topology, system, hosts=hosts, claim=planning(system))
    commands = contain_all(
        launch.commands,
        system,
        hosts=hosts,
        image=_planned_image(system.container),
        run_id="{run}",
        run_folder="{run folder}",
    )
    used = len(launch.placement.nodes)
    idle = system.cluster.nodes - used
    lines = [
        f"# {topology.id} on {system.name} ({system.description}): {used} nodes"
        + (f", {idle} idle" if idle else "")
        + "; {braces} are filled in by the allocation"
    ]
    if system.cluster.kind == "slurm":
        nodes = system.cluster.nodes + system.slurm.client_node
        asked = job_parameters(system.slurm, name="pdserve-{user}@{host}-{run}", nodes=nodes)
        lines += ["", "# sbatch, by submitit", *(f"#   {k} = {v}" for k, v in asked.items())]
    for command in commands:
        lines += ["", f"# {command.name} on {command.node}", command.render()]
    return "\n".join(lines) + "\n"


def _planned_image(spec: ContainerSpec) -> str:
    return spec.tag or ("{image}" if spec.image_source == "tarball" else spec.image)


def _serve(system: System, topology: Topology, runs: Path) -> int:
    from pytest_pdserve.checks import check_topology  # noqa: PLC0415
    from pytest_pdserve.results.store import check_runs_folder  # noqa: PLC0415
    from pytest_pdserve.results.store import create_run  # noqa: PLC0415
    from pytest_pdserve.serving.deployment import stand_up  # noqa: PLC0415
    from pytest_pdserve.session import acquire  # noqa: PLC0415

    check_topology(system, topology, touching=True)
    check_runs_folder(runs)
    for number in (signal.SIGTERM, signal.SIGINT):  # a background job inherits SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    store = create_run(runs, system.name)
    logs = store.logs(topology.id)

    def progress(text: str) -> None:
        print(f"pdserve {topology.id}: {text}", flush=True)

    with (
        acquire(system, folder=store.folder / system.cluster.kind, progress=progress) as nodes,
        stand_up(nodes, topology, system, logs=logs, progress=progress) as deployment,
    ):
        key = logs.parent.parent / "api-key"
        try:
            _write_key(key, deployment.api_key)
            print(_ready_text(deployment, logs, key), flush=True)
            while True:
                deployment.check_alive()
                time.sleep(1.0)
        finally:
            key.unlink(missing_ok=True)


def _write_key(path: Path, key: str) -> None:
    try:
        path.touch(mode=0o600)
        path.write_text(key)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error


def _ready_text(deployment: Deployment, logs: Path, key: Path) -> str:
    url = deployment.url
    return "\n".join(
        [
            f"endpoint  {url}",
            f"logs      {logs}",
            f"key       {key} (only you can read it)",
            f'try       curl {url}/v1/completions -H "Authorization: Bearer $(cat {key})" '
            "-H 'Content-Type: application/json' "
            f'-d \'{{"model": "{deployment.system.model.path}", "prompt": "bado fami", '
            '"max_tokens": 16}\'',
            f"measure   PDSERVE_API_KEY=$(cat {key}) pytest suites/ --pdserve-base-url {url} "
            f"--topology {deployment.topology.id}",
            "Ctrl-C ends it.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
