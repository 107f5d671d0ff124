"""A stand-in for SES that only takes and counts: as little work for each call as can be, so that the caller is what is measured.

`python benchmarks/ses_sink.py` prints its port. It checks nothing; `sesrelay.testing.ses` is the one that does.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
XML = (
    b'<SendRawEmailResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendRawEmailResult><MessageId>0100-%016x-000000'
    b"</MessageId></SendRawEmailResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></SendRawEmailResponse>"
)
ACCOUNT = (
    b'{"SendQuota":{"Max24HourSend":-1,"MaxSendRate":100000,"SentLast24Hours":0},"SendingEnabled":true,'
    b'"ProductionAccessEnabled":true,"EnforcementStatus":"HEALTHY"}'
)
STATISTICS = (
    b'<GetSendStatisticsResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><GetSendStatisticsResult><SendDataPoints/>'
    b"</GetSendStatisticsResult></GetSendStatisticsResponse>"
)


class Sink(asyncio.Protocol):
    """One connection. Invariant: answers come in the order of the requests."""

    taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._buffer = bytearray()
        self._wanted = 0

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            found = LENGTH.search(self._buffer, 0, end)
            self._wanted = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < self._wanted:
                return
            self._transport.write(self._answer(bytes(self._buffer[: end + 60])))
            del self._buffer[: self._wanted]
            self._wanted = 0

    def _answer(self, head: bytes) -> bytes:
        kind = b"text/xml"
        if head.startswith(b"GET /count"):
            body = b"%d" % Sink.taken
        elif head.startswith(b"GET /v2/email/account"):
            body, kind = ACCOUNT, b"application/json"
        elif b"Action=GetSendStatistics" in head:
            body = STATISTICS
        else:
            Sink.taken += 1
            body = XML % Sink.taken
            if head.startswith(b"POST /v2/"):
                body, kind = b'{"MessageId":"0100-%016x-000000"}' % Sink.taken, b"application/json"
        return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
