"""What a URL comes down to: the host, which is connected to and signed for alike, how a request names it, and the proxy before it.

Source: RFC 9112 §3.2.2 (the absolute form, for a proxy); RFC 7617 (Basic).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

ENDPOINT = "the endpoint"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Host:
    """Where to connect, and whether TLS begins at once."""

    name: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"

    @property
    def field(self) -> str:
        """How the Host of a request names it: without the port where that is the scheme's (RFC 9110 §7.2)."""
        return str(self).removesuffix(f":{_PORTS['https' if self.tls else 'http']}")


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL comes down to. `form`: how a request names it; `login`: the field by which a proxy knows us, with its line end."""

    host: Host
    form: str
    proxy: Host | None = None
    login: str = ""

    def __str__(self) -> str:
        return f"{self.host} through the proxy {self.proxy}" if self.proxy else str(self.host)

    @property
    def first(self) -> Host:
        """Where the connection itself goes."""
        return self.proxy or self.host

    @property
    def tunnelled(self) -> bool:
        return self.proxy is not None and self.host.tls


def target(url: str) -> Target:
    """Return where requests to `url` go. Asks the environment for a proxy. Raises: ValueError"""
    parts, host = _parsed(url, ENDPOINT)
    form = quote(parts.path or "/", safe="/%:@!$&'(*),+;=~") + (f"?{parts.query}" if parts.query else "")
    named = None if proxy_bypass(parts.netloc.rpartition("@")[2]) else getproxies().get(parts.scheme)
    if not named:
        return Target(host, form)
    # A scheme is often left out, and botocore's clients, which go the same way, put this one.
    named = named if "://" in named else "http://" + named.removeprefix("//")
    by, proxy = _parsed(named, "the proxy set in the environment")
    login = ""
    if by.username is not None:
        words = f"{unquote(by.username)}:{unquote(by.password or '')}"
        login = f"Proxy-Authorization: Basic {b64encode(words.encode()).decode()}\r\n"
    # A tunnel leads to the host itself; without one the proxy gets the URL, and makes of it the Host that was signed.
    return Target(host, form if host.tls else f"http://{host.field}{form}", proxy, login)


def host_of(url: str) -> Host:
    """Return the host that requests to `url` are for. Raises: ValueError"""
    return _parsed(url, ENDPOINT)[1]


def _parsed(url: str, what: str) -> tuple[SplitResult, Host]:
    """Raises: ValueError, without the URL, as a password may be in it"""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
        name = name if name.isascii() else name.encode("idna").decode()
    except ValueError:
        raise ValueError(f"{what} is not a URL, or its host or port is invalid") from None
    if not name or parts.scheme not in _PORTS:
        raise ValueError(f"{what} is not a URL of http or https")
    return parts, Host(name, port or _PORTS[parts.scheme], parts.scheme == "https")
