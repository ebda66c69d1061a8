"""The subcommands of ``pdserve`` and their options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from docs.reference_pages.markdown import code
from docs.reference_pages.markdown import inline
from docs.reference_pages.markdown import table
from pytest_pdserve.commands.main import subcommands


def commands_page() -> str:
    """Return the page of all subcommands."""
    modules = subcommands()
    rows = [
        [f"[`pdserve {name}`](#pdserve-{name})", f"{inline(module.TEXT)}."]
        for name, module in modules.items()
    ]
    parts = [
        "# Commands of `pdserve`\n",
        "`pdserve COMMAND --help` prints the same. What each ends with: [exit codes](results.md#exit-codes).\n",
        table(["command", "what it does"], rows),
    ]
    for name, module in modules.items():
        parser = argparse.ArgumentParser(prog=f"pdserve {name}", add_help=False)
        module.add_arguments(parser)
        text = getattr(module, "DESCRIPTION", module.TEXT)
        parts += _command(parser, text, depth=2)
    return "\n".join(parts)


def _command(parser: argparse.ArgumentParser, text: str, *, depth: int) -> Iterator[str]:
    """Yield the section of a command, then those of its steps."""
    yield f"{'#' * depth} {parser.prog}\n"
    yield f"{inline(text)}.\n"
    steps: dict[str, tuple[argparse.ArgumentParser, str]] = {}
    rows = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {each.dest: each.help for each in action._choices_actions}  # noqa: SLF001
            steps = {name: (sub, helps[name] or "") for name, sub in action.choices.items()}
        elif not isinstance(action, argparse._HelpAction):  # noqa: SLF001
            rows.append([code(_written(action)), _default(action), _meaning(parser, action)])
    if rows:
        yield table(["argument", "default", "meaning"], rows)
    for step, help_text in steps.values():
        yield from _command(step, step.description or help_text, depth=depth + 1)


def _written(action: argparse.Action) -> str:
    """Return an argument as it is written on a command line."""
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    if isinstance(value, tuple):
        value = " ".join(value)
    if action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return {"*": f"[{value} …]", "+": f"{value} …", "?": f"[{value}]"}.get(
            str(action.nargs), value
        )
    names = ", ".join(action.option_strings)
    return f"{names} {value}".rstrip()


def _default(action: argparse.Action) -> str:
    if action.required and action.option_strings:
        return "required"
    if action.default is None or action.default is False:  # a default of 0 is shown
        return ""
    if action.default in (argparse.SUPPRESS, []):
        return ""
    return code(action.default)


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    values = {**vars(action), "prog": parser.prog}
    return inline((action.help or "") % values)
