"""Who may ask, and what every answer carries.

Invariant: a request whose Host is neither ours nor loopback's is not answered, so that a name that an attacker points
at this machine gets nothing (DNS rebinding).
Invariant: off loopback only /healthz and /readyz are answered without the token.
Invariant: no answer carries CORS headers, a version, or leave for a script or style that is not ours.

Source: RFC 9110 §7.4 (421), RFC 7617 (Basic), RFC 6750 §2.1 (Bearer); W3C CSP Level 3.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re

from aiohttp import hdrs, web, web_response
from aiohttp.typedefs import Handler, Middleware

from sesrelay.web.options import WebOptions, is_loopback

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Server": "sesrelay",
}
# Answers to what is no HTTP pass by every hook of the application; only here can they be kept from naming versions.
web_response.SERVER_SOFTWARE = HEADERS["Server"]  # type: ignore[attr-defined]
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?\Z")


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers that every answer carries on `response`."""
    response.headers.update(HEADERS)


def known_hosts(options: WebOptions) -> Middleware:
    """Return the middleware that answers 421 where Host is not one of ours, against DNS rebinding.

    Off loopback the token guards instead, which no rebound page has, and scrapes come by names that we cannot know.
    """
    names = {name.lower().rstrip(".").strip("[]") for name in (options.hostname, options.host, *options.allowed_hosts)}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not options.on_loopback:
            return await handler(request)
        given = request.headers.getall(hdrs.HOST, [])
        # A browser always sends Host; a probe that speaks HTTP/1.0 may not.
        if not given and request.version < (1, 1):
            return await handler(request)
        found = _HOST.match(given[0]) if len(given) == 1 else None
        if found is None:
            raise web.HTTPBadRequest(text="Exactly one valid Host header is required.\n")
        host = found[1].strip("[]").lower().rstrip(".")
        if not (host in names or is_loopback(host) or host == _own_address(request)):
            raise web.HTTPMisdirectedRequest(text="This page does not answer under that name; add it to http.allowed_hosts.\n")
        return await handler(request)

    return check


def token_holders(options: WebOptions) -> Middleware:
    """Return the middleware that wants the token where the server can be reached from elsewhere."""
    wanted = (options.token or "").encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if options.on_loopback or request.path in OPEN_PATHS:
            return await handler(request)
        given = _token(request.headers.get(hdrs.AUTHORIZATION, ""))
        if not wanted or given is None or not hmac.compare_digest(given, wanted):
            challenge = {hdrs.WWW_AUTHENTICATE: 'Basic realm="sesrelay", charset="UTF-8"'}
            raise web.HTTPUnauthorized(headers=challenge, text="A token is required, as a Bearer token or as the password.\n")
        return await handler(request)

    return check


def _own_address(request: web.Request) -> str | None:
    """Return the address that the client reached: a server bound to all addresses has many."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return str(name[0]).lower() if isinstance(name, tuple) else None


def _token(authorization: str) -> bytes | None:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return None
    return None
