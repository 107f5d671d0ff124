"""How far a long operation is, on a terminal's stderr and nowhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sesrelay.seams import Desk, Filter, Told

SHOWN_AFTER = 0.5  # seconds; what is done by then, nobody needs a bar for


@contextmanager
def progress(label: str, total: int | None, done: str = "changed") -> Iterator[Told]:
    """Show a bar while the block runs, which tells `Told` how much it has looked at, and `done`.

    `total`: what is to be looked at; None: nobody knows.
    """
    if not sys.stderr.isatty():
        yield lambda looked, changed: None
        return
    began = time.monotonic()
    bar: Told | None = None
    with ExitStack() as shown:

        def told(looked: int, changed: int) -> None:
            nonlocal bar
            if bar is None:
                if time.monotonic() - began < SHOWN_AFTER:
                    return
                bar = shown.enter_context(_bar(label, total, done))
            bar(looked, changed)

        yield told


async def with_progress(desk: Desk, verb: str, wanted: Filter, work: Callable[[Told], Any]) -> Any:
    """Run a change of the queue under a bar and return what it does.

    What has the state and the transport is looked at, and counted beforehand unless it has ended.
    """
    counted = not wanted.ids and not any(state.final for state in wanted.states) and sys.stderr.isatty()
    total = _to_look_at(wanted, (await desk.summary())["by_transport"]) if counted else None
    with progress(verb, total) as told:
        return await work(told)


def _to_look_at(wanted: Filter, by_transport: dict[str, dict[str, int]]) -> int:
    names = [state.value for state in wanted.states]
    found = (counts for name, counts in by_transport.items() if wanted.transport in (None, name))
    return sum(n for counts in found for state, n in counts.items() if not names or state in names)


@contextmanager
def _bar(label: str, total: int | None, done: str) -> Iterator[Told]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda looked, changed: bar.update(task, completed=looked, description=f"{label}: {changed:,} {done}")
