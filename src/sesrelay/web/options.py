"""What the HTTP server is told by the configuration."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field


class PageUnreachable(OSError):
    """The HTTP address cannot be listened on; the text names the address and says why."""


@dataclass(frozen=True, slots=True)
class WebOptions:
    """`host` is an address or `localhost`; `port` 0: any free one. `token` is a secret, and kept out of repr.

    `allowed_hosts`: names by which a browser or a proxy may ask, besides loopback's and the bound address.
    `smtp`: HOST:PORT or unix:PATH for the hint of an empty page, None: no hint.
    """

    host: str = "127.0.0.1"
    port: int = 9125
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    hostname: str = "localhost"
    smtp: str | None = None

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Tell whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def show_address(host: str, port: int) -> str:
    """Return HOST:PORT as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
