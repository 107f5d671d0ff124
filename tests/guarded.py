"""What the tests of TLS and AUTH share: certificates, cheap hashes, a verifier that counts, and a client that speaks both."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from argon2 import PasswordHasher

from sesrelay.listener.options import DoorOptions, ListenerOptions
from sesrelay.listener.passwords import Users, Verifier, verify_hash
from sesrelay.listener.throttle import Throttle
from sesrelay.listener.tls import server_context
from transcripts.listener_rig import Client, RecordingIntake, Rig, options, rig

NAME = "relay.example.net"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "c4nary-Öpen sesame"
USERS = Users({"blog": CHEAP.hash(PASSWORD), "shop@example.com": CHEAP.hash("other")})


@dataclass
class Authority:
    """A CA, the files of one certificate of its making, and a context that trusts it alone."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.file = self.folder / "ca.pem"
        self.certificate, self.key = self.folder / "cert.pem", self.folder / "key.pem"
        self.ca.cert_pem.write_to_path(self.file)
        self.issue()

    def issue(self) -> int:
        """Make a certificate anew, in place of the last, and return its serial number."""
        pair = self.ca.issue_cert(NAME, "127.0.0.1", "127.0.0.2", "localhost")
        self.key.touch(mode=0o600)
        pair.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in pair.cert_chain_pems))
        from cryptography.x509 import load_pem_x509_certificate

        return load_pem_x509_certificate(pair.cert_chain_pems[0].bytes()).serial_number

    def server(self) -> ssl.SSLContext:
        return server_context(self.certificate, self.key)

    def client(self, **changes: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.file))
        for name, value in changes.items():
            setattr(context, name, value)
        return context


class NoWait(Throttle):
    """Never makes anybody wait."""

    def wait(self, keys: Any, now: float) -> float:
        return 0.0


@dataclass
class Counting:
    """Verifies, and counts what each verification costs."""

    costs: list[str] = field(default_factory=list)

    def __call__(self, encoded: str, password: bytes) -> bool:
        self.costs.append(encoded.rsplit("$", 2)[0])
        return verify_hash(encoded, password)


@contextlib.asynccontextmanager
async def guarded(
    door: DoorOptions,
    *,
    verifier: Verifier | None = None,
    intake: RecordingIntake | None = None,
    users: Users = USERS,
    **changes: Any,
) -> AsyncIterator[Rig]:
    """Run a listener with a door of that kind."""
    changed: ListenerOptions = options(doors={"127.0.0.1:0": door}, users=users, **changes)
    async with rig(changed, intake, verifier or Verifier(throttle=NoWait())) as at:
        yield at


async def secured(at: Rig, context: ssl.SSLContext, *, implicit: bool = False, greet: bool = True) -> Client:
    """Connect and go under TLS; then say EHLO."""
    if implicit:
        client = Client(*await asyncio.open_connection(at.host, at.port, ssl=context, server_hostname=NAME))
        assert (await client.reply()).startswith("220")
    else:
        client = await at.connect()
        assert (await client.reply()).startswith("220")
        assert await client.do(b"STARTTLS") == "220 2.0.0 Ready to start TLS"
        await client.writer.start_tls(context, server_hostname=NAME)
    if greet:
        assert (await client.do(b"EHLO client.example")).startswith("250")
    return client


async def ehlo(client: Client) -> list[str]:
    """Say EHLO and return what is offered."""
    client.writer.write(b"EHLO client.example\r\n")
    lines = []
    while not lines or lines[-1][3] == "-":
        lines.append(await client.line())
    assert lines[0][:3] == "250"
    return [line[4:] for line in lines[1:]]


def plain(user: str, password: str, on_behalf_of: str = "") -> bytes:
    return base64.b64encode(f"{on_behalf_of}\0{user}\0{password}".encode())
