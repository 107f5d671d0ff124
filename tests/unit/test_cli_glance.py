"""A glance at the configuration says what reading all of it says, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesrelay.cli import glance
from sesrelay.config.loading import load

SURE = [
    "control: /tmp/x/control.sock\n",
    "state_dir: /tmp\ncontrol:   /tmp/a.sock   # ours\nhostname: a.example.com\n",
]
LEFT = [
    "control: '/tmp/x.sock'\n",
    "control: ${SOCKET}\n",
    "control: relative.sock\n",
    "{control: /tmp/x.sock}\n",
    "local:\n  control: /tmp/x.sock\n",
    "# control: /tmp/y.sock\ncontrol: /tmp/x.sock\n",
    "control: /tmp/x.sock\ncontrol: /tmp/y.sock\n",
    "control: |\n  /tmp/x.sock\n",
]


@pytest.mark.parametrize("text", SURE)
def test_a_plain_path_is_seen(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    config.chmod(0o600)
    assert glance.control_socket(config) == load(config).config.control


@pytest.mark.parametrize("text", LEFT)
def test_all_else_is_left_to_the_whole_reading(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert glance.control_socket(config) is None


def test_where_nothing_is_said_the_default_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("hostname: a.example.com\n")
    monkeypatch.setattr(glance, "RUN_DIR", tmp_path / "run")
    assert glance.control_socket(config) is None, "then it is in state_dir"
    (tmp_path / "run").mkdir()
    assert glance.control_socket(config) == tmp_path / "run" / "control.sock"
    assert glance.control_socket(tmp_path / "missing") is None
