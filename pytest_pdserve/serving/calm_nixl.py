"""vLLM plugin for machines with few cores: NIXL's progress thread sleeps between polls.

NIXL's Python API sets ``pthrDelay = 0`` (``nixl/_api.py``, 0.10.1 to 1.5.1), so the progress thread
of every agent polls without pause and takes a whole core. vLLM loads this in each process of an
instance (``vllm.general_plugins``); it has an effect only if a system file sets the variable, which
only systems on one machine do.
"""

from __future__ import annotations

import os
from typing import Any

VARIABLE = "PDSERVE_NIXL_PROGRESS_DELAY_US"
"""Microseconds between polls; unset leaves NIXL as it is."""


def register() -> None:
    """Apply the delay of the environment to every NIXL agent of this process."""
    delay = os.environ.get(VARIABLE)
    if delay is None:
        return
    try:
        from nixl._api import nixlBind
    except ImportError:
        return
    set_poll_delay(nixlBind, int(delay))


def set_poll_delay(bindings: Any, delay_us: int) -> None:
    """Make ``bindings.nixlAgent`` poll every *delay_us*; a second call changes nothing."""
    make_agent = bindings.nixlAgent
    if getattr(make_agent, "pdserve_delay_us", None) is not None:
        return

    def nixl_agent(name: str, config: Any) -> Any:
        if hasattr(config, "pthrDelay"):  # NIXL 0.10.1 has no such setting
            config.pthrDelay = delay_us
        return make_agent(name, config)

    nixl_agent.pdserve_delay_us = delay_us  # type: ignore[attr-defined]
    bindings.nixlAgent = nixl_agent
