"""A coroutine without a task: what wakes it, and that what is cancelled ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from batches import eventually
from sesrelay.listener.steps import INPUT, Steps


class Work:
    """Notes how far it came; waits for input, then for `future`, then for input again."""

    def __init__(self, future: asyncio.Future[str]) -> None:
        self.future = future
        self.came: list[str] = []
        self.ends: list[BaseException | None] = []
        self.steps = Steps(self.run(), asyncio.get_running_loop(), self.ends.append, self.ready)

    def ready(self) -> None:
        self.steps.go_on()

    async def run(self) -> None:
        try:
            await INPUT
            self.came.append("input")
            self.came.append(await self.future)
            await INPUT
            self.came.append("more")
        except asyncio.CancelledError:
            self.came.append("cancelled")
            raise


@pytest.fixture
async def work() -> Work:
    return Work(asyncio.get_running_loop().create_future())


async def test_input_is_taken_in_the_callback_that_brings_it(work: Work) -> None:
    work.steps.start()
    assert work.came == []
    work.steps.go_on()
    assert work.came == ["input"]
    work.steps.go_on()  # it waits for something else now
    work.future.set_result("result")
    await asyncio.sleep(0)
    assert work.came == ["input", "result"]
    work.steps.go_on()
    assert (work.came[-1], work.ends, work.steps.done) == ("more", [None], True)


@pytest.mark.parametrize("stage", ["input", "future"])
async def test_what_is_cancelled_where_it_waits_ends_there(work: Work, stage: str) -> None:
    work.steps.start()
    if stage == "future":
        work.steps.go_on()
    work.steps.cancel()
    await asyncio.sleep(0)
    assert (work.came[-1], work.steps.done) == ("cancelled", True)
    assert [type(end) for end in work.ends] == [asyncio.CancelledError]


@pytest.mark.parametrize("failed", [False, True])
async def test_a_result_that_comes_first_does_not_undo_the_cancellation(work: Work, failed: bool) -> None:
    work.steps.start()
    work.steps.go_on()
    if failed:
        work.future.set_exception(OSError("unheard"))
    else:
        work.future.set_result("result")
    work.steps.cancel()  # the future is done, and its callback has not run
    await asyncio.sleep(0)
    assert work.came == ["input", "cancelled"]
    assert work.steps.done


async def test_an_error_ends_it_and_is_told(work: Work) -> None:
    work.steps.start()
    work.steps.go_on()
    work.future.set_exception(OSError("heard"))
    await asyncio.sleep(0)
    assert [str(error) for error in work.ends] == ["heard"]


@pytest.mark.parametrize("awaited", ["input", "future", "future that is done", "thread"])
async def test_nothing_that_the_work_held_outlives_its_cancellation(awaited: str) -> None:
    class Held:
        """As a file that stays on the disk for as long as anybody holds it."""

    loop = asyncio.get_running_loop()
    future, go_on = loop.create_future(), threading.Event()

    async def run(held: Held) -> None:
        if awaited == "input":
            await INPUT
        elif awaited == "thread":
            await asyncio.to_thread(lambda: go_on.wait(5.0) and held)
        else:
            await future

    def ready() -> None:
        steps.go_on()

    held = Held()
    gone, steps = weakref.ref(held), Steps(run(held), loop, lambda error: None, ready)
    del held
    gc.collect()
    gc.disable()
    try:
        steps.start()
        if awaited == "future that is done":
            future.set_result(None)
        steps.cancel()
        go_on.set()
        await eventually(lambda: steps.done and gone() is None)
    finally:
        gc.enable()
