"""Having strace, and reading what it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import peers
from peers import Program


def strace() -> Program:
    """Return strace, whose libraries, where it is unpacked, are not those of what it starts."""
    program = peers.require("strace")
    return replace(program, first=("-E", "LD_LIBRARY_PATH")) if program.unpacked else program


def completed(trace: Path) -> Iterator[str]:
    """Yield calls in the order in which they returned, each in one line; `pid call(…) = result`."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>").rstrip()
        elif call.startswith("<... "):
            yield begun.pop(pid, "") + call.partition(">")[2]
        else:
            yield call
