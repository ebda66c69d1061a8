"""Finds Slurm's programs on this machine, and installs missing ones with apt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "srun", "sinfo", "scancel")
POLICY = Path("/usr/sbin/policy-rc.d")


class Trouble(Exception):
    """Raised to end with one sentence for the user, and possibly with the end of a log."""

    def __init__(self, sentence: str, log: Path | None = None) -> None:
        super().__init__(sentence)
        self.log = log


def search_program(name: str) -> str | None:
    """Return the path of a program, also in folders of daemons; None if it is missing."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/slurm")


def find_program(name: str) -> str:
    """Return the path of a program; raise if it is missing."""
    path = search_program(name)
    if path is None:
        raise Trouble(f"{name} is not installed; run onehost.py install as root")
    return path


def check_installed() -> None:
    """Raise if a program is missing."""
    for program in PROGRAMS:
        find_program(program)


def install() -> None:
    """Install missing programs with apt, without starting a service."""
    missing = [program for program in PROGRAMS if search_program(program) is None]
    if not missing:
        return
    if os.getuid() != 0 or search_program("apt-get") is None:
        raise Trouble(f"{', '.join(missing)} missing; have root install {' and '.join(PACKAGES)}")
    written = not POLICY.exists()
    if written:
        POLICY.write_text("#!/bin/sh\nexit 101\n")  # 101: do not start the package's services
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
