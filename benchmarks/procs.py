"""What a tree of processes costs, read from /proc: CPU time and memory that is really its own.

Invariant: reads only; Linux only. CPU of children that have ended and were waited for counts with their parent.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """Return `root` and all processes under it that live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu(root: int) -> float:
    """Return CPU seconds that the tree has used, those of its waited-for dead included."""
    total = 0
    for pid in tree(root):
        fields = _stat(pid)
        total += sum(map(int, fields[11:15])) if fields else 0
    return total / TICK


def pss(root: int) -> float:
    """Return the tree's proportional set size: shared pages divided among those that share. Units: MiB."""
    total = 0
    for pid in tree(root):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def resident(root: int, what: str) -> float:
    """Return the tree's resident memory: `VmRSS` now, `VmHWM` at most; what is shared counts with each that has it. Units: MiB."""
    lines = [line for pid in tree(root) for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024


class PeakMemory:
    """Samples a tree's PSS while the body of `with` runs; `mib` is the highest seen."""

    def __init__(self, root: int, every: float = 0.25) -> None:
        self.mib = 0.0
        self._root, self._every = root, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while True:
            self.mib = max(self.mib, pss(self._root))
            if self._stop.wait(self._every):
                return

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.mib = max(self.mib, pss(self._root))


def _stat(pid: int) -> list[str] | None:
    """Return /proc/PID/stat from the state on (the name before it may hold anything)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
