"""Every fault that smtp-sink can show, at each command: 28 cells, each through both transports.

The faults are Postfix's: soft reject (450), hard reject (500), 421 and gone, gone without a word.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import peers
from batches import Bytes, batch, by_address, unused_port
from fakes import FakeClock
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport
from small_dns import SmallDns

DNS = {("example.org", "MX"): ["10 mx.example.org."], ("mx.example.org", "A"): ["127.0.0.1"]}
OPTIONS = {"soft": "-r", "hard": "-f", "421": "-Q", "gone": "-q"}
COMMANDS = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT")

DELIVERED = (Delivered, None, None, False)
WIDE = {"smtp": (Deferred, Scope.NEXTHOP, PauseReason.UNAVAILABLE, False), "direct": (Deferred, Scope.RECIPIENT_DOMAIN, PauseReason.UNAVAILABLE, False)}  # fmt: skip
REFUSED = {"smtp": (Deferred, Scope.NEXTHOP, PauseReason.CONFIGURATION, False), "direct": (Failed, Scope.RECIPIENT_DOMAIN, None, False)}  # fmt: skip


def both(kind: type, scope: Scope, *, ambiguous: bool = False) -> dict[str, Any]:
    return dict.fromkeys(("smtp", "direct"), (kind, scope, None, ambiguous))


DONE = dict.fromkeys(("smtp", "direct"), DELIVERED)
LATER = both(Deferred, Scope.MESSAGE)
NEVER = both(Failed, Scope.MESSAGE)
EXPECTED: dict[tuple[str, str], dict[str, Any]] = {
    ("CONNECT", "soft"): WIDE, ("CONNECT", "hard"): REFUSED, ("CONNECT", "421"): WIDE, ("CONNECT", "gone"): WIDE,
    # A host that says 500 to EHLO is asked again by HELO, and serves.
    ("EHLO", "soft"): WIDE, ("EHLO", "hard"): DONE, ("EHLO", "421"): WIDE, ("EHLO", "gone"): WIDE,
    ("MAIL", "soft"): LATER, ("MAIL", "hard"): NEVER, ("MAIL", "421"): WIDE, ("MAIL", "gone"): WIDE,
    ("RCPT", "soft"): both(Deferred, Scope.RECIPIENT), ("RCPT", "hard"): both(Failed, Scope.RECIPIENT),
    ("RCPT", "421"): WIDE, ("RCPT", "gone"): WIDE,
    ("DATA", "soft"): LATER, ("DATA", "hard"): NEVER, ("DATA", "421"): WIDE, ("DATA", "gone"): WIDE,
    (".", "soft"): LATER, (".", "hard"): NEVER, (".", "421"): WIDE, (".", "gone"): both(Deferred, Scope.MESSAGE, ambiguous=True),
    ("QUIT", "soft"): DONE, ("QUIT", "hard"): DONE, ("QUIT", "421"): DONE, ("QUIT", "gone"): DONE,
}  # fmt: skip


@asynccontextmanager
async def smtp_sink(*options: str) -> AsyncIterator[int]:
    """Run smtp-sink on a free port of loopback, which is what you get."""
    program = peers.require("smtp-sink")
    unprivileged = ("-u", "nobody") if os.geteuid() == 0 else ()  # it refuses to stay root
    while True:
        port = unused_port()
        process = await asyncio.create_subprocess_exec(
            *program.command(*options, *unprivileged, f"127.0.0.1:{port}", "100"), env=dict(program.env)
        )
        try:
            if await _listens(port, process):
                yield port
                return
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _listens(port: int, process: asyncio.subprocess.Process) -> bool:
    """Wait until it listens; False where it has ended, as somebody else has the port."""
    async with asyncio.timeout(20):
        while process.returncode is None:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
            except OSError:
                await asyncio.sleep(0.01)
            else:
                return True
    return False


def seen(outcome: Outcome) -> tuple[type, Scope | None, PauseReason | None, bool]:
    return (
        type(outcome), getattr(outcome, "scope", None), getattr(outcome, "reason", None), getattr(outcome, "ambiguous", False)
    )  # fmt: skip


def test_the_table_is_whole() -> None:
    assert set(EXPECTED) == {(command, fault) for command in COMMANDS for fault in OPTIONS}
    assert len(EXPECTED) == 28


@pytest.mark.parametrize(("command", "fault"), EXPECTED, ids="-".join)
async def test_cell(command: str, fault: str) -> None:
    async with smtp_sink(OPTIONS[fault], command) as port, SmallDns(dict(DNS)) as dns:
        options = DirectOptions("relay.example.com", port, nameservers=[dns.nameserver], allow_private_addresses=True)
        ways = {
            "smtp": SmtpTransport("out", SmtpOptions(["127.0.0.1"], "relay.example.com", port), FakeClock()),
            "direct": DirectTransport("out", options, FakeClock()),
        }
        found = {}
        for name, out in ways.items():
            message = batch("b@example.org", "c@example.org")
            outcomes = by_address(message, await out.deliver(message, Bytes()))
            await out.close()
            assert len({seen(one) for one in outcomes.values()}) == 1
            found[name] = seen(outcomes["b@example.org"])
        assert found == EXPECTED[command, fault]
