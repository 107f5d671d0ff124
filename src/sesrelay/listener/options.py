"""What the listener is told by the configuration; a session keeps the options it began with."""

from __future__ import annotations

from dataclasses import dataclass

from sesrelay.policy.admission import LocalMail, Network


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """Units: sizes in octets, times in seconds, `min_rate` octets a second, `junk` points (see server.py).

    `line_timeout` ends a command line that was begun, and a message whose octets come slower than `min_rate`;
    `command_timeout` ends a silence; `content_time` ends a message however it comes.
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
