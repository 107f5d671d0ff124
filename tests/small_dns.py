"""A small authoritative name server on loopback, UDP and TCP on one port, for look-ups that are real ones.

`records` maps (NAME, TYPE) to rdata texts, names without the final dot. `rcodes` maps a name, or `NAME TYPE`, to an rcode
that is answered instead; what is `silent`, likewise, gets no answer. `no_edns` is the rcode for whoever asks by EDNS. What does not fit in a datagram is truncated, so that the client asks over TCP.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset


@dataclass
class SmallDns:
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    rcodes: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    no_edns: str | None = None
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(name, type, udp or tcp) of each question."""
    soa: tuple[int, int] | None = None
    """The TTL and the minimum of the SOA record that comes with what is not there; None: none does."""
    port: int = 0

    @property
    def nameserver(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> SmallDns:
        loop = asyncio.get_running_loop()
        while True:
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=("127.0.0.1", 0))
            self.port = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._stream, "127.0.0.1", self.port)
                return self
            except OSError:  # someone else's TCP port
                self._udp.close()

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()

    def answer(self, wire: bytes, over: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, over))
        if name in self.silent or f"{name} {kind}" in self.silent:
            return None
        if self.no_edns is not None and query.edns >= 0:
            query.use_edns(False)
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.from_text(self.no_edns))
            return response.to_wire()
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA | dns.flags.RA
        rcode = self.rcodes.get(f"{name} {kind}", self.rcodes.get(name))
        if rcode is not None:
            response.set_rcode(dns.rcode.from_text(rcode))
            return response.to_wire()
        self._fill(response, name, kind)
        try:
            return response.to_wire(max_size=65535 if over == "tcp" else max(query.payload, 512))
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(8):  # a chain of CNAMEs
            alias = self.records.get((name, "CNAME"))
            for found, texts in ((kind, self.records.get((name, kind))), ("CNAME", alias)):
                if texts:
                    response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", found, *texts))
                    break
            if not alias or self.records.get((name, kind)):
                break
            name = alias[0].rstrip(".").lower()
        known = any(owner == name or owner.endswith(f".{name}") for owner, _ in self.records)
        if not known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if not response.answer and self.soa is not None:
            ttl, minimum = self.soa
            zone = name.rpartition(".")[2] or "."
            response.authority.append(
                dns.rrset.from_text(f"{zone}.", ttl, "IN", "SOA", f"ns.test. root.test. 1 3600 600 86400 {minimum}")
            )

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = self.answer(await reader.readexactly(length), "tcp")
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: SmallDns) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, "udp")
        if answer is not None:
            self._transport.sendto(answer, addr)  # type: ignore[attr-defined]
