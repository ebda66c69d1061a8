"""Formats of stored files."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

from docs.reference_pages.fields import fields_of
from docs.reference_pages.markdown import code
from docs.reference_pages.markdown import inline
from docs.reference_pages.markdown import table
from pytest_pdserve.results import kinds

SCHEMAS = Path(kinds.__file__).parent / "schema"


def schema_files() -> dict[str, str]:
    """Return the text of every JSON schema by its file's name."""
    return {path.name: path.read_text("utf-8") for path in sorted(SCHEMAS.glob("*.schema.json"))}


def formats_page() -> str:
    """Return the page of all file formats."""
    parts = [
        "# File formats\n",
        "Every stored file names its `schema_version`. A newer pytest-pdserve reads all older versions; an older one refuses a newer file "
        "in one sentence. Each schema is a JSON schema (draft 2020-12), generated from the code.\n",
        table(
            ["file", "version", "schema"],
            [
                [inline(kind.title), str(kind.version), f"[{kind.name}.schema.json]({_path(kind)})"]
                for kind in kinds.KINDS
            ],
        ),
    ]
    for kind in kinds.KINDS:
        parts += [f"## {kind.title[0].upper()}{kind.title[1:]}\n", _keys(kind)]
    return "\n".join(parts)


def _path(kind: kinds.Kind) -> str:  # type: ignore[type-arg]
    return f"schema/{kind.name}.schema.json"


def _keys(kind: kinds.Kind) -> str:  # type: ignore[type-arg]
    """Return the table of a file's keys, as its schema has them."""
    schema = json.loads((SCHEMAS / f"{kind.name}.schema.json").read_text("utf-8"))
    texts = {}
    if dataclasses.is_dataclass(kind.type):
        texts = {field.name: field for field in fields_of(kind.type)}
    required = set(schema.get("required", ()))
    rows = []
    for name in schema["properties"]:
        field = texts.get(name)
        if name == "schema_version":
            rows.append([code(name), code(kind.version), "yes", "Version of the file's format."])
        elif field is not None:
            needed = "yes" if name in required else ""
            rows.append([code(name), field.kind, needed, inline(field.text)])
        else:
            rows.append([code(name), "", "yes" if name in required else "", ""])
    intro = f"{inline(inspect.getdoc(kind.type))}\n\n"
    return intro + table(["key", "type", "required", "meaning"], rows)
