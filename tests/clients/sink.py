"""The next hop, which shows what came out; and a wiretap between program and relay, which shows what went in."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.message
import email.policy
import socket
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from relay_process import wait_for
from scripted_host import ScriptedHost, Taken

T = TypeVar("T")
OFFERS = ("PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")


class Sink:
    """An SMTP host in a thread of its own that takes everything."""

    def __init__(self, *offers: str) -> None:
        self.host = ScriptedHost(offers=offers or OFFERS)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(30)

    def __enter__(self) -> Sink:
        self.thread.start()
        self._do(self.host.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self.host.__aexit__())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    @property
    def port(self) -> int:
        return self.host.port

    def messages(self, to: str) -> list[Taken]:
        return [one for one in list(self.host.messages) if any(f"<{to}>" in line for line in one.rcpt)]

    def message(self, to: str) -> Taken:
        """Return the one message to a recipient, once it is there."""
        found = wait_for(f"the message to {to}", lambda: self.messages(to))
        assert len(found) == 1
        return found[0]


def recipients(taken: Taken) -> set[str]:
    return {line.partition("<")[2].partition(">")[0] for line in taken.rcpt}


def body(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


def parsed(content: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)  # type: ignore[return-value]


class Wiretap:
    """Hands octets on to the relay and keeps what the program says, a connection at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.said: list[bytearray] = []

    def __enter__(self) -> Wiretap:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self.listening.accept()[0]
                server = socket.create_connection(self.target)
                said = bytearray()
                self.said.append(said)
                threading.Thread(target=self._carry, args=(client, server, said), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, None), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket, said: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if said is not None:
                    said += piece
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
