"""What becomes of output whose reader goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sesrelay.cli.options import Output


def test_what_nobody_reads_is_lost_and_what_is_read_again_is_not(tmp_path: Path) -> None:
    """As the log of a daemon, where what collects it from a FIFO is started anew."""
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with fifo.open("w", encoding="utf-8") as given:
        out = Output.instead_of(given)
        for line in ("one", "two", "three"):
            if line == "two":
                os.close(reader)
            if line == "three":
                reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            print(line, file=out, flush=True)
            if line != "two":
                assert os.read(reader, 100) == f"{line}\n".encode()
    os.close(reader)


@pytest.mark.parametrize("verb", [["--help"], ["route", "a@b.example", "--json"], ["check"]])
def test_what_could_not_be_written_is_named(verb: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("state_dir: state\ncontrol: state/control.sock\n")
    named = ["--config", str(tmp_path / "config.yaml")] if verb != ["--help"] else []
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sesrelay", *verb, *named],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, "sesrelay: standard output: No space left on device\n")


def test_where_nothing_can_be_written_at_all_the_exit_code_tells() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "sesrelay", "--help"], stdout=full, stderr=full, check=False, timeout=60)
    assert done.returncode == 1
