#!/usr/bin/env python3
"""A whole Slurm on one host, for tests and demos: munged, slurmctld and N slurmd in one folder.

    onehost.py install
    eval "$(onehost.py start --dir /tmp/pds --nodes 8)"
    onehost.py stop --dir /tmp/pds
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "srun", "sinfo", "scancel")
TEMPLATE = Path(__file__).with_name("slurm.conf")
MARK = TEMPLATE.read_text().partition("\n")[0]
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
POLICY = Path("/usr/sbin/policy-rc.d")
# Below the kernel's ephemeral ports, so that no outgoing connection takes one between test and use.
PORTS = range(20000, 32000)
# The longest socket of them all is slurmstepd's: spool/NODE/NODE_JOB.STEP, where a batch step's number has ten digits.
LONGEST_SOCKET = "/spool/pd999/pd999_9999999.4294967291"
SOCKET_LIMIT = 107
START_S = 30.0
GRACE_S = 10.0


class Trouble(Exception):
    """Raised when there is one sentence to say before the end, perhaps with a log to show."""

    def __init__(self, sentence: str, log: Path | None = None) -> None:
        super().__init__(sentence)
        self.log = log


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """One program of the cluster."""

    name: str
    """``munged``, ``ctld`` or the node's name."""
    program: str
    """Name of the executable."""
    arguments: tuple[str, ...]
    """All that follows it; names the folder, so no other process has the same."""
    pid_file: Path
    log: Path

    def owns(self, command: tuple[str, ...]) -> bool:
        """Tell whether a process with this command line is the daemon."""
        return Path(command[0]).name == self.program and command[1:] == self.arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class OneHost:
    """A folder and what runs out of it."""

    folder: Path

    @property
    def conf(self) -> Path:
        """What ``SLURM_CONF`` names."""
        return self.folder / "slurm.conf"

    @property
    def exists(self) -> bool:
        """Tell whether a one-host Slurm was started here before."""
        return self.conf.is_file() and self.conf.read_text().startswith(MARK)

    def daemons(self) -> dict[str, Daemon]:
        """Every daemon by name, in the order in which they start."""
        nodes = re.findall(r"^NodeName=(\S+)", self.conf.read_text(), re.MULTILINE)
        conf = ("-f", str(self.conf))
        found = [self._munged(), self._slurm("ctld", "slurmctld", conf)]
        found += [self._slurm(node, "slurmd", (*conf, "-N", node)) for node in nodes]
        return {daemon.name: daemon for daemon in found}

    def _slurm(self, name: str, program: str, arguments: tuple[str, ...]) -> Daemon:
        return Daemon(
            name=name,
            program=program,
            arguments=arguments,
            pid_file=self.folder / "run" / f"{name}.pid",
            log=self.folder / "log" / f"{name}.log",
        )

    def _munged(self) -> Daemon:
        pid_file, log = self.folder / "run" / "munged.pid", self.folder / "log" / "munged.log"
        arguments = (
            "--force",  # a folder above that others may write to is a warning, not the end
            f"--socket={self.folder / 'munge.sock'}",
            f"--key-file={self.folder / 'keys' / 'munge.key'}",
            f"--seed-file={self.folder / 'keys' / 'munge.seed'}",
            f"--pid-file={pid_file}",
            f"--log-file={log}",
        )
        return Daemon(
            name="munged", program="munged", arguments=arguments, pid_file=pid_file, log=log
        )

    def ask(self, *command: str, timeout_s: float = 5.0) -> str:
        """Run one of Slurm's commands; its output, or nothing if it fails or does not answer."""
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        argv = [find_program(command[0]), *command[1:]]
        try:
            done = subprocess.run(
                argv, env=environment, capture_output=True, text=True, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout if done.returncode == 0 else ""


def say(text: str) -> None:
    """Tell a person; stdout is for the shell."""
    print(text, file=sys.stderr, flush=True)


def search_program(name: str) -> str | None:
    """Where a program is; the folders of daemons are not on every user's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/slurm")


def find_program(name: str) -> str:
    """The same, of a program that has to be there."""
    path = search_program(name)
    if path is None:
        raise Trouble(f"{name} is not installed; run {Path(__file__).name} install as root")
    return path


def wait_until(done: Callable[[], bool], seconds: float, pause_s: float = 0.05) -> bool:
    """Wait for a condition, but not for ever."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True


# Processes: found in /proc and checked there, each time anew.


def read_commands() -> dict[int, tuple[str, ...]]:
    """Command lines by process id; zombies have none and are left out."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                raw = Path("/proc", entry, "cmdline").read_bytes()
                if raw:
                    text = raw.decode(errors="replace")
                    found[int(entry)] = tuple(text.removesuffix("\0").split("\0"))
    return found


def find_running(daemons: Iterable[Daemon]) -> dict[str, list[int]]:
    """Process ids by daemon; first the one that its pid file names, if it is that program."""
    commands = read_commands()
    found = {}
    for daemon in daemons:
        pids = [pid for pid, command in commands.items() if daemon.owns(command)]
        named = read_pid(daemon.pid_file)
        if pids:
            found[daemon.name] = sorted(pids, key=lambda pid: (pid != named, pid))
    return found


def read_pid(path: Path) -> int | None:
    """The number in a pid file, whether or not that process lives."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def find_steps(host: OneHost) -> list[int]:
    """Process ids of the slurmstepd that keep a file or socket of this folder open."""
    sockets = find_sockets(host.folder)
    found = []
    for pid, command in read_commands().items():
        if command[0].startswith(("slurmstepd", str(search_program("slurmstepd")))):
            with contextlib.suppress(OSError):
                targets = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
                if any(t.startswith(f"{host.folder}/") or t in sockets for t in targets):
                    found.append(pid)
    return found


def find_sockets(folder: Path) -> set[str]:
    """Open sockets under a folder, as the links in /proc/PID/fd write them."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return {f"socket:[{line[6]}]" for line in lines if line[-1].startswith(f"{folder}/")}


def find_descendants(roots: Iterable[int]) -> list[int]:
    """Process ids of all that descends from others, and these not."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path("/proc", entry, "stat").read_text()
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    known = set(roots)
    found: list[int] = []
    while more := [p for p, above in parents.items() if above in known and p not in known]:
        known.update(more)
        found += more
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal processes, some of which may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(find: Callable[[], list[int]], *, first: signal.Signals = signal.SIGTERM) -> list[int]:
    """End what is found, gently and then not; the process ids that outlived both."""
    for number in dict.fromkeys((first, signal.SIGKILL)):
        send(find(), number)
        if wait_until(lambda: not find(), GRACE_S):
            break
    return find()


# Starting.


def render_conf(host: OneHost, options: argparse.Namespace) -> str:
    """Write the configuration out, with ports that are free now."""
    ctld, *ports = find_ports(1 + options.nodes)
    resources = f"CPUs={options.cpus_per_node} RealMemory={options.memory_mib or host_memory_mib()}"
    nodes = [
        f"NodeName=pd{i} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} {resources}"
        for i, port in enumerate(ports)
    ]
    return string.Template(TEMPLATE.read_text()).substitute(
        cluster=f"pd{hashlib.sha256(bytes(host.folder)).hexdigest()[:10]}",
        host=socket.gethostname().partition(".")[0],
        port=ctld,
        user=getpass.getuser() if os.getuid() else "root",
        folder=host.folder,
        down_after=options.down_after,
        nodes="\n".join(nodes),
    )


def find_ports(count: int) -> list[int]:
    """TCP ports that nothing is bound to; all are tried at once, at random places."""
    found: list[int] = []
    for port in secrets.SystemRandom().sample(PORTS, k=len(PORTS)):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise Trouble(f"{count} free TCP ports are needed from {PORTS.start} up, {len(found)} found")


def host_memory_mib() -> int:
    """Memory of the host; each node says it has all of it, as nothing is taken off (CR_Core)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def check_folder(host: OneHost) -> None:
    """Refuse a folder that Slurm could not use, or that is somebody's."""
    room = SOCKET_LIMIT - len(LONGEST_SOCKET)
    if len(bytes(host.folder)) > room:
        raise Trouble(f"--dir {host.folder} is too long for Unix sockets: at most {room} bytes")
    if not re.fullmatch(r"[\w./+-]+", str(host.folder), re.ASCII):
        raise Trouble(f"--dir {host.folder} has a character that slurm.conf cannot hold")
    if host.exists:
        if find_running(host.daemons().values()):
            raise Trouble(f"a one-host Slurm already runs in {host.folder}; stop it first")
    elif host.folder.exists() and any(host.folder.iterdir()):
        raise Trouble(f"{host.folder} is not empty and holds no one-host Slurm; name another --dir")


def prepare_folder(host: OneHost, options: argparse.Namespace) -> None:
    """Make the folder new: configuration, key, and places for state, spool, logs and pid files."""
    host.folder.mkdir(parents=True, exist_ok=True)
    host.folder.chmod(0o755)  # mkdtemp's 0700 would keep other users from socket and configuration
    host.conf.write_text(render_conf(host, options))
    for name, mode in (("state", 0o700), ("spool", 0o755), ("run", 0o755), ("log", 0o755)):
        shutil.rmtree(host.folder / name, ignore_errors=True)
        (host.folder / name).mkdir(mode=mode)
    keys = host.folder / "keys"
    shutil.rmtree(keys, ignore_errors=True)
    keys.mkdir(mode=0o700)
    with open(os.open(keys / "munge.key", os.O_WRONLY | os.O_CREAT, 0o400), "wb") as key:
        key.write(secrets.token_bytes(128))


def start_daemons(daemons: Iterable[Daemon]) -> None:
    """Start daemons together, and wait until each has gone into the background."""
    started = []
    for daemon in daemons:
        out = daemon.log.with_suffix(".out")
        with out.open("wb") as output:
            argv = [find_program(daemon.program), *daemon.arguments]
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/"
            )
        started.append((daemon, process))
    for daemon, process in started:
        try:
            code = process.wait(timeout=START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Trouble(f"{daemon.name} did not start in {START_S:g} s", daemon.log) from None
        if code != 0:
            raise Trouble(f"{daemon.name} exited with code {code}", daemon.log)


def start_all(host: OneHost) -> None:
    """Start munged, then the controller, then all nodes, and wait until they are idle."""
    munged, ctld, *nodes = host.daemons().values()
    start_daemons([munged])
    start_daemons([ctld])
    if not wait_until(lambda: " UP" in host.ask("scontrol", "ping"), START_S):
        raise Trouble(f"slurmctld did not answer in {START_S:g} s", ctld.log)
    start_daemons(nodes)
    if not wait_until(lambda: find_laggard(host, nodes) is None, START_S, 0.1):
        late = find_laggard(host, nodes) or nodes[0]
        raise Trouble(f"node {late.name} was not idle after {START_S:g} s", late.log)


def find_laggard(host: OneHost, nodes: list[Daemon]) -> Daemon | None:
    """The first node that is not idle yet."""
    lines = host.ask("sinfo", "--noheader", "--Node", "--partition=pd", "--format=%N %T")
    idle = {line.split()[0] for line in lines.splitlines() if line.split()[1] == "idle"}
    return next((node for node in nodes if node.name not in idle), None)


def join_scheduling_groups(host: OneHost) -> None:
    """Turn the kernel's autogroups off: vLLM's spinning loops starve each other across sessions."""
    try:
        before = AUTOGROUP.read_text()
        AUTOGROUP.write_text("0\n")
    except OSError as trouble:
        say(f"{AUTOGROUP} cannot be set to 0 ({trouble.strerror}); steps stay in groups of their own")
        return
    if before.strip() != "0":
        (host.folder / AUTOGROUP.name).write_text(before)


def start(host: OneHost, options: argparse.Namespace) -> None:
    """Start everything, or leave nothing running."""
    for program in PROGRAMS:
        find_program(program)
    check_folder(host)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare_folder(host, options)
    try:
        if options.one_scheduling_group:
            join_scheduling_groups(host)
        start_all(host)
    except BaseException:
        stop(host)
        raise
    print(f"export SLURM_CONF={host.conf}", flush=True)


# Stopping, looking, and one daemon.


def stop(host: OneHost, _: argparse.Namespace | None = None) -> None:
    """End jobs, steps and daemons, in this order; what does not run is no trouble."""
    if not host.exists:
        return
    munged, ctld, *nodes = host.daemons().values()
    if find_running([ctld]):
        cancel_jobs(host)
    left = end(lambda: pids_of(nodes))
    left += end_steps(host)
    for daemon in (ctld, munged):
        left += end(lambda daemon=daemon: pids_of([daemon]))  # type: ignore[misc]
    restore_scheduling_groups(host)
    if left:
        raise Trouble(f"processes {left} of {host.folder} outlived SIGKILL")


def pids_of(daemons: Iterable[Daemon]) -> list[int]:
    """Every process of some daemons."""
    return [pid for pids in find_running(daemons).values() for pid in pids]


def cancel_jobs(host: OneHost) -> None:
    """Cancel all jobs and wait a while for their steps to go."""
    jobs = host.ask("squeue", "--noheader", "--format=%A").split()
    if jobs:
        host.ask("scancel", *dict.fromkeys(jobs))
        wait_until(lambda: not find_steps(host), GRACE_S)


def end_steps(host: OneHost) -> list[int]:
    """End the slurmstepd that are left, and first what they started: nobody else knows it."""
    steps = find_steps(host)
    send(find_descendants(steps), signal.SIGKILL)
    wait_until(lambda: not find_steps(host), 2.0)
    return end(lambda: find_steps(host))


def restore_scheduling_groups(host: OneHost) -> None:
    """Give the kernel back the value that it had."""
    kept = host.folder / AUTOGROUP.name
    if kept.exists():
        AUTOGROUP.write_text(kept.read_text())
        kept.unlink()


def status(host: OneHost, _: argparse.Namespace) -> None:
    """One line per daemon: name, process id, alive or not."""
    if not host.exists:
        raise Trouble(f"{host.folder} holds no one-host Slurm")
    daemons = host.daemons()
    running = find_running(daemons.values())
    for name, daemon in daemons.items():
        pid = running[name][0] if name in running else read_pid(daemon.pid_file)
        print(f"{name:<8} {pid or '-':>8} {'alive' if name in running else 'dead'}")


def control(host: OneHost, options: argparse.Namespace) -> None:
    """Start, stop or kill one daemon."""
    daemons = host.daemons() if host.exists else {}
    daemon = daemons.get(options.name)
    if daemon is None:
        raise Trouble(f"{options.name} is none of the daemons in {host.folder}: {[*daemons]}")
    if options.action == "start":
        if not find_running([daemon]):
            start_daemons([daemon])
        return
    number = signal.SIGKILL if options.action == "kill" else signal.SIGTERM
    if end(lambda: pids_of([daemon]), first=number):
        raise Trouble(f"{daemon.name} outlived SIGKILL", daemon.log)


# Installing.


def install(_: OneHost, __: argparse.Namespace) -> None:
    """Have apt install what is missing, and start no service."""
    missing = [program for program in PROGRAMS if search_program(program) is None]
    if not missing:
        return
    if os.getuid() != 0 or search_program("apt-get") is None:
        raise Trouble(f"{', '.join(missing)} missing; have root install {' and '.join(PACKAGES)}")
    written = not POLICY.exists()
    if written:
        POLICY.write_text("#!/bin/sh\nexit 101\n")  # 101: the package's services shall not start
        POLICY.chmod(0o755)
    try:
        run_apt("update")
        run_apt("install", "--yes", "--no-install-recommends", *PACKAGES)
    finally:
        if written:
            POLICY.unlink()


def run_apt(*arguments: str) -> None:
    """Run apt-get without questions; its output goes to stderr."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    argv = [find_program("apt-get"), "--quiet", *arguments]
    code = subprocess.run(argv, env=environment, stdout=sys.stderr, check=False).returncode
    if code != 0:
        raise Trouble(f"apt-get {arguments[0]} exited with code {code}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("install", help="Install Slurm with apt").set_defaults(act=install, dir=".")
    actions = (("start", start), ("stop", stop), ("status", status), ("daemon", control))
    for name, act in actions:
        one = commands.add_parser(name, help=(act.__doc__ or "").partition("\n")[0])
        one.set_defaults(act=act)
        one.add_argument("--dir", required=True, help="Folder of state, logs and configuration")
        if name == "start":
            add_start_options(one)
        if name == "daemon":
            one.add_argument("name", help="munged, ctld or a node's name, e.g. pd2")
            one.add_argument("action", choices=["start", "stop", "kill"])
    return parser.parse_args(argv)


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """Give ``start`` its options."""
    parser.add_argument("--nodes", type=int, default=8, help="Nodes pd0, pd1, … (default: 8)")
    parser.add_argument("--cpus-per-node", type=int, default=2, help="Default: 2")
    parser.add_argument("--memory-mib", type=int, help="Of each node (default: the host's)")
    parser.add_argument(
        "--down-after", type=int, default=15, help="Seconds until a dead node is DOWN (default: 15)"
    )
    parser.add_argument(
        "--one-scheduling-group",
        action="store_true",
        help="Turn the kernel's autogroups off until stop: for real vLLM in steps of one host",
    )


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; 1 after trouble."""
    options = parse(argv)
    try:
        options.act(OneHost(folder=Path(options.dir).resolve()), options)
    except Trouble as trouble:
        say(f"onehost: {trouble}")
        show_tail(trouble.log)
        return 1
    return 0


def show_tail(log: Path | None) -> None:
    """Show how a log ends, and what the program said before it opened it."""
    for path in (log, log.with_suffix(".out")) if log else ():
        if path.is_file() and path.stat().st_size:
            say(f"{path} ends:")
            say("\n".join(path.read_text(errors="replace").splitlines()[-15:]))


if __name__ == "__main__":
    sys.exit(main())
