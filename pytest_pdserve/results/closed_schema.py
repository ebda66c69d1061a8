"""JSON schemas that reject unknown keys, and whose errors name what was expected."""

from __future__ import annotations

from typing import Any


def closed(schema: Any) -> Any:
    """Return *schema* with unknown keys forbidden, and alternatives that errors can name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(each) for key, each in schema.items() if key != "default"}
    if "properties" in result:
        result["additionalProperties"] = False
    several = result.pop("anyOf", None)
    return result if several is None else {**result, **_one_of(several)}


def _one_of(several: list[Any]) -> dict[str, Any]:
    """Return alternatives whose error names the expected one, not 'not valid under any'."""
    null = {"type": "null"}
    plain = [each for each in several if each != null]
    types = [each["type"] for each in plain if isinstance(each.get("type"), str)]
    if all(each == {"type": each.get("type")} for each in plain):
        return {"type": [*types, *(["null"] if null in several else [])]}
    if null in several:
        if len(plain) == 1 and types:
            return {**plain[0], "type": [types[0], "null"]}
        return {"if": null, "then": True, "else": _one_of(plain)}
    if len(plain) == 1:
        return dict(plain[0])
    first = next((e for e in plain if "$ref" in e), None) or next(e for e in plain if "enum" in e)
    rest = [each for each in plain if each is not first]
    of_type = {"type": "object" if "$ref" in first else "string"}
    return {"if": of_type, "then": first, "else": _one_of(rest)}
