"""What a verb says where the user lacks the rights."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aws_world import sesrelay
from sesrelay.cli.options import reason
from somebody import UNNAMED, as_root, somebody


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


def test_what_is_to_be_imported_and_is_not_there_is_told_with_the_option_that_names_it(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    for verb, option, place in (
        ("postfix", "--main-cf", tmp_path / "main.cf"),
        ("ubos", "--folder", tmp_path / "sender_dependent_relayhost_map.d"),
    ):
        named = place if verb == "postfix" else tmp_path
        said = sesrelay("import", verb, option, named, "--config", config)
        assert said.code == 1
        assert said.err.startswith(f"sesrelay: nothing was imported: {place}: No such file or directory (use {option} ")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("{}\n", "to add a site: sesrelay site add"),
        ("a: [\n", "to see what is wrong with it: sesrelay check"),
        (None, "to see what is wrong"),
    ],
)
def test_init_over_a_configuration_says_what_else_there_is_to_do(content: str | None, hint: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    if content is None:
        config.mkdir()
    else:
        config.write_text(content)
    said = sesrelay("init", "--yes", "--config", config)
    assert said.code == 1
    assert said.err.startswith(f"sesrelay: {config} exists already (--force replaces it; {hint}")


@as_root
def test_init_over_a_configuration_that_is_not_for_the_user_is_no_wrong_command_line(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.touch(mode=0o600)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    with somebody(UNNAMED):
        said = sesrelay("init", "--yes", "--config", config)
        forced = sesrelay("init", "--yes", "--force", "--config", config)
    assert said.code == 1 and "to see what is wrong with it: sesrelay check" in said.err
    assert forced.code == 1 and f"{tmp_path}: Permission denied (run this as root: sudo)" in forced.err
