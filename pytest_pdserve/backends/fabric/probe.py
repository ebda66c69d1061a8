"""Whether NIXL's LIBFABRIC backend can be used, and over what: asked of NIXL, not assumed."""

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
"""How NIXL 1.4 tells, at level DEBUG, what it will use."""
_ERROR = re.compile(r"^E\d{4} \S+ +\d+ \S+\] (?P<text>.+)", re.MULTILINE)
"""An error of NIXL's own log; the first is what the others follow from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProbe:
    """What became of a NIXL agent with LIBFABRIC."""

    provider: str = ""
    """libfabric's provider, e.g. ``tcp``."""
    interfaces: tuple[str, ...] = ()
    """Network interfaces that it uses."""
    trouble: str = ""
    """Why there is no agent, in NIXL's words; empty if there is one."""


def probe_agent(env: Mapping[str, str]) -> AgentProbe:
    """Make an agent in a process with the environment *env*, once for each environment: 2 s."""
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
        return AgentProbe(trouble=f"the agent was not there after {_PROBE_S:g} s")
    except OSError as error:
        return AgentProbe(trouble=f"{sys.executable} cannot be started: {error.strerror}")
    return read_probe(done.stdout, done.returncode)


def read_probe(text: str, code: int) -> AgentProbe:
    """Return what an agent's process printed.

    :param text: its standard output and error.
    :param code: its exit code.
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
