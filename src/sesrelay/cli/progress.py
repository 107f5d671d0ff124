"""How far a long operation is, on a terminal's stderr and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sesrelay.seams import Told

AT_ONCE = 2_000  # what is done before anybody could read it


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Told]:
    """Show a bar while the block runs, which tells `Told` of each step. `total`: what is to be looked at, None: unknown."""
    if not sys.stderr.isatty() or (total is not None and total <= AT_ONCE):
        yield lambda looked, changed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda looked, changed: bar.update(task, completed=looked, description=f"{label}: {changed:,} changed")
