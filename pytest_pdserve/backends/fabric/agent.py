"""Creates one NIXL agent with the LIBFABRIC backend, and exits.

A script that runs in a separate process with the environment of an instance. If a library is
missing, or the provider has no network interface, it fails with NIXL's error on standard error.
"""

from __future__ import annotations

import os

from nixl._api import nixl_agent
from nixl._api import nixl_agent_config

if __name__ == "__main__":
    nixl_agent("pdserve", nixl_agent_config(backends=["LIBFABRIC"]))
    os._exit(0)  # libfabric's clean-up reports open endpoints as errors
