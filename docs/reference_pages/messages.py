"""Every message of an error and of a finding, read from the source that builds it."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest_pdserve
from docs.reference_pages.markdown import code
from docs.reference_pages.markdown import inline
from docs.reference_pages.markdown import table
from pytest_pdserve.values import errors

PACKAGE = Path(pytest_pdserve.__file__).parent
FINDINGS = {"invalid": "invalid", "unproven": "unproven", "note": "note"}
"""Functions of ``judge/`` that make a finding, with its severity."""
_HOLE = "…"
_SHORTEST = 12
"""Letters of constant text below which a message cannot be recognized."""
_GROUPS = (
    ("ConfigError", "PlacementError", "ClientUnusableError"),
    ("AllocationError",),
    ("LaunchError", "PortTakenError", "NotReadyError"),
    ("PathError", "TransferError"),
    ("ClientError", "StuckError", "InvalidRunError"),
    ("InstallError", "StoreError"),
)
_TITLES = (
    "Invalid input (exit code 4)",
    "Nodes (ERROR)",
    "Servers that do not start (ERROR)",
    "Requests and transfers (ERROR)",
    "Measurements (ERROR)",
    "Installing and storing",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message, by the call that makes it."""

    name: str
    """Of the error's class, or of the finding's function."""
    form: str
    """The text; ``…`` stands for a value."""
    module: str
    check: str = ""
    """Of a finding."""


@functools.cache
def messages() -> tuple[Message, ...]:
    """Return every message whose text stands in the call that makes it."""
    return tuple(_found())


def _found() -> Iterator[Message]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE).with_suffix(""))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (found := _message(node, module)) is not None:
                yield found


def _message(node: ast.Call, module: str) -> Message | None:
    func = node.func
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    is_finding = name in FINDINGS and module.startswith("judge/") and len(node.args) > 1
    if not is_finding and not any(name in group for group in _GROUPS):
        return None
    if not node.args:
        return None
    form = " ".join(text_form(node.args[1 if is_finding else 0]).split())
    if len([letter for letter in form if letter.isalpha()]) < _SHORTEST:
        return None
    check = text_form(node.args[0]) if is_finding else ""
    return Message(name=name, form=form, module=module, check=check)


def text_form(node: ast.expr) -> str:
    """Return the text of an expression; what is only known later is a hole."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_form, node.values)).replace(_HOLE * 2, _HOLE)
    if isinstance(node, ast.FormattedValue) and node.conversion == ord("r"):
        return f"'{_HOLE}'"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (text_form(node.left) + text_form(node.right)).replace(_HOLE * 2, _HOLE)
    return _HOLE


def messages_page() -> str:
    """Return the page of all messages."""
    found = sorted(messages(), key=lambda message: message.form.lstrip(f"{_HOLE}' :"))
    parts = [
        "# Messages\n",
        f"Every message of an error and of a finding whose text is built in one place, as the code has it; `{_HOLE}` stands for a "
        "value, such as a name, a file or a number. A message says what to do itself; "
        "[Troubleshooting by message](../troubles.md) has more about those that are met most, with examples.\n",
    ]
    for title, group in zip(_TITLES, _GROUPS, strict=True):
        docs = [inspect.getdoc(getattr(errors, name)) for name in group]
        modules: dict[str, list[str]] = {}
        for each in found:
            if each.name in group:
                modules.setdefault(each.form, []).append(each.module)
        rows = [[code(form), ", ".join(dict.fromkeys(where))] for form, where in modules.items()]
        parts += [f"## {title}\n", " ".join(map(inline, docs)) + "\n"]
        parts.append(table(("message", "built in"), rows))
    rows = [
        [code(each.form), code(each.check), FINDINGS[each.name]]
        for each in found
        if each.name in FINDINGS
    ]
    parts += [
        "## Findings\n",
        "What a [sanity check](../records.md#sanity-before-anyone-judges) says about a run.\n",
        table(("message", "check", "severity"), rows),
    ]
    return "\n".join(parts)
