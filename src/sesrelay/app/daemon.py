"""The daemon: starts the rooms in order, reloads them, and lets them end in order.

Start: lock, sockets, store, page, ways out, what the last life left in doubt, doors, control socket, readiness.
End: doors (sessions finish what they are at), lanes (attempts finish), page and control, ways out, store, lock.

Invariant: a reload prepares everything before it swaps anything; what cannot be prepared leaves the old one in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesrelay import __version__
from sesrelay.app import opening, wiring
from sesrelay.app.clock import SystemClock
from sesrelay.app.notify import Systemd
from sesrelay.app.operator import undeliverable
from sesrelay.app.places import queue_of
from sesrelay.app.reloading import Prepared, needs_restart, prepared
from sesrelay.app.ways_out import Shared
from sesrelay.config.loading import Loaded, load
from sesrelay.config.problem import ConfigError
from sesrelay.control.desk import SpoolDesk
from sesrelay.control.server import ControlServer
from sesrelay.delivery.clock_watch import ClockWatch
from sesrelay.delivery.housekeeping import Housekeeping
from sesrelay.delivery.importing import Importer
from sesrelay.delivery.intake import Acceptance
from sesrelay.delivery.scheduler import Scheduler
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.listener import sockets
from sesrelay.listener.listening import ListenerServer
from sesrelay.listener.maildrop import Maildrop
from sesrelay.observe.events import LogSink
from sesrelay.observe.fanout import Fanout
from sesrelay.observe.log import configure
from sesrelay.observe.metrics import MetricsSink
from sesrelay.policy.budget import ByteBudget
from sesrelay.seams import Desk, Document, Observer, SpoolError, Transport, Verb
from sesrelay.spool.lock import StateLock
from sesrelay.spool.owner import anybodys
from sesrelay.spool.sqlite import SqliteSpool
from sesrelay.web.server import WebServer

SESSION_GRACE = 10.0  # seconds for SMTP transactions under way at the end
ATTEMPT_GRACE = 30.0  # seconds for attempts under way at the end
DROP_GRACE = 2.0  # seconds for files of the maildrop whose 250 has come to go
PING_TIME = 5.0  # seconds within which the store answers, or it is not ready


@dataclass(slots=True)
class _Rooms:
    """What `start` makes. Everything here ends in `stop`."""

    lock: StateLock
    spool: SqliteSpool
    scheduler: Scheduler
    listener: ListenerServer
    maildrop: Maildrop
    web: WebServer
    control: ControlServer
    control_socket: sockets.UnixListener
    tasks: list[asyncio.Task[None]]


class Daemon:
    """One life of the relay. `start`, any number of `reload`, `stop`. Runs on: one event loop."""

    def __init__(self, loaded: Loaded, path: Path | None) -> None:
        self._loaded = loaded
        self._path = path
        self._systemd = Systemd()
        self.clock = SystemClock()
        self._began = self.clock.wall()
        self._metrics = MetricsSink(self.clock)
        self.observer = Fanout(self._sinks(loaded))
        self._shared = Shared(self.clock, self.observer)
        self._options = wiring.listener_options(loaded)
        self._memory = ByteBudget(*wiring.memory(loaded))
        self._reloading = asyncio.Lock()
        self._rooms: _Rooms | None = None
        self._reload_waiting: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._stopping = False

    def _sinks(self, loaded: Loaded) -> list[Observer]:
        log = loaded.config.log
        return [LogSink(configure(format=log.format, level=log.level, clock=self.clock), self.clock), self._metrics]

    # --- start ---

    async def start(self, before_ready: Callable[[], None] = lambda: None) -> None:
        """Be ready to take mail on return. `before_ready` is called just before anybody is told so; a reload waits until then.

        Raises: LockHeld, StoreRefused, ListenError, OSError (PageUnreachable), ValueError; the process is to end then.
        """
        config = self._loaded.config
        lock = StateLock.acquire(config.state_dir)
        async with self._reloading:
            with contextlib.ExitStack() as made:  # the file of a Unix socket would stay, where the start fails
                doors = {listen: made.enter_context(sock) for listen, sock in opening.listeners(config, self.observer.trouble)}
                await self._open(lock, doors, made.enter_context(opening.control(config)))
                made.pop_all()
            before_ready()
            self._tell_ready()

    async def _open(self, lock: StateLock, doors: dict[str, socket.socket], control: sockets.UnixListener) -> None:
        config = self._loaded.config
        spool = await SqliteSpool.open(
            config.state_dir, clock=self.clock, on_trouble=self.observer.trouble,
            min_free_disk=config.limits.min_free_disk, lock=lock, apart=True,
        )  # fmt: skip
        snapshot = wiring.snapshot(self._loaded, self._shared)
        scheduler = Scheduler(spool, snapshot, self.clock, self.observer, self._memory)
        acceptance = Acceptance(spool, scheduler, self.clock, self.observer)
        importer = Importer(spool, spool, lambda: scheduler.snapshot, scheduler.pauses, self.clock, scheduler.stored)
        desk = SpoolDesk(
            spool, self.clock, scheduler.waits, self._queue_changed, scheduler.kept_back, scheduler.move, importer=importer.take,
            undeliverable=lambda: undeliverable(config),
        )  # fmt: skip
        listener = ListenerServer(
            acceptance, self.observer, lambda: self._options, memory=self._memory.incoming, scratch=spool.scratch
        )
        self._rooms = _Rooms(
            lock=lock,
            spool=spool,
            scheduler=scheduler,
            listener=listener,
            maildrop=Maildrop(listener, lambda: self._loaded.config.maildrop, spool.greetings, self.clock),
            web=self._web(self._loaded, desk, sockets.shown(next(iter(doors.values())))),
            control=ControlServer(queue_of(config), desk, self.observer, self.status, self.reload),
            control_socket=control,
            tasks=[],
        )
        self._expect(self._loaded, snapshot)
        self._tell_of_passed_over(self._loaded)
        await self._rooms.web.start()  # first: where its address is taken, no attempt is under way that the end would put in doubt
        for way in snapshot.transports.values():
            way.start()
        await scheduler.start()
        for name, sock in doors.items():
            await self._rooms.listener.listen(name, sock)
        await self._rooms.control.serve(control)
        housekeeping = Housekeeping(spool, scheduler, self.clock, self.observer)
        lasting = (
            housekeeping.run(),
            ClockWatch(spool, scheduler, self.clock, self.observer).run(),
            self._rooms.maildrop.run(),
            self._watchdog(),
        )
        self._rooms.tasks = [asyncio.create_task(work) for work in lasting]

    def _standing(self, problems: Sequence[str] = ()) -> str:
        """Return what `systemctl status` is to show."""
        taking = f"Taking mail on {', '.join(self._running().listener.listening)}"
        return f"{taking}; the last reload was refused: {' '.join(problems[0].split())}" if problems else taking

    def _tell_ready(self) -> None:
        rooms = self._running()
        self._systemd.tell(f"READY=1\nSTATUS={self._standing()}")
        self.observer.reloaded(True, "started")
        for problem in wiring.stale_certificates(self._loaded, self.clock.wall()):
            self.observer.trouble(problem)
        if anybodys(folder := self._loaded.config.state_dir):
            self.observer.trouble("every user of this machine may delete or replace queued mail", remedy=f"chmod o-w {folder}")
        self.observer.notice("ready", version=__version__, listeners=list(rooms.listener.listening), http=rooms.web.url)

    def _web(self, loaded: Loaded, desk: Desk, smtp: str) -> WebServer:
        return WebServer(
            desk=desk,
            metrics=self._metrics_text,
            ready=self.missing,
            counters=self._metrics.counters,
            clock=self.clock,
            options=wiring.web_options(loaded, smtp),
            started=self._began,
            standings=self._metrics.accounts,
        )

    def _expect(self, loaded: Loaded, snapshot: Snapshot) -> None:
        config = loaded.config
        self._metrics.expect(
            [listener.listen for listener in config.listeners],
            snapshot.transports,
            {rule.name: rule.transports for rule in loaded.routing.all_rules},
            [name for name in config.transports if name in snapshot.ladder.ses],
            wiring.tariffs(config.transports),
        )

    def _tell_of_passed_over(self, loaded: Loaded) -> None:
        for listen in loaded.passed_over:
            self.observer.notice("not listening: this machine has no IPv6", listener=listen)

    # --- what others ask ---

    def status(self) -> Document:
        """Tell of the daemon, for verbs."""
        rooms = self._running()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "listeners": rooms.listener.addresses(),
            "http": rooms.web.url,
            "in_flight": rooms.scheduler.in_flight,
        }

    @property
    def desk(self) -> Desk:
        return self._running().control.desk

    async def missing(self) -> list[str]:
        """Return what keeps the daemon from taking mail; empty: it is ready."""
        rooms, reasons = self._rooms, []
        if rooms is None or self._stopping:
            return ["stopping" if self._stopping else "starting"]
        if not rooms.listener.listening:
            reasons.append("no listener accepts connections")
        try:
            await asyncio.wait_for(rooms.spool.ping(), PING_TIME)
            rooms.spool.check_room()
        except TimeoutError:
            reasons.append("the queue does not answer")
        except SpoolError as error:
            reasons.append(f"the queue cannot be written: {error}")
        return reasons

    async def _metrics_text(self) -> bytes:
        rooms = self._running()
        try:
            stats = await rooms.spool.stats()
        except SpoolError as error:
            self.observer.trouble("the queue cannot be read for the metrics", error)
            stats = None
        return self._metrics.render(stats, self.clock.wall(), rooms.scheduler.paused())

    async def _queue_changed(self, verb: Verb) -> None:
        """Let the lanes take notice of what an operator changed; a retry says that the obstacle may be gone."""
        scheduler = self._running().scheduler
        if verb == "retry":
            scheduler.hurry()
        await scheduler.refresh()

    def _running(self) -> _Rooms:
        if self._rooms is None:
            raise RuntimeError("the daemon is not running")
        return self._rooms

    # --- reload ---

    def reload_soon(self) -> None:
        """Reload in the background, as SIGHUP asks; signals that come while one is waiting to begin are one with it."""
        if self._reload_waiting is None or self._reload_waiting.done():
            self._reload_waiting = asyncio.create_task(self._reload_by_signal())

    async def _reload_by_signal(self) -> None:
        async with self._reloading:
            self._reload_waiting = None
            await self._reload_and_tell()

    async def reload(self) -> Document:
        """Read the configuration anew and put it in force as a whole, or keep the old one and say why."""
        async with self._reloading:
            problems = await self._reload_and_tell()
        return {"ok": not problems, "problems": problems}

    async def _reload_and_tell(self) -> list[str]:
        self._systemd.tell(f"RELOADING=1\nMONOTONIC_USEC={int(self.clock.monotonic() * 1e6)}")
        try:
            problems = await self._reload()
        except Exception as error:  # a fault of ours: systemd, the metrics and who asked have to hear of it as of any other refusal
            self.observer.trouble("a reload failed", error)
            problems = ["it failed, and the log says why"]
        self._systemd.tell(f"READY=1\nSTATUS={self._standing(problems)}")
        self.observer.reloaded(not problems, "; ".join(problems) or "the new configuration is in force")
        return problems

    async def _reload(self) -> list[str]:
        rooms = self._running()
        if self._path is None:
            return ["there is no configuration file to read"]
        try:
            loaded = await asyncio.to_thread(load, self._path, now=self.clock.wall())
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        if self._stopping:  # also where that began meanwhile: the doors are closed, and would be opened anew
            return ["the daemon is stopping"]
        unfit = needs_restart(self._loaded, loaded)
        if unfit:
            return unfit
        try:
            async with prepared(loaded, rooms.listener.serving, self._shared) as new:
                if rooms.control_socket.lost:
                    rooms.control_socket = opening.control(loaded.config)
                    await rooms.control.serve(rooms.control_socket)
                await self._move_page(loaded, rooms)
        except (OSError, ValueError, sockets.ListenError) as error:
            return [str(error)]
        await self._swap(new, rooms)
        return []

    async def _swap(self, new: Prepared, rooms: _Rooms) -> None:
        loaded, snapshot = new.loaded, new.snapshot
        old = rooms.scheduler.snapshot
        for way in snapshot.transports.values():
            way.start()
        self._loaded, self._options = loaded, new.options
        self._memory.resize(*wiring.memory(loaded))
        self.observer.replace(self._sinks(loaded))
        wanted = {listener.listen for listener in loaded.config.listeners}
        for name in (set(rooms.listener.listening) - wanted) | new.doors.keys():
            rooms.listener.unlisten(name)
        for name, sock in new.doors.items():
            await rooms.listener.listen(name, sock)
        self._expect(loaded, snapshot)
        self._tell_of_passed_over(loaded)
        self._later(self._retire(rooms.scheduler, list(old.transports.values())))
        try:
            await rooms.scheduler.swap(snapshot)
        except SpoolError as error:
            self.observer.trouble("queued mail could not be re-routed now; it is re-routed at its next scheduled attempt", error)

    async def _move_page(self, loaded: Loaded, rooms: _Rooms) -> None:
        """Serve the page where the new configuration wants it, or leave it as it was. Raises: PageUnreachable, ValueError"""
        if loaded.config.http == self._loaded.config.http and loaded.config.hostname == self._loaded.config.hostname:
            return
        web = self._web(loaded, rooms.control.desk, loaded.config.listeners[0].listen)
        await web.take_over(rooms.web)
        self._later(rooms.web.stop())
        rooms.web = web

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Let what the former configuration leaves behind end by itself; `stop` waits for it."""
        task = asyncio.create_task(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, scheduler: Scheduler, transports: list[Transport]) -> None:
        """Close the ways out of the former configuration once their last attempt has ended."""
        await scheduler.retired(transports)
        for transport in transports:
            await transport.close()
        self._shared.retain(self._loaded.config.transports.values())

    # --- the end ---

    async def stop(self) -> None:
        """Finish what is under way within its time, hand the rest back to the store, and leave."""
        rooms = self._running()
        self._stopping = True
        self._systemd.tell("STOPPING=1")
        self.observer.notice("stopping", in_flight=rooms.scheduler.in_flight)
        rooms.maildrop.stop()
        await rooms.listener.drain(SESSION_GRACE)
        await rooms.maildrop.ended(DROP_GRACE)
        cut = await rooms.scheduler.drain(ATTEMPT_GRACE)
        for task in rooms.tasks:
            task.cancel()
        await asyncio.gather(*rooms.tasks, *self._retiring, return_exceptions=True)
        rooms.control.stop()
        await rooms.web.stop()
        for transport in rooms.scheduler.snapshot.transports.values():
            await transport.close()
        await self._shared.close()
        await rooms.spool.close()
        rooms.lock.release()
        self.observer.notice("stopped", cut=cut)

    async def _watchdog(self) -> None:
        """Tell the service manager that loop, writer and scheduler live, as often as it wants to hear it."""
        if not self._systemd.watchdog:
            return
        while True:
            try:
                # Not wait_for: that of Python 3.11 can lose a cancellation, and `stop` would wait for ever.
                async with asyncio.timeout(PING_TIME):
                    await self._running().scheduler.refresh()
            except TimeoutError as error:
                self.observer.trouble("the watchdog is not notified: the writer or the scheduler does not answer", error)
            except SpoolError as error:
                # A store that refuses is alive, and a full disk is nothing that a restart mends.
                self.observer.trouble("the queue cannot be read", error)
                self._systemd.tell("WATCHDOG=1")
            else:
                self._systemd.tell("WATCHDOG=1")
            await asyncio.sleep(self._systemd.watchdog / 3.0)
