"""A server over a paper desk, and a client to ask it with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Self

import aiohttp

from browser.paper_desk import PaperDesk, message
from fakes import FakeClock
from sesrelay.policy.reputation import AccountStanding
from sesrelay.web.options import WebOptions
from sesrelay.web.server import WebServer

ID = "0h2k3j4l5m6n7"


class Relay:
    """A server with what it asks, and a client to ask it with; it listens within `async with`."""

    def __init__(self, options: WebOptions) -> None:
        self.desk = PaperDesk([message(ID, "hello")])
        self.missing: list[str] = []
        self.counted: Mapping[str, int] = {"accepted": 1}
        self.standings: dict[str, AccountStanding] = {}
        self.server = WebServer(
            desk=self.desk,
            metrics=self._metrics,
            ready=self._ready,
            counters=lambda: self.counted,
            clock=FakeClock(),
            options=options,
            standings=lambda: self.standings,
        )

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    async def _metrics(self) -> bytes:
        return b"sesrelay_config_reload_success 1.0\n"

    async def _ready(self) -> list[str]:
        return self.missing

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, Mapping[str, str]]:
        url = f"http://127.0.0.1:{self.server.address[1]}{path}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with aiohttp.ClientSession() as session, session.request(method, url, headers=sent, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def raw(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.address[1])
        writer.write(request)
        try:
            async with asyncio.timeout(5):
                return await reader.read(65536)
        finally:
            writer.close()
