"""Slurm's commands as scripts that answer from files: what no real Slurm of one host can be made
to say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
JOB = "4711"
_SCRIPT = """\
#!/bin/sh
cd '{folder}' || exit 1
echo "{name} $*" >> asked
{does}
"""
_DOES = {
    "sbatch": "cat sbatch.err >&2; cat sbatch.out; exit $(cat sbatch.rc)",
    # One line of the story per look at the job; the last one stays. A cancelled job is gone.
    "squeue": """\
case "$*" in *--jobs=*) ;; *) exit 0;; esac
[ -e cancelled ] && exit 0
echo >> looks
sed -n "$(wc -l < looks)p" story | grep . || tail -n 1 story""",
    "sinfo": "cat sinfo",
    "scancel": "echo > cancelled",
    "scontrol": "",
    "srun": "exit 1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSlurm:
    """Commands of Slurm in a folder."""

    folder: Path

    @classmethod
    def install(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
        """Make the commands and put them first on PATH; sbatch answers as Slurm's own does."""
        (folder / "bin").mkdir(parents=True)
        made = cls(folder=folder)
        for name in PROGRAMS:
            made.replace(name, _DOES[name])
        made.sbatch(f"Submitted batch job {JOB}")
        made.sinfo()
        made.story("PENDING|Resources||me|gpu")
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        return made

    def replace(self, name: str, does: str) -> None:
        """Have a command do something else, in shell."""
        path = self.folder / "bin" / name
        path.write_text(_SCRIPT.format(folder=self.folder, name=name, does=does))
        path.chmod(0o755)

    def sbatch(self, answer: str, *, errors: str = "", code: int = 0) -> None:
        """Set what sbatch prints and ends with."""
        for ending, text in (("out", answer), ("err", errors), ("rc", str(code))):
            (self.folder / f"sbatch.{ending}").write_text(f"{text}\n" if text else "")

    def story(self, *lines: str) -> None:
        """Set what squeue says of the job, look by look."""
        (self.folder / "story").write_text("".join(f"{line}\n" for line in lines))

    def sinfo(self, *lines: str) -> None:
        """Set what sinfo says of nodes."""
        (self.folder / "sinfo").write_text("".join(f"{line}\n" for line in lines))

    def asked(self, name: str) -> Sequence[str]:
        """Return the arguments of every call of a command."""
        lines = (self.folder / "asked").read_text().splitlines()
        return [line.partition(" ")[2] for line in lines if line.split(" ")[0] == name]
