"""What is shipped beside the models keeps step with them: the schema, the example, the reference."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from sesrelay.config.explain import models_in
from sesrelay.config.loading import load
from sesrelay.config.model import Config
from sesrelay.config.part import Part
from sesrelay.config.schema import SCHEMA_FILE, schema, text

ROOT = Path(__file__).parents[2]


def models() -> set[type[Part]]:
    """Return every model that the configuration is made of."""
    found: set[type[Part]] = set()
    fresh: list[type[Part]] = [Config]
    while fresh:
        model = fresh.pop()
        found.add(model)
        parts = {part for field in model.model_fields.values() for part in models_in(field.annotation) if issubclass(part, Part)}
        fresh += parts - found
    return found


def test_the_models_are_all_found() -> None:
    names = {model.__name__ for model in models()}
    assert {"Config", "Listener", "User", "SesTransport", "DiscardTransport", "Route", "NullSenderTarget", "Expectation"} <= names


def test_every_key_is_documented_on_its_field() -> None:
    assert [f"{m.__name__}.{key}" for m in models() for key, field in m.model_fields.items() if not field.description] == []


def test_every_key_stands_in_the_reference() -> None:
    reference = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", reference, re.MULTILINE))
    keys = {key for model in models() for key in model.model_fields}
    assert keys - rows == {"type"}  # the types have headings of their own
    assert rows <= keys
    assert all(f"### `type: {kind}`" in reference for kind in ("ses", "smtp", "direct", "hold", "discard"))


def test_the_shipped_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == text(), "run python -m sesrelay.config.schema"


def test_the_example_is_a_configuration_with_expectations() -> None:
    loaded = load(ROOT / "config.example.yaml", environ={})
    assert len(loaded.config.expect) == 2
    assert loaded.routing.route("a@x.example.com").pattern == "*.example.com"


def test_the_example_names_the_schema() -> None:
    first = (ROOT / "config.example.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=src/sesrelay/config/schema.json"
    assert (ROOT / first.partition("$schema=")[2]) == SCHEMA_FILE


def test_what_the_example_leaves_in_comments_would_load(tmp_path: Path) -> None:
    text = (ROOT / "config.example.yaml").read_text(encoding="utf-8")
    block = re.search(r"^  # ses-smtp:.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    assert block
    (tmp_path / "c.yaml").write_text("transports:\n" + re.sub(r"^  # ", "  ", block.group(), flags=re.MULTILINE))
    (tmp_path / "ses-smtp.password").write_text("p")
    (tmp_path / "ses-smtp.password").chmod(0o600)
    assert "ses-smtp" in load(tmp_path / "c.yaml", environ={}).config.transports


def test_the_schema_takes_the_example_and_refuses_mistakes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    validator.check_schema(schema())
    example = yaml.safe_load((ROOT / "config.example.yaml").read_text(encoding="utf-8"))
    assert list(validator.iter_errors(example)) == []
    assert list(validator.iter_errors({"limits": {"recipients": "${N}"}, "queue": {"delay_warning": "off"}})) == []
    for bad in ({"hostnam": "x"}, {"limits": {"recipients": "many"}}, {"transports": {"a": {"type": "sess"}}}):
        assert list(validator.iter_errors(bad)) != []
