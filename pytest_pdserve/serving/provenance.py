"""Provenance of a measurement: versions, commit, hardware and settings."""

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
    "tables",  # how nodes are acquired; what they are is read from the nodes
    *("figures", "simulated", "pass_env", "transfer", "stack"),
)
"""Parts of a system file that do not change a measurement."""
_IRRELEVANT_KEYS = (
    *(("container", "image"), ("container", "tag"), ("sweep", "repeats")),
    *(("bench", "client"), ("bench", "python")),  # references name their client
    *(("cluster", "price_per_gpu_hour"), ("cluster", "currency")),
)
_BESIDE_GPUS = ("cpu", "cores", "memory_gib")
"""Hardware in which hosts with the same GPU model may differ."""
_EARLIER_BIND_HOST = "0.0.0.0"  # noqa: S104 - digested, not bound
"""Default of earlier releases; part of the digest, so that their baselines stay usable."""


def endpoint_versions(client: httpx.Client, url: str) -> dict[str, str]:
    """Return the version of vLLM that ``/version`` reports; empty if it does not."""
    try:
        answer = read_answer(client, "GET", f"{url}/version", limits=_LIMITS).json()
        return {"vllm": printable(str(answer["version"]))}
    except (AnswerError, KeyError, TypeError):
        return {}


def longest_model_len(client: httpx.Client, url: str) -> int | None:
    """Return the largest ``max_model_len`` of ``/v1/models``, tokens; None if not reported."""
    try:
        models = read_answer(client, "GET", f"{url}/v1/models", limits=_LIMITS).json()["data"]
        lengths = [model["max_model_len"] for model in models if model.get("max_model_len")]
        return max(map(int, lengths), default=None)
    except (AnswerError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
        return None


def git_commit(folder: Path) -> str | None:
    """Return the commit of the checkout at *folder*, with ``+dirty`` if changed; None outside."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        result = subprocess.run(
            [git, "-C", str(folder), "describe", "--always", "--dirty=+dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def measured_on(hardware: Mapping[str, str], system: System) -> dict[str, str]:
    """Return *hardware* and all settings that change a measurement, as texts by key.

    Settings have dotted keys of the system file, e.g. ``model.decode.serve_args``. Versions of
    software and the image are left out, because baselines are used to compare them.
    """
    settings = asdict(system)
    for name in _IRRELEVANT:
        del settings[name]
    for table, name in _IRRELEVANT_KEYS:
        del settings[table][name]
    if not (system.cluster.spare_nodes and system.cluster.shared_host):
        del settings["cluster"]["spare_nodes"]  # on one machine, slots share its cores
    if not system.cluster.share_engines:  # as in baselines of earlier releases
        del settings["cluster"]["share_engines"]
    settings["model"]["path"] = Path(system.model.path).name
    for table in ("model", "kv_transfer"):
        settings[table].update(settings[table].pop("roles"))
    return {**hardware, **dict(_texts(settings))}


def fingerprint(hardware: Mapping[str, str], system: System) -> str:
    """Return the digest of :func:`measured_on`.

    Where hosts with the same GPU model share their references, other hardware is not part of it.
    """
    shared = system.judgement.gpu_references and "gpu" in hardware
    counted = {k: v for k, v in hardware.items() if not (shared and k in _BESIDE_GPUS)}
    earlier = {"cluster.bind_host": _EARLIER_BIND_HOST}
    text = json.dumps({**earlier, **measured_on(counted, system)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _texts(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted key and JSON text of every value of *table* that is set."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _texts(value, f"{prefix}{key}.")
        elif value not in (None, (), []):
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield f"{prefix}{key}", text
