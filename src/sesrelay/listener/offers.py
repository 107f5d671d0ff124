"""What a session is greeted with: the banner, and the extensions that EHLO offers.

Invariant: nothing is offered that is not held.

Source: RFC 5321 §4.1.1.1; RFC 1870, 2034, 2920, 3030, 3461, 4865, 6152, 6531, 9422 (of its limits, the one that is held).
"""

from __future__ import annotations

from sesrelay.listener.options import DoorOptions, ListenerOptions
from sesrelay.mail.address import domain_of
from sesrelay.policy.scheduling import DAY, offered


def extensions(options: ListenerOptions, door: DoorOptions, now: float, *, secured: bool) -> list[str]:
    """Return the EHLO lines for a session on such a listener; `secured`: it is under TLS already. `now`: Unix seconds."""
    lines = ["PIPELINING", f"SIZE {options.message_size}", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES"]
    lines += [f"LIMITS RCPTMAX={options.recipients}", f"FUTURERELEASE {offered(now)}"]
    if door.tls == "starttls" and not secured:
        lines.append("STARTTLS")
    if door.offers_login(secured=secured):
        lines.append("AUTH PLAIN LOGIN")
    return lines


def commands(door: DoorOptions, *, secured: bool) -> list[str]:
    """Return the commands that such a session can use."""
    known = ["EHLO", "HELO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "HELP", "QUIT"]
    if door.tls == "starttls" and not secured:
        known.append("STARTTLS")
    if door.offers_login(secured=secured):
        known.append("AUTH")
    return known


class Terms:
    """One configuration's options and what is made of them once."""

    __slots__ = ("_day", "_ehlo", "banner", "helo", "local_domains", "name", "options")

    def __init__(self, options: ListenerOptions) -> None:
        self.options = options
        hostname = options.hostname if options.hostname.isascii() else domain_of(f"@{options.hostname}")
        self.name = name = hostname.encode("ascii")
        self.banner = b"220 " + name + b" ESMTP sesrelay\r\n"
        self.helo = b"250 " + name + b"\r\n"
        self._ehlo: dict[tuple[DoorOptions, bool], bytes] = {}
        self._day = -1.0
        domains = (domain_of(f"@{domain}") for domain in (options.local.domain, options.hostname, options.local.hostname))
        self.local_domains = frozenset(domain for domain in domains if domain)

    def ehlo(self, door: DoorOptions, now: float, *, secured: bool) -> bytes:
        """Return the whole reply to EHLO. Units: `now` Unix seconds."""
        if self._day != now // DAY:
            self._ehlo, self._day = {}, now // DAY
        reply = self._ehlo.get((door, secured))
        if reply is None:
            lines = [self.name, *(line.encode("ascii") for line in extensions(self.options, door, now, secured=secured))]
            reply = b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"
            self._ehlo[door, secured] = reply
        return reply
