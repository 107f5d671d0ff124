"""What becomes of output whose reader goes."""

from __future__ import annotations

import os
from pathlib import Path

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
