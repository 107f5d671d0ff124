"""What the listener is told by the configuration; a session keeps the options it began with."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sesrelay.listener.passwords import NOBODY, Users
from sesrelay.policy.admission import LocalMail, Network
from sesrelay.policy.session_rules import NO_RULES, SessionRules


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """What one listener is told apart from the others. `context` is there where `tls` is not none."""

    tls: Literal["none", "starttls", "implicit"] = "none"
    auth: Literal["none", "optional", "required", "any"] = "none"
    context: ssl.SSLContext | None = None

    def offers_login(self, *, secured: bool) -> bool:
        """Tell whether AUTH can be used now; `secured`: under TLS."""
        return self.auth == "any" or (self.auth != "none" and secured)


PLAIN_DOOR = DoorOptions()


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """Units: sizes in octets, times in seconds, `min_rate` octets a second, `junk` points (see costs.py).

    `line_timeout` ends a command line that was begun, and a message whose octets come slower than `min_rate`;
    `command_timeout` ends a silence; `content_time` ends a message however it comes.
    `doors` by `listen` as configured; one that is not named has no options of its own. `users`: who may log in;
    `rules`: who may send as whom.
    `asks_owners`: somebody wants to know who owns the other end of a TCP connection (of a Unix socket it costs nothing).
    """

    hostname: str
    local: LocalMail
    networks: tuple[Network, ...]
    message_size: int = 25 * 1024 * 1024
    recipients: int = 1000
    connections: int = 500
    connections_per_client: int = 200
    command_timeout: float = 300.0
    line_timeout: float = 30.0
    min_rate: float = 64.0
    content_time: float = 3600.0
    junk: int = 100
    doors: Mapping[str, DoorOptions] = field(default_factory=dict)
    users: Users = NOBODY
    rules: SessionRules = NO_RULES
    asks_owners: bool = False

    def door(self, name: str) -> DoorOptions:
        """Return what the listener of that name is told."""
        return self.doors.get(name, PLAIN_DOOR)
