"""The web server of an MTA-STS policy, with a certificate of a CA of the test's."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

import trustme
from aiohttp import web


@dataclass
class PolicyHost:
    """Answers for every name with `body`. `asked` has the Host names of the requests."""

    ca: trustme.CA
    names: tuple[str, ...] = ("mta-sts.example.org",)
    body: str | bytes = ""
    status: int = 200
    content_type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> PolicyHost:
        app = web.Application()
        app.router.add_get("/.well-known/mta-sts.txt", self._answer)
        app.router.add_get("/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*self.names).configure_cert(context)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.host.partition(":")[0])
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return web.Response(body=body, status=self.status, content_type=self.content_type, headers=self.headers)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        self.asked.append("elsewhere")
        return web.Response(text=self.body if isinstance(self.body, str) else "")
