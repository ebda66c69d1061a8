#!/usr/bin/env python3
"""A complete Slurm on one host, for tests and demos: munged, slurmctld and N slurmd in one folder.

onehost.py install
eval "$(onehost.py start --dir /tmp/pds --nodes 8)"
onehost.py stop --dir /tmp/pds
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from processes import GRACE_S
from processes import Daemon
from processes import end
from processes import find_descendants
from processes import find_running
from processes import find_steps
from processes import pids_of
from processes import read_pid
from processes import send
from processes import wait_until
from programs import Trouble
from programs import check_installed
from programs import find_program
from programs import install

TEMPLATE = Path(__file__).with_name("slurm.conf")
MARK = TEMPLATE.read_text().partition("\n")[0]
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
# Below the ephemeral ports, so that no outgoing connection takes one between test and use, and
# below those of local-cpu (21000 up) and of our stubs (27000 up).
PORTS = range(14500, 20500)
# The longest Unix socket is slurmstepd's: spool/NODE/NODE_JOB.STEP; a batch step has ten digits.
LONGEST_SOCKET = "/spool/pd999/pd999_9999999.4294967291"
SOCKET_LIMIT = 107
START_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OneHost:
    """The folder of a one-host Slurm, and its daemons."""

    folder: Path

    @property
    def conf(self) -> Path:
        """Path of the configuration, for ``SLURM_CONF``."""
        return self.folder / "slurm.conf"

    @property
    def exists(self) -> bool:
        """Whether a one-host Slurm was started here before."""
        return self.conf.is_file() and self.conf.read_text().startswith(MARK)

    def daemons(self) -> dict[str, Daemon]:
        """Return all daemons by name, in the order of their start."""
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
            "--force",  # a parent folder that others may write to is a warning, not an error
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
        """Run a Slurm command; return its output, empty if it fails or does not answer."""
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        argv = [find_program(command[0]), *command[1:]]
        try:
            done = subprocess.run(
                argv, env=environment, capture_output=True, text=True, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout if done.returncode == 0 else ""


def report(text: str) -> None:
    """Print *text* to standard error; standard output is for the shell."""
    print(text, file=sys.stderr, flush=True)


# Starting.


def render_conf(host: OneHost, options: argparse.Namespace) -> str:
    """Return the configuration, with ports that are free now."""
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
        user=pwd.getpwuid(os.getuid()).pw_name,
        folder=host.folder,
        down_after=options.down_after,
        # A lost node is DOWN 1.5 of these later than requested: a failing ping takes that long.
        message_timeout=min(max(options.down_after // 3, 3), 10),
        nodes="\n".join(nodes),
    )


def find_ports(count: int) -> list[int]:
    """Return TCP ports to which nothing is bound, chosen at random."""
    found: list[int] = []
    for port in secrets.SystemRandom().sample(PORTS, k=len(PORTS)):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise Trouble(f"{count} free TCP ports are needed from {PORTS.start} up, {len(found)} found")


def host_memory_mib() -> int:
    """Return the host's memory; each node declares all of it, as Slurm allocates cores only."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def check(host: OneHost, options: argparse.Namespace) -> None:
    """Raise if Slurm could not use the options, or the folder has other files."""
    if not 1 <= options.nodes <= 1000:
        raise Trouble(f"--nodes {options.nodes} is not in 1 to 1000")
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
    """Create the folder: configuration, key, and folders of state, spool, logs and pid files."""
    host.folder.mkdir(parents=True, exist_ok=True)
    host.folder.chmod(0o755)  # mkdtemp's 0700 would keep other users from socket and configuration
    host.conf.write_text(render_conf(host, options))
    shutil.copy(TEMPLATE.with_name("cgroup.conf"), host.folder)
    for name, mode in (("state", 0o700), ("spool", 0o755), ("run", 0o755), ("log", 0o755)):
        shutil.rmtree(host.folder / name, ignore_errors=True)
        (host.folder / name).mkdir(mode=mode)
    keys = host.folder / "keys"
    shutil.rmtree(keys, ignore_errors=True)
    keys.mkdir(mode=0o700)
    with open(os.open(keys / "munge.key", os.O_WRONLY | os.O_CREAT, 0o400), "wb") as key:
        key.write(secrets.token_bytes(128))


