"""An SMTP host that takes everything and writes each message's queue id, as our Received line names it, to stdout.

`python smtp_sink.py`: the first line is its port. A process of its own, so that it outlives the relay it serves.
"""

from __future__ import annotations

import asyncio
import re
import sys

OURS = re.compile(rb"\sid ([0-9a-v]{13})\b")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 sink.example ESMTP\r\n")
    try:
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                writer.write(b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go\r\n")
                content = await reader.readuntil(b"\r\n.\r\n")
                found = OURS.search(content)
                sys.stdout.write(f"{found[1].decode() if found else '?'}\n")
                sys.stdout.flush()
                writer.write(b"250 2.0.0 Ok: taken\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 2.0.0 Ok\r\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 26, backlog=500)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
