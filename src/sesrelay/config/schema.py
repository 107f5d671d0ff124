"""The JSON Schema that editors use, made from the models: `python -m sesrelay.config.schema` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sesrelay.config.model import Config

SCHEMA_FILE = Path(__file__).with_name("schema.json")
_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}

_OPEN = ("default", "description", "title")


def schema() -> dict[str, Any]:
    """Return the schema. `${NAME}` may stand wherever a value that is no text may."""
    document = Config.model_json_schema(mode="validation")
    _untitle(document)
    for part in (document, *document["$defs"].values()):
        for key, value in part.get("properties", {}).items():
            part["properties"][key] = _with_variable(value)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "title": "sesrelay configuration",
        "type": ["object", "null"],
    }


def text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _with_variable(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type") not in ("integer", "number", "boolean") and "enum" not in value:
        return value
    outer = {key: value[key] for key in _OPEN if key in value}
    inner = {key: part for key, part in value.items() if key not in _OPEN}
    return {**outer, "anyOf": [inner, _VARIABLE]}


def _untitle(node: Any) -> None:
    """Drop the titles that pydantic derives from names: they repeat the key."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        for value in node.values():
            _untitle(value)
    elif isinstance(node, list):
        for value in node:
            _untitle(value)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(text(), encoding="utf-8")
