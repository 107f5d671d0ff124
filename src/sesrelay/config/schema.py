"""The JSON Schema that editors use, made from the models: `python -m sesrelay.config.schema` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sesrelay.config.model import Config

SCHEMA_FILE = Path(__file__).with_name("schema.json")
_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}
_AROUND = ("default", "description")
_SIZE_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TIME_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def schema() -> dict[str, Any]:
    """Return the schema. `${NAME}` may stand wherever a value that is no text may."""
    document = Config.model_json_schema(mode="validation")
    _untitle(document)
    for part in (document, *document["$defs"].values()):
        for key, value in part.get("properties", {}).items():
            _write_default(key, value)
            part["properties"][key] = _with_variable(value)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "title": "sesrelay configuration",
        "type": ["object", "null"],
    }


def text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _write_default(key: str, value: dict[str, Any]) -> None:
    """Put the default as people write it; drop one that says nothing: null, empty text, a whole section."""
    default = value.pop("default", None)
    if default is None and {"const": "auto"} in value.get("anyOf", []):
        value["default"] = "auto"
    elif default not in (None, "") and not (isinstance(default, dict) and default):
        value["default"] = as_written(key, default)


def as_written(key: str, value: Any) -> Any:
    """Return the default of a key as people write it: `25MiB`, `4h`, `100%`, `auto`."""
    if key in ("message_size", "memory", "min_free_disk"):
        return _in_units(value, _SIZE_UNITS, "B")
    if key in ("retry", "max_age", "delay_warning", "keep_delivered", "command_timeout", "failover_after"):
        return (
            [_in_units(one, _TIME_UNITS, "s") for one in value] if isinstance(value, list) else _in_units(value, _TIME_UNITS, "s")
        )
    if key in ("share", "daily_reserve"):
        return f"{value:.0%}"
    return value


def _in_units(value: float, units: tuple[tuple[int, str], ...], smallest: str) -> str:
    for size, unit in units:
        if value >= size and value % size == 0:
            return f"{value / size:.0f}{unit}"
    return f"{value:.0f}{smallest}"


def _with_variable(value: dict[str, Any]) -> dict[str, Any]:
    if value.get("type") not in ("integer", "number", "boolean") and "enum" not in value:
        return value
    outer = {key: value[key] for key in _AROUND if key in value}
    inner = {key: part for key, part in value.items() if key not in _AROUND}
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
