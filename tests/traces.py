"""Reading what strace wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


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
