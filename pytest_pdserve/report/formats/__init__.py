"""What is said of a judged session, in one module for each format."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def formats() -> tuple[str, ...]:
    """Return the name of every format: a module of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def format_named(name: str) -> ModuleType:
    """Return the module of a format, which has ``render(judged)``; it returns the text."""
    return importlib.import_module(f"{__name__}.{name}")
