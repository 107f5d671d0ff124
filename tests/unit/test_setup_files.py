"""Several files that are written together: all new or all old, whatever happens between two of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sesrelay.cli.options import reason
from sesrelay.setup import files
from sesrelay.setup.files import PENDING, NewFile, finish_interrupted, write_files, write_new

NAMES = ("a.secret", "b.secret", "config.yaml")
KILLED = """
import os, signal, sys
from pathlib import Path
from sesrelay.setup.files import NewFile, write_files
folder, when, replace, done = Path(sys.argv[1]), int(sys.argv[2]), Path.replace, []
def killed(self, target):
    if len(done) == when:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(target)
    return replace(self, target)
Path.replace = killed
write_files([NewFile(folder / name, f"new {name}", folder / "config.yaml") for name in ("a.secret", "b.secret", "config.yaml")])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.secret", "config.yaml"):  # b.secret is new
        (tmp_path / name).write_text(f"old {name}")
        (tmp_path / name).chmod(0o640)
    return tmp_path


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


OLD = {"a.secret": "old a.secret", "config.yaml": "old config.yaml"}
NEW = {name: f"new {name}" for name in NAMES}


@pytest.mark.parametrize("when", [0, 1, 2])
def test_an_error_leaves_all_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    replace, done = Path.replace, []

    def full(self: Path, target: Path) -> Path:
        if len(done) == when:
            done.append(target)
            raise OSError(28, "No space left on device", str(self))
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_files([NewFile(folder / name, f"new {name}", folder / "config.yaml") for name in NAMES])
    assert content(folder) == OLD


def test_an_error_names_what_people_know_of(folder: Path) -> None:
    """And not the file beside it, by whose name nobody can do anything."""
    with pytest.raises(OSError, match="No such file") as caught:
        write_files([NewFile(folder / "none" / "a", "text", folder)])
    assert reason(caught.value) == f"{folder / 'none'}: No such file or directory"
    (folder / "there").mkdir()
    with pytest.raises(OSError, match="Is a directory") as caught:
        write_files([NewFile(folder / "there", "text", folder)])
    assert reason(caught.value) == f"{folder / 'there'}: Is a directory"


@pytest.mark.parametrize("when", [0, 1, 2])
def test_what_a_killed_process_began_is_ended(folder: Path, when: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, folder, str(when)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(finish_interrupted(folder)) == 3 - when
    assert content(folder) == NEW
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    assert finish_interrupted(folder) == []


def test_what_was_changed_since_stays(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, folder, "1"], check=False)
    (folder / "config.yaml").write_text("by hand")
    finish_interrupted(folder)
    assert content(folder) == {**NEW, "config.yaml": "by hand"}


def test_what_was_left_long_ago_goes_at_the_next_write(folder: Path) -> None:
    for name in (".a.secret.abcdefgh", ".a.secret.ijklmnop.old", ".a.secret.qrstuvwx"):
        (folder / name).write_text("forgotten")
    long_ago = time.time() - files.FORGOTTEN - 1
    for name in (".a.secret.abcdefgh", ".a.secret.ijklmnop.old"):
        os.utime(folder / name, (long_ago, long_ago))
    write_files([NewFile(folder / "a.secret", "new", folder / "config.yaml")])
    assert content(folder) == {**OLD, "a.secret": "new", ".a.secret.qrstuvwx": "forgotten"}
    assert not (folder / PENDING).exists()


def test_a_new_file_is_on_the_disk_before_it_has_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def synced(handle: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "content")
        fsync(handle)

    def named(old: Path, new: Path) -> None:
        steps.append("name")
        link(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", named)
    write_new(NewFile(folder / "b.secret", "new", folder / "config.yaml"))
    assert steps == ["content", "name", "folder"]
    assert content(folder) == {**OLD, "b.secret": "new"}


def test_a_new_file_takes_no_others_place(folder: Path) -> None:
    (folder / "link.secret").symlink_to("nowhere")
    for name in ("a.secret", "link.secret"):
        with pytest.raises(FileExistsError):
            write_new(NewFile(folder / name, "new", folder / "config.yaml"))
    assert sorted(path.name for path in folder.iterdir()) == ["a.secret", "config.yaml", "link.secret"]
    assert (folder / "a.secret").read_text() == "old a.secret"