def start_daemons(daemons: Iterable[Daemon]) -> None:
    """Start daemons together, and wait until each runs in the background."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    started = []
    for daemon in daemons:
        out = daemon.log.with_suffix(".out")
        with out.open("wb") as output:
            argv = [find_program(daemon.program), *daemon.arguments]
            process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
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
    if not wait_until(lambda: find_late_node(host, nodes) is None, START_S, 0.1):
        late = find_late_node(host, nodes) or nodes[0]
        raise Trouble(f"node {late.name} was not idle after {START_S:g} s", late.log)


def find_late_node(host: OneHost, nodes: list[Daemon]) -> Daemon | None:
    """Return the first node that is not idle yet; None if all are."""
    lines = host.ask("sinfo", "--noheader", "--Node", "--partition=pd", "--format=%N %T")
    idle = {line.split()[0] for line in lines.splitlines() if line.split()[1] == "idle"}
    return next((node for node in nodes if node.name not in idle), None)


def disable_autogroups(host: OneHost) -> None:
    """Turn off the kernel's autogroups: vLLM's spinning loops starve each other across sessions."""
    kept = host.folder / AUTOGROUP.name
    try:
        if AUTOGROUP.read_text().strip() != "0":
            kept.write_text(AUTOGROUP.read_text())
            AUTOGROUP.write_text("0\n")
    except OSError as trouble:
        kept.unlink(missing_ok=True)
        report(
            f"{AUTOGROUP} cannot be set to 0: {trouble.strerror}; each step stays in its own group"
        )


@contextlib.contextmanager
def starting_alone() -> Iterator[None]:
    """Lock out other starts while this one chooses its ports and binds them."""
    with (Path(tempfile.gettempdir()) / f"onehost-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start(host: OneHost, options: argparse.Namespace) -> None:
    """Start all daemons; if that fails, stop them."""
    check_installed()
    check(host, options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with starting_alone():
        prepare_folder(host, options)
        try:
            if options.one_scheduling_group:
                disable_autogroups(host)
            start_all(host)
        except BaseException:
            stop(host)
            raise
    print(f"export SLURM_CONF={host.conf}", flush=True)


# Stopping, status, and control of one daemon.


def stop(host: OneHost, _: argparse.Namespace | None = None) -> None:
    """End jobs, steps and daemons, in this order; those that do not run are skipped."""
    if not host.exists:
        return
    munged, ctld, *nodes = host.daemons().values()
    if find_running([ctld]):
        cancel_jobs(host)
    left = end(lambda: pids_of(nodes))
    left += end_steps(host)
    for daemon in (ctld, munged):
        left += end(partial(pids_of, [daemon]))
    restore_autogroups(host)
    if left:
        raise Trouble(f"processes {left} of {host.folder} outlived SIGKILL")


def cancel_jobs(host: OneHost) -> None:
    """Cancel all jobs, and wait for their steps to end."""
    jobs = host.ask("squeue", "--noheader", "--format=%A").split()
    if jobs:
        host.ask("scancel", *dict.fromkeys(jobs))
        wait_until(lambda: not find_steps(host.folder), GRACE_S)


def end_steps(host: OneHost) -> list[int]:
    """End the remaining slurmstepd, after their descendants; return those that still run."""
    steps = find_steps(host.folder)
    send(find_descendants(steps), signal.SIGKILL)
    wait_until(lambda: not find_steps(host.folder), 2.0)
    return end(lambda: find_steps(host.folder))


def restore_autogroups(host: OneHost) -> None:
    """Restore the kernel's earlier setting of autogroups."""
    kept = host.folder / AUTOGROUP.name
    if kept.exists():
        AUTOGROUP.write_text(kept.read_text())
        kept.unlink()


def status(host: OneHost, _: argparse.Namespace) -> None:
    """Print one line per daemon: name, process id, alive or dead."""
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
        raise Trouble(
            f"{options.name} is not a daemon in {host.folder}; its daemons: "
            f"{', '.join(daemons) or 'none'}"
        )
    if options.action == "start":
        if not find_running([daemon]):
            start_daemons([daemon])
        return
    number = signal.SIGKILL if options.action == "kill" else signal.SIGTERM
    if end(lambda: pids_of([daemon]), first=number):
        raise Trouble(f"{daemon.name} outlived SIGKILL", daemon.log)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("install", help="Install Slurm with apt").set_defaults(act=None)
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
    """Add the options of ``start``."""
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
    """Run the command; return the exit code, 1 after an error."""
    options = parse(argv)
    os.umask(0o022)  # others read the configuration and reach the socket
    try:
        if options.act is None:
            install()
        else:
            options.act(OneHost(folder=Path(options.dir).resolve()), options)
    except (Trouble, OSError) as trouble:
        report(f"onehost: {trouble}")
        show_tail(trouble.log if isinstance(trouble, Trouble) else None)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def show_tail(log: Path | None) -> None:
    """Print the end of a log, and of the program's output before it opened the log."""
    for path in (log, log.with_suffix(".out")) if log else ():
        if path.is_file() and path.stat().st_size:
            report(f"{path} ends:")
            report("\n".join(path.read_text(errors="replace").splitlines()[-15:]))


if __name__ == "__main__":
    sys.exit(main())
