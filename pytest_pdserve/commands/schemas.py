"""Generate the JSON schemas of stored files from their types: ``make schemas``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from pytest_pdserve.backends.registry import OWN
from pytest_pdserve.backends.registry import find_backend
from pytest_pdserve.results import kinds

FOLDER = Path(kinds.__file__).parent / "schema"


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of every kind of file by name.

    That of system files includes the tables of this package's backends; tables of other packages
    are validated by their own schema when a file is read.
    """
    generated = {kind.name: kind.schema() for kind in kinds.KINDS}
    system = generated[kinds.SYSTEM.name]
    for name in OWN:
        for table, kind in find_backend(name).tables.items():
            own = kinds.table_schema(kind)
            system["$defs"] |= own.pop("$defs")
            system["properties"][table] = {"$ref": own["$ref"]}
    return {name: _dedented(schema) for name, schema in generated.items()}


def _dedented(part: Any) -> Any:
    """Return *part* with descriptions dedented, as docstrings are in Python 3.13."""
    if isinstance(part, dict):
        return {
            key: inspect.cleandoc(value)
            if key == "description" and isinstance(value, str)
            else _dedented(value)
            for key, value in part.items()
        }
    return [_dedented(each) for each in part] if isinstance(part, list) else part


def write_schemas() -> None:
    """Write every schema to the package."""
    for name, schema in schemas().items():
        path = FOLDER / f"{name}.schema.json"
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    write_schemas()
