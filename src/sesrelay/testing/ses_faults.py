"""Everything that can go wrong with a call, as the network and the service really do it.

Invariant: a fault of BEFORE takes no message; one of AFTER takes it and keeps the caller from learning so.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

Refused = Callable[[str, str, int], web.Response]
"""Words a refusal as one of the two APIs does: code, text, status."""
AFTER = ("reset_after", "garbage_after", "no_message_id", "truncated")
BEFORE = ("throttle", "quota", "500", "503", "reset_before", "hang", "slow", "garbage", "portal", "error")
FAULTS = ("ok", *BEFORE, *AFTER)
_PORTAL = "<html><head><title>Welcome</title></head><body>Please sign in to use this network.</body></html>"
_GARBAGE = b"\x00\xff<<<not xml"
_TRUNCATED = {
    "v1": (b'<SendRawEmailResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendRawEm', "text/xml"),
    "v2": (b'{"MessageId": "0100', "application/json"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One of FAULTS. `seconds` of `slow` and `hang`; `code`, `text` and `status` of `error`."""

    name: str = "ok"
    seconds: float = 1.0
    code: str = "InternalFailure"
    text: str = ""
    status: int = 400

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(f"{self.name!r} is none of {', '.join(FAULTS)}")

    @property
    def takes(self) -> bool:
        return self.name in AFTER


async def before(
    fault: Fault, request: web.Request, refused: Refused, exactly: Refused, stopping: asyncio.Event
) -> web.StreamResponse | None:
    """Return the answer of a fault that comes before the message is taken, or None where there is none.

    `refused` words what SES says by itself, `exactly` what the test says.
    """
    match fault.name:
        case "throttle":
            return refused("Throttling", "Maximum sending rate exceeded.", 400)
        case "quota":
            return refused("Throttling", "Daily message quota exceeded.", 400)
        case "500":
            return refused("InternalFailure", "The request processing has failed because of an unknown error.", 500)
        case "503":
            return web.Response(status=503, text="<html><body>Service Unavailable</body></html>", content_type="text/html")
        case "portal":
            return web.Response(text=_PORTAL, content_type="text/html")
        case "garbage":
            return web.Response(body=_GARBAGE, content_type="text/xml")
        case "error":
            return exactly(fault.code, fault.text, fault.status)
        case "reset_before":
            return reset(request)
        case "slow" | "hang":
            try:
                await asyncio.wait_for(stopping.wait(), fault.seconds if fault.name == "slow" else None)
                return reset(request)
            except TimeoutError:
                return None
    return None


def after(fault: Fault, request: web.Request, api: str) -> web.StreamResponse | None:
    """Return what a fault makes of the answer to a message that was taken, or None where it is the usual one."""
    match fault.name:
        case "reset_after":
            return reset(request)
        case "garbage_after":
            return web.Response(body=_GARBAGE, content_type="text/xml")
        case "truncated":
            body, kind = _TRUNCATED[api]
            return web.Response(body=body, content_type=kind)
    return None


def reset(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        _reset(request.transport)
    return web.Response()


def reset_stream(writer: asyncio.StreamWriter) -> None:
    _reset(writer.transport)


def _reset(transport: asyncio.WriteTransport) -> None:
    made = transport.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
