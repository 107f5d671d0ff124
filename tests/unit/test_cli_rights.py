"""What a verb says where the user lacks the rights."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aws_world import sesrelay
from sesrelay.cli.options import reason


def test_who_may_not_is_told_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(config))

    def refuse(*_: object, **__: object) -> None:
        raise denied

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert reason(denied) == f"{config}: Permission denied (run this as root: sudo)"
    assert reason(OSError(errno.ENOSPC, "No space left on device"), config) == f"{config}: No space left on device"
    monkeypatch.setattr(Path, "mkdir", refuse)
    said = sesrelay("init", "--yes", "--config", config)
    assert said.code == 1
    assert said.err.strip() == f"sesrelay: {config}: Permission denied (run this as root: sudo)"


def test_so_is_who_lists_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: object) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "listdir", refuse)
    said = sesrelay("site", "list", "--config", tmp_path / "config.yaml")
    assert (said.code, said.err) == (1, f"sesrelay: {tmp_path / 'sites.d'}: Permission denied (run this as root: sudo)\n")


def test_so_is_who_makes_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sesrelay.setup.dkim_key.write_key", refuse)
    said = sesrelay("dkim", "generate", "a.example", "--config", tmp_path / "config.yaml")
    assert said.code == 1
    assert said.err.endswith("sesrelay.a.example.pem: Permission denied (run this as root: sudo)\n")
