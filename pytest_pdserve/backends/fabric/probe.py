"""Tests whether NIXL's LIBFABRIC backend works, and which provider it uses."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("agent.py")
_PROBE_S = 60.0
_RAIL = re.compile(r"Created rail \d+ \(device=(?P<device>[^,]+), provider=(?P<provider>[^)]+)\)")
"""Line of NIXL 1.4's log, at level DEBUG, with the device and provider in use."""
_ERROR = re.compile(r"^E\d{4} \S+ +\d+ \S+\] (?P<text>.+)", re.MULTILINE)
"""An error in NIXL's log; later errors follow from the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProbe:
    """Result of creating a NIXL agent with LIBFABRIC."""

    provider: str = ""
    """libfabric's provider, e.g. ``tcp``."""
    interfaces: tuple[str, ...] = ()
    """Network interfaces that the agent uses."""
    trouble: str = ""
    """NIXL's error; empty if the agent was created."""


def probe_agent(env: Mapping[str, str]) -> AgentProbe:
    """Create an agent in a process with the environment *env*; takes 2 s, once per environment."""
    return _probe(tuple(sorted(env.items())))


@functools.cache
def _probe(env: tuple[tuple[str, str], ...]) -> AgentProbe:
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_SCRIPT)],
            env={**dict(env), "NIXL_LOG_LEVEL": "DEBUG"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return AgentProbe(trouble=f"the agent was not created within {_PROBE_S:g} s")
    except OSError as error:
        return AgentProbe(trouble=f"{sys.executable} cannot be started: {error.strerror}")
    return read_probe(done.stdout, done.returncode)


def read_probe(text: str, code: int) -> AgentProbe:
    """Parse the output of an agent's process.

    :param text: standard output and error.
    :param code: exit code.
    """
    if code:
        errors = _ERROR.findall(text)
        last = text.strip().rpartition("\n")[2]
        return AgentProbe(trouble=errors[0] if errors else last or f"exit code {code}")
    rails = list(_RAIL.finditer(text))
    if not rails:
        return AgentProbe(trouble="NIXL names no provider that it uses")
    interfaces = tuple(sorted({rail["device"] for rail in rails}))
    return AgentProbe(provider=rails[0]["provider"], interfaces=interfaces)
