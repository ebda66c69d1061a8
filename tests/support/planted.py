"""Secrets that tests plant in a session, and where they are looked for afterwards."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from pytest_pdserve.results.requests import read_requests
from pytest_pdserve.values.secrets import SESSION_KEY_PREFIX
from tests.support.house import House

SECRETS = {
    "MY_LOGIN": 'user/o\'pen "sesame" 4711',
    "HF_TOKEN": "hf_" + "AbCdEfGh" * 4,
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYplanted",
}
PASSED = ["MY_LOGIN", "HF_TOKEN"]


def pass_through(house: House, **tables: Any) -> None:
    """Write the system ``stub`` so that it passes variables through."""
    path = house.system(**tables)
    text = path.read_text()
    path.write_text(text.replace("\n[", f"\npass_env = {json.dumps(PASSED)}\n[", 1))


def sampled(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Argument lists of *process* and all that it starts, until it ends."""
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(process.pid)
            for each in (leader, *leader.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    yield " ".join(each.cmdline())
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)


def text_of(path: Path) -> str:
    """What a file says; that of a table of requests is compressed."""
    if path.suffix == ".parquet":
        return str(read_requests(path).to_csv())
    return path.read_text(errors="replace")


def leaks(folders: Sequence[Path], arguments: set[str], *more: str) -> list[str]:
    """Where a secret stands: in files below *folders*, or in arguments."""
    secrets = [*SECRETS.values(), SESSION_KEY_PREFIX, *more]
    forms = {form for each in secrets for form in (each, repr(each)[1:-1], json.dumps(each)[1:-1])}
    paths = (path for folder in folders for path in folder.rglob("*"))
    files = {str(path): path for path in paths if path.is_file()}
    texts = {name: text_of(path) for name, path in files.items()}
    texts |= {f"arguments: {line[:80]}": line for line in arguments}
    return sorted(name for name, text in texts.items() if any(each in text for each in forms))


def logs(house: House) -> str:
    """Every log of every run."""
    return "".join(path.read_text() for path in sorted(house.runs.rglob("*.log")))
