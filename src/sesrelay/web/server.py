"""The HTTP server: health, readiness, metrics, JSON and pages on one address.

Invariant: every route is GET (and HEAD) and changes nothing.
Invariant: off loopback it does not start without a token.
Invariant: what is made of many messages lets others of the loop go between two: each may have a thousand recipients.

Source: the public contract, HTTP and JSON.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from sesrelay.policy.reputation import AccountStanding
from sesrelay.seams import Clock, Desk, SpoolError
from sesrelay.web import accounts, view
from sesrelay.web.guard import add_headers, known_hosts, token_holders
from sesrelay.web.options import PageUnreachable, WebOptions, show_address
from sesrelay.web.pages import ASSETS, Pages
from sesrelay.web.visitors import MOST, Visitors

RECENT = 50
RECENT_MAX = 200
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
STOP_TIME = 2.0  # seconds for answers under way when the server stops

_log = logging.getLogger(__name__)
# What is no HTTP is the client's fault and fills no log; faults of ours are logged by `_faults`.
_protocol_log = logging.getLogger(f"{__name__}.protocol")
_protocol_log.setLevel(logging.CRITICAL)

Metrics = Callable[[], Awaitable[bytes]]
Ready = Callable[[], Awaitable[list[str]]]
Counters = Callable[[], Mapping[str, int]]
Standings = Callable[[], Mapping[str, AccountStanding]]


class WebServer:
    """Serves what `desk`, `metrics`, `ready` (what is missing; empty: ready), `counters` (since the start) and `standings` (of the
    SES account behind each transport) tell.

    `started`: when the relay began, in Unix seconds; None: now.
    Raises: ValueError off loopback without a token.
    """

    def __init__(
        self,
        *,
        desk: Desk,
        metrics: Metrics,
        ready: Ready,
        counters: Counters,
        clock: Clock,
        options: WebOptions,
        started: float | None = None,
        standings: Standings | None = None,
    ) -> None:
        if not options.on_loopback and not options.token:
            raise ValueError(f"HTTP on {show_address(options.host, options.port)} is not on loopback and requires a token")
        self._desk, self._metrics, self._ready, self._counters = desk, metrics, ready, counters
        self._clock, self._options = clock, options
        self._standings: Standings = standings or dict
        self._pages = Pages(clock.wall() if started is None else started)
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        self._visitors: Visitors | None = None
        self.address = (options.host, options.port)

    @property
    def url(self) -> str:
        """The address as a URL; the port is the actual one once started."""
        return f"http://{show_address(*self.address)}/"

    async def start(self) -> None:
        """Listen. Raises: PageUnreachable where the address is taken or not ours."""
        options, visitors = self._options, Visitors()
        app = self._app(visitors)
        runner = web.AppRunner(app, access_log=None, logger=_protocol_log, handle_signals=False, shutdown_timeout=STOP_TIME)
        await runner.setup()
        assert runner.server is not None
        visitors.serve(runner.server)
        try:
            listening = await asyncio.get_running_loop().create_server(visitors, options.host, options.port, backlog=MOST)
        except OSError as error:
            visitors.stop()
            await runner.cleanup()
            where = show_address(options.host, options.port)
            remedy = (
                "stop the program that listens there, or change http.listen"
                if error.errno == errno.EADDRINUSE
                else "change http.listen"
            )
            raise PageUnreachable(f"cannot listen on {where} for HTTP: {error.strerror or error}; {remedy}") from error
        self._runner, self._listening, self._visitors = runner, listening, visitors
        host, port = listening.sockets[0].getsockname()[:2]
        self.address = (str(host), int(port))

    async def take_over(self, old: WebServer) -> None:
        """Listen instead of `old`, which is then to be stopped, or leave it serving. Raises: PageUnreachable"""
        stays = (old._options.host, old._options.port) == (self._options.host, self._options.port)
        if stays:  # nobody else can have the address meanwhile but by bad luck
            await old.stop()
        try:
            await self.start()
        except PageUnreachable:
            if stays:
                await old.start()
            raise

    async def stop(self) -> None:
        """Finish what is being answered, and close. Doing so twice is harmless."""
        runner, self._runner = self._runner, None
        if runner is not None and self._listening is not None and self._visitors is not None:
            self._listening.close()
            self._visitors.stop()
            await runner.cleanup()

    def _app(self, visitors: Visitors) -> web.Application:
        app = web.Application(middlewares=[visitors.heard, known_hosts(self._options), token_holders(self._options), self._faults])
        app.on_response_prepare.append(add_headers)
        app.add_routes(
            [
                web.get("/", self._status),
                web.get("/messages/{id}", self._message),
                web.get("/static/{name}", self._asset),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics_text),
                web.get("/api/v1/summary", self._api_summary),
                web.get("/api/v1/recent", self._api_recent),
                web.get("/api/v1/accounts", self._api_accounts),
                web.get("/api/v1/messages/{id}", self._api_message),
                web.get("/api/v1/trace/{id:.+}", self._api_trace),
            ]
        )
        return app

    @web.middleware
    async def _faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn a fault of ours into an answer without its inside."""
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except SpoolError as error:
            _log.error("%s: the store could not be read: %s", request.path, error)
            return self._problem(
                request, 503, "The queue cannot be read", "The queue database does not answer; the log says why. Try again."
            )
        except Exception:
            _log.exception("%s failed", request.path)
            return self._problem(request, 500, "Internal error", "This is a fault of the relay; the log has the details.")

    def _problem(self, request: web.Request, status: int, title: str, text: str) -> web.Response:
        if request.path == "/" or request.path.startswith("/messages/"):
            return self._html(self._pages.problem(self._options, self._clock.wall(), title, text), status)
        return web.json_response({"error": title}, status=status)

    @staticmethod
    def _html(text: str, status: int = 200) -> web.Response:
        return web.Response(body=text.encode("utf-8", "replace"), content_type="text/html", charset="utf-8", status=status)

    # --- machines ---

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        missing = await self._missing()
        return web.json_response({"ready": not missing, "missing": missing}, status=503 if missing else 200)

    async def _missing(self) -> list[str]:
        try:
            return list(await self._ready())
        except Exception as error:  # a check that cannot be made is not passed
            _log.error("readiness could not be determined: %s", error)
            return ["readiness could not be determined"]

    async def _metrics_text(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._metrics(), headers={"Content-Type": PROMETHEUS})

    async def _api_summary(self, _: web.Request) -> web.Response:
        return web.json_response(await self._desk.summary())

    async def _api_accounts(self, _: web.Request) -> web.Response:
        return web.json_response(accounts.documents(self._standings()))

    async def _api_recent(self, request: web.Request) -> web.Response:
        given = request.query.get("limit", str(RECENT))
        if not (given.isascii() and given.isdigit() and len(given) <= 9 and 1 <= int(given) <= RECENT_MAX):
            return web.json_response({"error": f"limit must be a number from 1 to {RECENT_MAX}"}, status=400)
        parts = []
        for document in await self._desk.recent(int(given)):
            parts.append(json.dumps(document))
            await asyncio.sleep(0)
        return web.Response(text=f"[{', '.join(parts)}]", content_type="application/json")

    async def _api_message(self, request: web.Request) -> web.Response:
        found = await self._desk.show(request.match_info["id"])
        if found is None:
            return web.json_response({"error": "no such message"}, status=404)
        return web.json_response(found)

    async def _api_trace(self, request: web.Request) -> web.Response:
        return web.json_response(await self._desk.trace(request.match_info["id"]))

    # --- people ---

    async def _status(self, _: web.Request) -> web.Response:
        summary = await self._desk.summary()
        rows, now = [], self._clock.wall()
        for document in await self._desk.recent(RECENT):
            rows.append(view.row(document, now))
            await asyncio.sleep(0)
        return self._html(
            self._pages.status(
                self._options,
                now,
                summary=summary,
                rows=rows,
                counters=self._counters(),
                missing=await self._missing(),
                standings=self._standings(),
            )
        )

    async def _message(self, request: web.Request) -> web.Response:
        documents = await self._desk.trace(request.match_info["id"])
        if not documents:
            text = "No message with this id is known. Delivered messages are deleted after the time set in queue.keep_delivered."
            return self._problem(request, 404, "No such message", text)
        return self._html(self._pages.message(self._options, self._clock.wall(), documents))

    async def _asset(self, request: web.Request) -> web.Response:
        found = ASSETS.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        body, kind = found
        return web.Response(body=body, content_type=kind, charset="utf-8")
