"""What the defaults take from the machine: its name, and whether it speaks IPv6."""

from __future__ import annotations

import errno
import socket
import threading
from functools import lru_cache

from sesrelay.mail.address import AddressError, domain_key

LOOKUP_MAX = 2.0  # seconds; a resolver that does not answer must not hold up the start
SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))  # says nothing of an address
NAMELESS = "sesrelay.invalid"  # RFC 6761 §6.4: never anybody's name, unlike localhost


@lru_cache(maxsize=1)
def machine_name() -> str:
    """Return the machine's full name, its short one where it has no other; never `localhost`."""
    short = socket.gethostname()
    if "." in short and (name := _usable(short)):
        return name
    return _usable(_canonical(short)) or _usable(short) or NAMELESS


def _canonical(short: str) -> str:
    """Return what `hostname -f` says, or nothing where that takes too long."""
    found: list[str] = []

    def look_up() -> None:
        try:
            found.extend(entry[3] for entry in socket.getaddrinfo(short, None, flags=socket.AI_CANONNAME) if entry[3])
        except OSError:
            return

    thread = threading.Thread(target=look_up, daemon=True, name="hostname")
    thread.start()
    thread.join(LOOKUP_MAX)
    return found[0] if found else ""


def _usable(name: str) -> str:
    try:
        key = domain_key(name)
    except AddressError:
        return ""
    return "" if key.split(".")[0] == "localhost" or key.endswith(".localhost") else key


def has_ipv6() -> bool:
    """Tell whether there is a [::1] here. What cannot be found out for want of descriptors or memory counts as there."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        return error.errno in SCARCE
    return True
