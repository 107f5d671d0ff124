"""The examples of docs/direct.md are configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sesrelay.config.dkim_keys import generate
from sesrelay.config.loading import load

PAGE = (Path(__file__).parents[2] / "docs" / "direct.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- checked: (\w+) -->\n```yaml\n(.*?)```", PAGE, re.DOTALL))


def test_there_are_examples() -> None:
    assert {"dkim", "tls"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_taken(tmp_path: Path, name: str) -> None:
    for file in re.findall(r"key_file: ([\w.-]+)", EXAMPLES[name]):
        (tmp_path / file).write_bytes(generate("ed25519")[0])
        (tmp_path / file).chmod(0o640)
    (tmp_path / "config.yaml").write_text(EXAMPLES[name])
    load(tmp_path / "config.yaml", environ={})
