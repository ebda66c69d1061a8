"""System files as text, read as the product reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pdserve.backends.systems import load_system
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

LEAST = """
schema_version = 1
description = "a machine"
[cluster]
kind = "local"
nodes = 2
gpus_per_node = 1
[model]
path = "m"
"""
"""The shortest system file; its last table is ``[model]``."""


def loaded(folder: Path, text: str, name: str = "mine") -> System:
    """Read *text* as the file of a system."""
    path = folder / name / "system.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return load_system(name, [folder])


def refused(folder: Path, text: str) -> str:
    """What is said of a system file of *text*; the file is named first."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    said = str(caught.value)
    assert said.startswith(str(folder / "mine" / "system.toml"))
    return said
