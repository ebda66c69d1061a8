"""Where numbers come from: versions of what ran, and the host it ran on."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from pytest_pdserve.serving.answers import AnswerError
from pytest_pdserve.serving.answers import AnswerLimits
from pytest_pdserve.serving.answers import printable
from pytest_pdserve.serving.answers import read_answer
from pytest_pdserve.values.system import System

_LIMITS = AnswerLimits(time_s=10.0)
_IRRELEVANT = (
    *("name", "source", "description", "ports", "limits", "judgement", "programs"),
    "tables",  # how nodes are had, not what they are: these tell that themselves
    *("figures", "simulated", "pass_env", "transfer", "stack"),
)
"""Parts of a system that leave a measurement as it is."""
_IRRELEVANT_KEYS = (
    *(("container", "image"), ("container", "tag"), ("sweep", "repeats")),
    *(("bench", "client"), ("bench", "python")),  # references name their client themselves
    *(("cluster", "price_per_gpu_hour"), ("cluster", "currency")),
)
_EARLIER_BIND_HOST = "0.0.0.0"  # noqa: S104 - digested, not bound
"""The default of earlier releases; with it in the digest, baselines of then still hold."""


def endpoint_versions(client: httpx.Client, url: str) -> dict[str, str]:
    """What an endpoint says of itself at ``/version``; empty if it does not."""
    try:
        said = read_answer(client, "GET", f"{url}/version", limits=_LIMITS).json()
        return {"vllm": printable(str(said["version"]))}
    except (AnswerError, KeyError, TypeError):
        return {}


def longest_model_len(client: httpx.Client, url: str) -> int | None:
    """Tokens of a request that an endpoint takes at most, by ``/v1/models``; None if unknown."""
    try:
        models = read_answer(client, "GET", f"{url}/v1/models", limits=_LIMITS).json()["data"]
        said = [model["max_model_len"] for model in models if model.get("max_model_len")]
        return max(map(int, said), default=None)
    except (AnswerError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
        return None


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout at *folder*, with ``+dirty`` if changed; None outside of one."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        said = subprocess.run(
            [git, "-C", str(folder), "describe", "--always", "--dirty=+dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None


def measured_on(hardware: Mapping[str, str], system: System) -> dict[str, str]:
    """Return *hardware*, and all in the system file that changes a measurement, as texts by key.

    A key of the file stands with its tables, e.g. ``model.decode.serve_args``. Versions of the
    software are left out, and the image that brings them: comparing them is what baselines are for.
    """
    asked = asdict(system)
    for name in _IRRELEVANT:
        del asked[name]
    for table, name in _IRRELEVANT_KEYS:
        del asked[table][name]
    if not system.cluster.share_engines:  # as in baselines of earlier releases
        del asked["cluster"]["share_engines"]
    asked["model"]["path"] = Path(system.model.path).name
    for table in ("model", "kv_transfer"):
        asked[table].update(asked[table].pop("roles"))
    return {**hardware, **dict(_texts(asked))}


def fingerprint(hardware: Mapping[str, str], system: System) -> str:
    """Return the digest of :func:`measured_on`."""
    earlier = {"cluster.bind_host": _EARLIER_BIND_HOST}
    text = json.dumps({**earlier, **measured_on(hardware, system)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _texts(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value of *table* that is given, as TOML's keys and JSON's values."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _texts(value, f"{prefix}{key}.")
        elif value not in (None, (), []):
            said = value if isinstance(value, str) else json.dumps(value, default=str)
            yield f"{prefix}{key}", said
