"""The client's side of SMTP over one connection: EHLO, transactions in one write each, replies by their first digit.

`_socket` is the half of `socket` that is written in C; the other half imports enum and selectors, which would make the
program half as slow again as Python's own start.

Source: RFC 5321 §4.2, §4.3; RFC 2920; RFC 1870; RFC 6152; RFC 6531 §3.4; RFC 3461 §4.
"""

import _socket
import os

from sesrelay.sendmail.addresses import xtext
from sesrelay.sendmail.content import Content

CONNECT_TIME = 30.0  # also until the relay greets: one that is stopped would keep a web server's worker for minutes
REPLY_TIME = 300.0
CONTENT_REPLY_TIME = 600.0  # RFC 5321 §4.5.3.2.6
REPLY_MAX = 64 * 1024
_PATH_MAX = 107  # octets: sun_path of Linux without its final NUL
AT_ONCE = 100  # recipients in one write, so that replies never pile up while we still write


class Broken(Exception):
    """The conversation has ended early; the text is the relay's reply or what happened, for a person.

    `permanent`: the relay said so; anything else may be tried again.
    """

    @property
    def permanent(self) -> bool:
        return str(self)[:1] == "5"


class Envelope:
    """What is said before the content; `notify`, `ret` and `envid` are empty where nothing was asked for."""

    __slots__ = ("envid", "notify", "recipients", "ret", "sender")

    def __init__(self, sender: str, recipients: list[str], notify: str = "", ret: str = "", envid: str = "") -> None:
        self.sender = sender
        self.recipients = recipients
        self.notify = notify
        self.ret = ret
        self.envid = envid

    def commands(self, recipients: list[str], content: Content, offers: dict[str, str]) -> list[bytes]:
        """Return MAIL and a RCPT for each of `recipients`, with the parameters that are offered."""
        mail = f"MAIL FROM:<{self.sender}>"
        if "SIZE" in offers:
            mail += f" SIZE={content.size}"
        if "8BITMIME" in offers and not content.ascii:
            mail += " BODY=8BITMIME"
        if "SMTPUTF8" in offers and not all(address.isascii() for address in (self.sender, *recipients)):
            mail += " SMTPUTF8"
        notify = ""
        if "DSN" in offers:
            mail += (f" RET={self.ret}" if self.ret else "") + (f" ENVID={xtext(self.envid)}" if self.envid else "")
            notify = f" NOTIFY={self.notify}" if self.notify else ""
        return [f"{mail}\r\n".encode(), *(f"RCPT TO:<{address}>{notify}\r\n".encode() for address in recipients)]


class Transaction:
    """How one transaction ended: `accepted` recipients, `refused` ones with their replies, and what the relay had no room for.

    `over`: so many were refused that the relay has ended the connection, and the others want a new one.
    """

    __slots__ = ("accepted", "over", "refused", "too_many")

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.too_many: list[str] = []
        self.over = False


