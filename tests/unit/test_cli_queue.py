"""`sesrelay queue` where there is nothing to look at, and what a person is told then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aws_world import Said, sesrelay
from somebody import UNNAMED, somebody
from spool_world import opened


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that other users can look into, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def config(folder: Path, more: str = "") -> Path:
    file = folder / "config.yaml"
    file.write_text(f"state_dir: {folder}/state\ncontrol: {folder}/control.sock\ndefault_route: {{reject: true}}\n{more}")
    file.chmod(0o644)
    return file


def queue(folder: Path, *args: str) -> Said:
    return sesrelay("queue", *args, "--config", folder / "config.yaml")


def make_queue(folder: Path) -> None:
    async def make() -> None:
        await (await opened(folder / "state")).close()

    asyncio.run(make())


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Be held to modes of files meanwhile, as root is not."""
    with somebody(UNNAMED) if os.geteuid() == 0 else contextlib.nullcontext():
        yield


def test_where_no_daemon_has_ever_run_there_is_no_queue_rather_than_an_empty_one(folder: Path) -> None:
    config(folder)
    said = queue(folder, "list")
    assert (said.code, said.out) == (0, "")
    assert f"there is no queue yet: state_dir {folder}/state does not exist" in said.err
    assert str(folder / "config.yaml") in said.err, "the configuration may be another one than the daemon's"
    assert "empty" not in said.err
    (folder / "state").mkdir()
    said = queue(folder, "list", "--state", "held")
    assert (said.code, said.out) == (0, "")
    assert said.err == f"sesrelay: there is no queue yet in {folder}/state: the daemon makes it when it first starts\n"
    for verb in (("summary",), ("show", "0" * 13), ("release", "--state", "held"), ("export", str(folder / "out"))):
        assert f"there is no queue yet in {folder}/state" in queue(folder, *verb).err


def test_without_a_queue_the_documents_are_whole_all_the_same(folder: Path) -> None:
    config(folder)
    listed, summed = queue(folder, "list", "--json"), queue(folder, "summary", "--json")
    assert (listed.code, listed.json) == (0, [])
    assert (summed.code, summed.json["messages"], summed.json["by_transport"]) == (0, 0, {})
    assert "there is no queue yet" in listed.err
    assert "there is no queue yet" in summed.err


def test_an_empty_queue_is_told_from_none(folder: Path) -> None:
    config(folder)
    make_queue(folder)
    said = queue(folder, "list")
    assert (said.code, said.out, said.err) == (0, "", "The queue is empty.\n")


def test_a_queue_that_is_not_for_this_user_says_what_to_do(folder: Path) -> None:
    config(folder)
    make_queue(folder)
    queue(folder, "list")  # imports all, which others could not read here
    for mode in (0o000, 0o555) if os.geteuid() else (0o700, 0o755):  # shut; to be looked into, and not to be locked
        (folder / "state").chmod(mode)
        with another_user():
            said = queue(folder, "list")
        (folder / "state").chmod(0o700)
        assert (said.code, said.out) == (75, "")
        assert f"{folder}/state" in said.err
        assert "ermission denied" in said.err
        assert "run this as root (sudo)" in said.err
        assert "while the daemon runs" in said.err
