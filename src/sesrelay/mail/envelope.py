"""What a client hands over: envelope, origin, and the accepted message that joins them.

Source: RFC 5321 §2.3.1; RFC 3461 §4 (RET, ENVID, NOTIFY, ORCPT); RFC 4865 (release).
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum
from typing import Literal

from sesrelay.mail.priority import Priority
from sesrelay.mail.value import value

Notify = frozenset[Literal["NEVER", "SUCCESS", "FAILURE", "DELAY"]]


@value(frozen=True, slots=True)
class Recipient:
    """One RCPT TO. `notify` is None where the client gave no NOTIFY; `orcpt` is `type;xtext` as given.

    `hold` is the reason why mail for it waits for the operator from the start (local mail without an alias).
    """

    address: str
    notify: Notify | None = None
    orcpt: str | None = None
    hold: str | None = None


@value(frozen=True, slots=True)
class Envelope:
    """Addresses and parameters, not content. `sender` is empty for the null sender.

    `release`: Unix seconds before which it is not to leave (RFC 4865); None: at once.
    """

    sender: str
    recipients: tuple[Recipient, ...]
    body: Literal["7BIT", "8BITMIME"] = "7BIT"
    smtputf8: bool = False
    ret: Literal["FULL", "HDRS"] | None = None
    envid: str | None = None
    release: float | None = None


@value(frozen=True, slots=True)
class Owner:
    """Whose process is at the other end of a connection on this machine; `name` is empty for a uid without one."""

    uid: int
    name: str = ""

    def __str__(self) -> str:
        return self.name or f"uid {self.uid}"


@value(frozen=True, slots=True)
class Origin:
    """Who spoke to us, and where. `listener` as the configuration writes it; empty for what we made ourselves.

    `user` has logged in; `owner` is whom the kernel names as the owner of the client's socket.
    """

    listener: str = ""
    client: str = ""
    helo: str = ""
    user: str | None = None
    tls: str | None = None
    owner: Owner | None = None

    @property
    def who(self) -> str | None:
        """The user who logged in, else the owner, else None."""
        return self.user or (str(self.owner) if self.owner else None)


class Rung(IntEnum):
    """How a report of ours travels, from the first choice down to the last: see `policy.ladder`."""

    ROUTE = 1
    SES = 2
    DIRECT = 3
    FOLDER = 4


@value(frozen=True, slots=True)
class Descent:
    """How far down the ladder a report is. `tried`: the ways that did not serve; `domains`: others that it may speak for."""

    rung: Rung = Rung.ROUTE
    tried: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@value(frozen=True, slots=True)
class Message:
    """A message as accepted; its content is fetched by `id`.

    Units: `size` octets as stored, with our Received line; `accepted` Unix seconds.
    `header_from` has the addresses of the header From; `report` marks our own bounces, and says how they travel.
    `changes` are the receipts of what was changed in the header at acceptance. `priority` is what the header says of it;
    None leaves it to the route.
    """

    id: str
    envelope: Envelope
    origin: Origin
    size: int
    accepted: float
    header_from: tuple[str, ...] = ()
    message_id: str = ""
    subject: str = ""
    report: Descent | None = None
    changes: tuple[str, ...] = field(default=())
    priority: Priority | None = None

    @property
    def sender(self) -> str:
        return self.envelope.sender

    @property
    def began(self) -> float:
        """When it could leave first: what its age is counted from. Unix seconds."""
        release = self.envelope.release
        return self.accepted if release is None else max(self.accepted, release)
