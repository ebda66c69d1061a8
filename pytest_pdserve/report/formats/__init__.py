"""The verdicts of a judged session, in one module for each format."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

_NOT_FORMATS = ("markdown_text",)


def formats() -> tuple[str, ...]:
    """Return the name of every format: a module of this folder."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if name not in _NOT_FORMATS))


def format_named(name: str) -> ModuleType:
    """Return the module of a format, which has ``render(judged)``; it returns the text."""
    return importlib.import_module(f"{__name__}.{name}")
