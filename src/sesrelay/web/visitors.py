"""The connections to the page: so many at a time, and none that is of no use for long.

aiohttp lets a client that says nothing stay for ever, and one that was answered for an hour. Each holds a descriptor, which
mail needs.

Invariant: for a new one beyond `MOST` the one that has been quiet for longest goes: who asks at once is always answered.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

MOST = 64  # and as many more as come in one turn of the loop, until the next
PATIENCE = 150.0  # seconds without a request that begins or ends; a scrape comes every one or two minutes at the slowest
SWEEP = 5.0  # seconds


class Visitors:
    """What asyncio calls for each connection. Units: `patience`, `sweep` seconds."""

    def __init__(self, *, most: int = MOST, patience: float = PATIENCE, sweep: float = SWEEP) -> None:
        self._most, self._patience, self._every = most, patience, sweep
        self._loop = asyncio.get_running_loop()
        self._heard: dict[web.RequestHandler, float] = {}
        self._server: web.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    def serve(self, server: web.Server) -> None:
        """Look after the connections of this server from now on."""
        self._server = server
        self._timer = self._loop.call_later(self._every, self._sweep, server)

    def stop(self) -> None:
        """Look after them no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def __call__(self) -> asyncio.Protocol:
        assert self._server is not None
        self._let_go(self._server, self._most - 1)
        return self._server()

    @web.middleware
    async def heard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note when a request begins and when it ends."""
        self._heard[request.protocol] = self._loop.time()
        try:
            return await handler(request)
        finally:
            self._heard[request.protocol] = self._loop.time()

    def _sweep(self, server: web.Server) -> None:
        self._let_go(server, self._most)
        self._timer = self._loop.call_later(self._every, self._sweep, server)

    def _let_go(self, server: web.Server, most: int) -> None:
        """Close those that have been quiet for too long, and the quietest where there are more than `most`."""
        now = self._loop.time()
        here = server.connections
        self._heard = {one: self._heard.get(one, now) for one in here}
        quietest = sorted(here, key=self._heard.__getitem__)
        for place, one in enumerate(quietest):
            if one.transport is not None and (place < len(here) - most or self._heard[one] <= now - self._patience):
                one.transport.abort()  # closing would wait for what it does not read
