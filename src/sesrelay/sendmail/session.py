"""-bs: SMTP on standard input and output, carried to the relay and back as it comes.

A person or a pipe of text ends lines with LF, which the relay refuses; so where the first line ends that way, all get CR LF.
A program that begins with CR LF is passed on octet for octet: a lone LF in its content must not come to end a message.
"""

import os
import select

from sesrelay.sendmail.client import Broken, connect
from sesrelay.sendmail.exits import EX_CONFIG, EX_OK, EX_TEMPFAIL, Exit
from sesrelay.sendmail.submission import place

_PIECE = 64 * 1024
_SHUT_WR = 1


def relay() -> int:
    """Carry one session; return the exit code."""
    try:
        sock = connect(place())
    except Broken as broken:
        _write(1, f"421 4.3.2 {broken}\r\n".encode())
        return EX_TEMPFAIL
    except ValueError as error:
        raise Exit(EX_CONFIG, f"SESRELAY_SUBMIT: {error}") from error
    sock.settimeout(None)
    lines = Lines()
    sources = [0, sock.fileno()]
    while True:
        ready = select.select(sources, [], [])[0]
        if sock.fileno() in ready:
            data = sock.recv(_PIECE)
            if not data:
                return EX_OK
            _write(1, data)
        if 0 in ready:
            data = os.read(0, _PIECE)
            if data:
                sock.sendall(lines.ended(data))
            else:
                sources.remove(0)
                sock.shutdown(_SHUT_WR)


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


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