class Client:
    """One connection to the relay. Every method may raise Broken, after which it is of no use; close it."""

    def __init__(self, place: str) -> None:
        self._buffer = b""
        self.offers: dict[str, str] = {}
        self.socket = connect(place)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        self._expect("2")
        self.socket.settimeout(REPLY_TIME)
        self._write(b"EHLO localhost\r\n")
        reply = self._reply()
        if reply[0].startswith("5"):
            self._write(b"HELO localhost\r\n")
            self._expect("2")
            return
        if not reply[0].startswith("2"):
            raise Broken(_shown(reply))
        for line in reply[1:]:
            keyword, _, value = line[4:].partition(" ")
            self.offers[keyword.upper()] = value

    @property
    def size_limit(self) -> int:
        """The largest message that is taken; 0: not said."""
        value = self.offers.get("SIZE", "")
        return int(value) if value.isascii() and value.isdigit() else 0

    def send(self, envelope: Envelope, recipients: list[str], content: Content) -> Transaction:
        """Hand over `content` for `recipients` in one transaction."""
        ended = Transaction()
        commands = envelope.commands(recipients, content, self.offers)
        pipelined = "PIPELINING" in self.offers
        replies: list[str] = []
        try:
            self._ask([*commands, b"DATA\r\n"] if pipelined else commands, replies)
            if not pipelined and any(reply.startswith("2") for reply in replies[1:]):
                self._ask([b"DATA\r\n"], replies)
        except Broken:
            answers = dict(zip(recipients, replies[1:], strict=False))
            ended.refused = [(recipient, reply) for recipient, reply in answers.items() if reply.startswith("5")]
            if not ended.refused:
                raise
            ended.over = True
            ended.too_many = [recipient for recipient in recipients if not answers.get(recipient, "").startswith("5")]
            return ended
        for recipient, reply in zip(recipients, replies[1:], strict=False):
            if reply.startswith("2"):
                ended.accepted.append(recipient)
            elif reply.startswith(("452", "552")) and ended.accepted:  # RFC 5321 §4.5.3.1.10
                ended.too_many.append(recipient)
            else:
                ended.refused.append((recipient, reply))
        if not ended.accepted:
            return ended  # the connection is of no use now: it may wait for content
        go = replies[-1]
        if not go.startswith("3"):
            raise Broken(go)
        self._write_content(content)
        self.socket.settimeout(CONTENT_REPLY_TIME)
        final = _shown(self._reply())
        if not final.startswith("2"):
            ended.refused += [(recipient, final) for recipient in ended.accepted]
            ended.accepted = []
        return ended

    def _ask(self, commands: list[bytes], replies: list[str]) -> None:
        """Send the commands, and add the reply to each.

        Raises: Broken with the first reply where that is a refusal, or with a later one that is a farewell
        """
        step = AT_ONCE if "PIPELINING" in self.offers else 1
        for at in range(0, len(commands), step):
            self._write(b"".join(commands[at : at + step]))
            for _ in commands[at : at + step]:
                replies.append(_shown(self._reply()))
                if not replies[0].startswith(("2", "3")):
                    raise Broken(replies[0])
                if replies[-1].startswith("421"):
                    raise Broken(replies[-1])

    def _write_content(self, content: Content) -> None:
        waiting: list[bytes] = []
        length = 0
        for piece in content.stuffed():
            waiting.append(piece)
            length += len(piece)
            if length >= 256 * 1024:
                self._write(b"".join(waiting))
                waiting, length = [], 0
        self._write(b"".join(waiting))

    def quit(self) -> None:
        """Say good-bye and go; nothing that happens now matters any more."""
        try:  # noqa: SIM105 - contextlib takes longer to import than all of this
            self.socket.send(b"QUIT\r\n")
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _write(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Broken(f"the relay does not take what is sent: {error}") from error

    def _expect(self, digit: str) -> None:
        reply = self._reply()
        if not reply[0].startswith(digit):
            raise Broken(_shown(reply))

    def _reply(self) -> list[str]:
        """Return the lines of the next reply."""
        lines: list[str] = []
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                lines.append(line.decode("utf-8", "replace").rstrip("\r"))
                if lines[-1][3:4] != "-":
                    return lines
                continue
            if len(self._buffer) + sum(map(len, lines)) > REPLY_MAX:
                raise Broken("the relay's reply has no end")
            try:
                got = self.socket.recv(REPLY_MAX)
            except OSError as error:
                raise Broken(f"no reply from the relay: {error}") from error
            if not got:
                raise Broken("the relay has closed the connection")
            self._buffer += got


def connect(place: str) -> _socket.socket:
    """Return a socket that is connected to `place`, `HOST:PORT` or `unix:PATH`. Raises: Broken, ValueError for no such form"""
    if place.startswith("unix:"):
        if not 0 < len(os.fsencode(place[5:])) <= _PATH_MAX:
            raise ValueError(f"{place!r}: the path of a Unix socket has 1 to {_PATH_MAX} octets")
        return _connected(_socket.AF_UNIX, 0, place[5:], place)
    host, colon, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise ValueError(f"{place!r} is no HOST:PORT and no unix:PATH")
    if len(port) > 5 or not 0 < int(port) < 65536:  # the C library would take the rest of a division
        raise ValueError(f"{place!r}: a port is a number from 1 to 65535")
    try:
        # As octets: for a str, Python loads its IDNA codec, and re with it.
        found = _socket.getaddrinfo(host.encode(), int(port), 0, _socket.SOCK_STREAM)
    except OSError as error:
        raise Broken(f"{place}: {error}") from error
    for n, (family, _, protocol, _, address) in enumerate(found, 1):
        try:
            return _connected(family, protocol, address, place)
        except Broken:
            if n == len(found):
                raise
    raise Broken(f"{place}: no address")


def _connected(family: int, protocol: int, address: object, place: str) -> _socket.socket:
    try:
        sock = _socket.socket(family, _socket.SOCK_STREAM, protocol)
        sock.settimeout(CONNECT_TIME)
        sock.connect(address)  # type: ignore[arg-type]
    except (OSError, OverflowError) as error:
        raise Broken(f"the relay cannot be reached at {place}: {error}") from error
    return sock


def _shown(reply: list[str]) -> str:
    """Return a reply in one line, fit for a terminal or a log."""
    text = " ".join([reply[0][:3], *(line[4:] for line in reply)])
    return "".join(letter if letter.isprintable() else "?" for letter in text)
