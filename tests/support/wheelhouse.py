"""Small stand-ins for the wheels that ``pdserve fabric install`` downloads, and pins of them."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

AGENT = """\
import sys

class nixl_agent_config:
    def __init__(self, backends):
        self.backends = backends

def nixl_agent(name, config):
    sys.stderr.write("I1128 07:31:39.427559 1 x.cpp:1] Created rail 0 (device=lo, provider=tcp)\\n")
"""
"""A NIXL that prints what the real one does, and no more."""
WITHOUT_PROVIDER = """\
import sys

nixl_agent_config = dict

def nixl_agent(name, config):
    sys.stderr.write("E1128 07:31:39.427559 1 x.cpp:68] fi_getinfo failed No data available\\n")
    raise RuntimeError("NIXL_ERR_BACKEND")
"""
"""A NIXL that finds no network interface."""
FI_INFO = "#!/bin/sh\necho 'libfabric: 2.2.0-impi'\n"
COMPILER = '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho stub > "$2"\n'
"""A compiler that makes an empty library."""
FAILING_COMPILER = "#!/bin/sh\necho 'cc: error: stdio.h is not there' >&2\nexit 1\n"


def program(path: Path, text: str) -> Path:
    """Write a program; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def contents(agent: str) -> dict[tuple[str, str], Mapping[str, str]]:
    """Files of each wheel, by name and version."""
    data = "impi_rt-2021.17.0.data/data"
    return {
        ("impi-rt", "2021.17.0"): {
            f"{data}/lib/libfabric.so.1": "fabric",
            f"{data}/lib/libtcp-fi.so": "tcp",
            f"{data}/lib/libmpi.so.12": "not taken",
            f"{data}/bin/libfabric/fi_info": FI_INFO,
            f"{data}/share/doc/mpi/licensing/license.txt": "licence",
        },
        ("nixl", "1.4.1"): {"nixl/__init__.py": "", "nixl/_api.py": agent},
        ("nixl-cu13", "1.4.1"): {
            "nixl_cu13/__init__.py": "",
            ".nixl_cu13.mesonpy.libs/plugins/libplugin_LIBFABRIC.so": "plugin",
            "nixl_cu13-1.4.1.data/headers/asio.hpp": "not taken",
        },
        ("nvidia-cuda-runtime", "13.0.96"): {"nvidia/cu13/lib/libcudart.so.13": "cudart"},
        ("tcmlib", "1.6.0"): {"tcmlib-1.6.0.data/data/lib/libhwloc.so.15": "hwloc"},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheelhouse:
    """A folder of wheels, and a requirements file that pins them."""

    wheels: Path
    requirements: Path


def build(folder: Path, *, agent: str = AGENT, altered: str = "") -> Wheelhouse:
    """Write the wheels and their pins.

    :param agent: source of ``nixl._api``.
    :param altered: package whose wheel is not the one that is pinned.
    """
    house = Wheelhouse(wheels=folder / "wheels", requirements=folder / "requirements.txt")
    house.wheels.mkdir(parents=True)
    lines = []
    for (name, version), files in contents(agent).items():
        path = house.wheels / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            archive.writestr(f"{info}/METADATA", about)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            for member, text in files.items():
                archive.writestr(member, text)
        digest = hashlib.sha256(path.read_bytes() + altered.encode() * (name == altered))
        lines.append(f"{name}=={version} --hash=sha256:{digest.hexdigest()}\n")
    house.requirements.write_text("".join(lines))
    return house
