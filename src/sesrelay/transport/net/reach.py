"""Reaching a host: a TCP connection to the first of its addresses that answers.

Candidates are tried in their order, each when the former has failed, or with `stagger` also when it is slow: so one
family that leads nowhere holds nothing up.

Invariant: only the addresses given are connected to; nothing is resolved here but by `resolve`, once.
Invariant: whoever does not win, or is cancelled, leaves no socket behind.

Source: RFC 8305 §5 (connections staggered by 250 ms).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from sesrelay.transport.net.plainly import plainly

STAGGER = 0.25  # seconds; RFC 8305 §5


@dataclass(frozen=True, slots=True)
class Reached:
    """The connected socket (to whoever takes it), to which candidate, and why the others could not be reached."""

    sock: socket.socket
    address: str
    failed: Mapping[str, str]


class Unreachable(Exception):
    """None of the candidates answered; `failed`: why, by address."""

    def __init__(self, failed: Mapping[str, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(failed.values())) or "it has no address")
        self.failed = failed


async def resolve(host: str, port: int, source: str | None = None) -> list[str]:
    """Return the addresses of a host as the system orders them. Raises: OSError."""
    family = socket.AF_UNSPEC if source is None else socket.AF_INET6 if ip_address(source).version == 6 else socket.AF_INET
    found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_with_zone(entry[4]) for entry in found))


async def reach(
    candidates: Sequence[str], port: int, *, source: str | None = None, timeout: float, stagger: float | None = STAGGER
) -> Reached:
    """Connect. `timeout` is each candidate's. `stagger` None: one after the other. Units: seconds. Raises: Unreachable."""
    failed: dict[str, str] = {}
    running: dict[asyncio.Task[socket.socket], str] = {}
    waiting = list(candidates)
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop(0)
                running[asyncio.ensure_future(_connect(address, port, source, timeout))] = address
            patience = stagger if waiting else None
            done, _ = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    return Reached(task.result(), running.pop(task), failed)
                failed[running.pop(task)] = _plainly(error)
        raise Unreachable(failed)
    finally:
        for task in running:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result().close()


def interleaved(addresses: Sequence[str], turn: int = 0) -> list[str]:
    """Return the addresses with the families in turn, beginning with that of the first address (RFC 8305 §4).

    Each family begins with its address number `turn`.
    """
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    other = [address for address in addresses if address not in first]
    for family in (first, other):
        at = turn % max(len(family), 1)
        family[:] = family[at:] + family[:at]
    result: list[str] = []
    for place in range(max(len(first), len(other))):
        result += first[place : place + 1] + other[place : place + 1]
    return result


async def _connect(address: str, port: int, source: str | None, timeout: float) -> socket.socket:
    plain, _, zone = address.partition("%")
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    # By name, as asyncio sets TCP_NODELAY only where the protocol is not 0.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        if source is not None:
            _bind(sock, source)
        where = (plain, port, 0, int(zone) if zone.isdigit() else socket.if_nametoindex(zone)) if zone else (plain, port)
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, source: str) -> None:
    try:
        sock.bind((source, 0))
    except OSError as error:  # without its errno: it is no fault of the other host's
        raise OSError(f"cannot connect from {source} (source_address): {error.strerror}") from error


def _with_zone(where: tuple[object, ...]) -> str:
    return f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] and "%" not in str(where[0]) else str(where[0])


def _plainly(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # without the address, which asyncio names
    return plainly(error)
