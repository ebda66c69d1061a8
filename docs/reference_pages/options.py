"""Options and ini keys of pytest, markers and fixtures."""

from __future__ import annotations

import inspect
from typing import Any

from docs.reference_pages.markdown import code
from docs.reference_pages.markdown import inline
from docs.reference_pages.markdown import table
from pytest_pdserve.plugin import fixtures
from pytest_pdserve.plugin.markers import SIGNATURES
from pytest_pdserve.plugin.options import add_options


class _Recorder:
    """Stands for pytest's parser, and keeps what is added to it."""

    def __init__(self) -> None:
        self.options: list[tuple[str, dict[str, Any]]] = []
        self.keys: dict[str, tuple[str, str]] = {}

    def getgroup(self, *_: str) -> _Recorder:
        return self

    def addoption(self, name: str, **settings: Any) -> None:
        self.options.append((name, settings))

    def addini(self, name: str, text: str, *, type: str | None, default: Any) -> None:
        assert default is None, f"{name} has a default of its own"
        self.keys[name] = (text, type or "string")


def _key_of(option: str) -> str:
    name = option.removeprefix("--").replace("-", "_")
    return name if name.startswith("pdserve_") else f"pdserve_{name}"


def options_page() -> str:
    """Return the page of options and ini keys."""
    recorder = _Recorder()
    add_options(recorder)  # type: ignore[arg-type]
    rows = []
    twins = set()
    for name, settings in sorted(recorder.options):
        key = _key_of(name)
        twins.add(key)
        metavar = f" {settings['metavar']}" if "metavar" in settings else ""
        more = " May be given several times." if settings.get("action") == "append" else ""
        kind = recorder.keys[key][1]
        rows.append(
            [code(f"{name}{metavar}"), code(key), kind, f"{inline(settings['help'])}.{more}"]
        )
    others = [
        [code(key), kind, f"{inline(text)}."]
        for key, (text, kind) in sorted(recorder.keys.items())
        if key not in twins
    ]
    return f"""\
# Options and ini keys

Options of pytest, with the ini key that sets the default of each. Write ini keys into `pyproject.toml` below
`[tool.pytest.ini_options]`, or into `pytest.ini`. An option on the command line wins over its key.

{table(["option", "ini key", "type of the key", "meaning"], rows)}
Ini keys without an option of pytest:

{table(["ini key", "type", "meaning"], others)}
`--help`, `--collect-only`, `--setup-plan` and `--markers` start nothing. Invalid input ends the session with exit code 4 and one
sentence before anything starts.

A folder that an option names is relative to the working folder; one that an ini key names is relative to pytest's root. `baselines/`
and `runs/` lie in that root. `pdserve` finds the root and reads the ini keys as pytest does (`--rootdir`, `-c FILE`).
"""


def markers_page() -> str:
    """Return the page of markers and fixtures."""
    marker_rows = []
    for name, text in SIGNATURES.items():
        signature, _, meaning = text.partition(": ")
        assert signature.startswith(name)
        marker_rows.append([code(f"@pytest.mark.{signature}"), inline(meaning)])
    kind = type(fixtures.pdserve_run)
    found = {n: v for n, v in vars(fixtures).items() if isinstance(v, kind) and n[:1] != "_"}
    fixture_rows = []
    for name, value in sorted(found.items()):
        function = value._get_wrapped_function()  # noqa: SLF001 - no public way (pytest 9.2)
        text = inspect.getdoc(function) or ""
        fixture_rows.append([code(name), inline(text)])
    return f"""\
# Markers and fixtures

As `pytest --markers` and `pytest --fixtures` print them; [Fixtures, markers, and other plugins](../pytest.md) says what each
fixture starts and how they work with other plugins.

## Markers

{table(["marker", "meaning"], marker_rows)}
## Fixtures

{table(["fixture", "meaning"], fixture_rows)}"""
