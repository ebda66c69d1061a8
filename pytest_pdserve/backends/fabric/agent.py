"""The smallest use of NIXL's LIBFABRIC backend: one agent is made and given up.

A script for a process of its own, whose environment is that of an instance: a library that is
missing, or a provider without a network interface, ends it with NIXL's own words on standard error.
"""

from __future__ import annotations

import os

from nixl._api import nixl_agent
from nixl._api import nixl_agent_config

if __name__ == "__main__":
    nixl_agent("pdserve", nixl_agent_config(backends=["LIBFABRIC"]))
    os._exit(0)  # libfabric's clean-up complains of endpoints that are open
