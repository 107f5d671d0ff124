"""-bs: SMTP on standard input and output, carried to the relay and back as it comes.

A person or a pipe of text ends lines with LF, which the relay refuses; so where the first line ends that way, all get CR LF.
A program that begins with CR LF is passed on octet for octet: a lone LF in its content must not come to end a message.

Invariant: neither direction waits for the other: a caller may send all its commands before it reads a reply (RFC 2920 §3.1).
Invariant: exit code 0 means that the relay has ended the session as it should; else the last reply is a 421.
"""

import os
import select

from sesrelay.sendmail.client import Broken, connect
from sesrelay.sendmail.exits import EX_CONFIG, EX_OK, EX_TEMPFAIL, Exit
from sesrelay.sendmail.submission import place

_PIECE = 64 * 1024
_AT_ONCE = 4096  # octets that a pipe takes without waiting where select calls it writable (PIPE_BUF of Linux)
_SHUT_WR = 1
_GONE = b"421 4.4.2 The relay has closed the connection\r\n"
_REPLIES_MAX = 16 * 1024 * 1024  # octets kept for a caller who does not read yet: those to some 200,000 commands
_TAIL = 1024  # octets by which the last line is known, of at most 512 (RFC 5321 §4.5.3.1.5)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket


def relay() -> int:
    """Carry one session; return the exit code. Raises: OSError where the caller has closed standard input or output"""
    for standard in (0, 1):
        os.fstat(standard)  # the connection would take its place, and the relay hear itself
    try:
        sock = connect(place())
    except Broken as broken:
        _write(f"421 4.3.2 {broken}\r\n".encode())
        return EX_TEMPFAIL
    except ValueError as error:
        raise Exit(EX_CONFIG, f"SESRELAY_SUBMIT: {error}") from error
    sock.settimeout(0)
    lines, ending = Lines(), Ending()
    commands, replies = bytearray(), bytearray()
    listening, ended = True, False
    while True:
        sources = [sock.fileno()] if len(replies) < _REPLIES_MAX else []
        if listening and not commands:
            sources.append(0)
        sinks = ([sock.fileno()] if commands else []) + ([1] if replies else [])
        readable, writable, _ = select.select(sources, sinks, [])
        if sock.fileno() in readable:
            data = _received(sock)
            if data == b"":
                break
            ending.heard(data or b"")
            replies += data or b""
        if sock.fileno() in writable:
            sent = _sent(sock, commands)
            ending.said(bytes(commands[:sent]))
            del commands[:sent]
        if 1 in writable:
            del replies[: _written(replies[:_AT_ONCE])]
        if 0 in readable:
            data = _read()
            commands += lines.ended(data or b"")
            listening = data != b""
        if not listening and not commands and not ended:
            ended = True
            _shut(sock)
    early = ending.early(listening=listening)
    _write(bytes(replies) + (ending.last_words() if early else b""))
    return EX_TEMPFAIL if early else EX_OK


class Ending:
    """Tells by what was said last, either way, whether the relay has ended the session as it should."""

    def __init__(self) -> None:
        self._said = b"\n"
        self._heard = b""
        self._answered = True

    def said(self, data: bytes) -> None:
        """Take note of what has gone to the relay."""
        self._said = (self._said + data)[-_TAIL:]
        self._answered = self._answered and not data

    def heard(self, data: bytes) -> None:
        """Take note of what has come from it."""
        self._heard = (self._heard + data)[-_TAIL:]
        self._answered = self._answered or bool(data)

    def early(self, *, listening: bool) -> bool:
        """Tell whether the relay has gone before it should; `listening`: the caller could have said more."""
        last = self._last()
        if last.startswith(b"221"):
            return False
        quit_said = self._said.upper().endswith(b"\nQUIT\r\n")
        return listening or quit_said or not self._answered or last[:1] in (b"", b"3") or last.startswith(b"421")

    def last_words(self) -> bytes:
        """Return what the caller is to hear in the relay's place, if the relay has not said it."""
        if self._last().startswith(b"421"):
            return b""
        return (b"\r\n" if self._heard and not self._heard.endswith(b"\n") else b"") + _GONE

    def _last(self) -> bytes:
        return self._heard.rstrip(b"\r\n").rpartition(b"\n")[2]


class Lines:
    """Gives lines the ends that SMTP wants, where the first one shows that they have others."""

    def __init__(self) -> None:
        self._text: bool | None = None
        self._last = b""

    def ended(self, data: bytes) -> bytes:
        """Return the next piece as the relay is to get it."""
        if self._text is None and b"\n" in data:
            first = (self._last + data).partition(b"\n")[0]
            self._text = not first.endswith(b"\r")
        made = data
        if self._text:
            made = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._last = data[-1:]
        return made


def _sent(sock: "socket", data: bytearray) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)  # it has gone; what it said before stands to be read, and then its end


def _received(sock: "socket") -> bytes | None:
    """Return what has come, empty at the end; None where there is nothing after all."""
    try:
        return sock.recv(_PIECE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _shut(sock: "socket") -> None:
    try:  # noqa: SIM105 - contextlib takes longer to import than all of this
        sock.shutdown(_SHUT_WR)
    except OSError:
        pass  # it has gone, as the next look shows


def _read() -> bytes | None:
    """Return what the caller says, empty at the end; None where there is nothing after all."""
    try:
        return os.read(0, _PIECE)
    except BlockingIOError:
        return None


def _written(data: bytearray) -> int:
    try:
        return os.write(1, data)
    except BlockingIOError:
        return 0


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        select.select([], [1], [])
        view = view[_written(bytearray(view[:_AT_ONCE])) :]
