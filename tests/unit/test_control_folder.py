"""A folder of exported messages, which may be one that others write to as well."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sesrelay.control import folder as files
from sesrelay.seams import Unfit


def test_what_others_left_under_a_name_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    theirs, folder = tmp_path / "theirs", tmp_path / "out"
    theirs.write_bytes(b"not ours")
    files.prepare(folder)
    (folder / ".Q1.eml.part").symlink_to(theirs)
    (folder / "Q1.eml").symlink_to(theirs)
    opened = folder / ".Q1.json.part"  # whoever made it reads on in what is written to it
    opened.touch(0o666)
    before = opened.stat().st_ino
    with opened.open("rb") as listening:
        files.write(folder, {"id": "Q1"}, b"the message")
        assert listening.read() == b""
    assert theirs.read_bytes() == b"not ours"
    assert files.read(folder / "Q1.json") == ({"id": "Q1"}, b"the message")
    assert (folder / "Q1.json").stat().st_ino != before
    assert {path.name for path in folder.iterdir()} == {"Q1.eml", "Q1.json"}
    assert {stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(("suffix", "what"), [(".json", "envelope"), (".eml", "content")])
def test_what_nobody_may_ever_write_into_is_not_waited_for(tmp_path: Path, suffix: str, what: str) -> None:
    files.write(tmp_path, {"id": "Q1"}, b"the message")
    fifo = tmp_path / f"Q1{suffix}"
    fifo.unlink()
    os.mkfifo(fifo)
    (envelope,) = files.messages([tmp_path])
    with pytest.raises(Unfit, match=f"its {what} cannot be read: it is not a file"):
        files.read(envelope)
