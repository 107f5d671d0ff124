"""Which addresses can be open beside each other: those of listeners, the page and the control socket.

Invariant: as the sockets are opened, IPv6 ones with IPV6_V6ONLY: `[::]` leaves IPv4 alone.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from sesrelay.config.document import Document
from sesrelay.config.explain import part
from sesrelay.config.model import Config
from sesrelay.config.problem import KeyPath
from sesrelay.config.values import UNIX, UNIX_PATH_MAX, host_port


def meet(one: str, other: str) -> bool:
    """Tell whether two values of `listen` cannot be open at once; port 0 is another port each time."""
    if one.startswith(UNIX) or other.startswith(UNIX):
        return one.startswith(UNIX) and other.startswith(UNIX) and _path(one) == _path(other)
    (host, port), (other_host, other_port) = host_port(one), host_port(other)
    address, beside = ipaddress.ip_address(host), ipaddress.ip_address(other_host)
    if port != other_port or not port or address.version != beside.version:
        return False
    return address == beside or address.is_unspecified or beside.is_unspecified


def _path(listen: str) -> Path:
    return Path(listen.removeprefix(UNIX)).resolve()  # /var/run is /run


def check_addresses(document: Document, config: Config, failed: set[str]) -> None:
    """Report listeners that cannot be opened beside each other, the page or the control socket, with where those stand."""
    if "listeners" in failed:
        return
    taken: list[tuple[str, str]] = []
    if "http" not in failed:
        taken.append((config.http.listen, f"the page{_at(document, ('http', 'listen'))}"))
    if not failed & {"control", "state_dir"}:
        taken.append((f"{UNIX}{config.control}", f"the control socket{_at(document, ('control',))}"))
        if (octets := len(os.fsencode(config.control))) > UNIX_PATH_MAX:
            document.report(
                ("control",),
                f"{config.control} has {octets} octets, but the path of a socket may have at most {UNIX_PATH_MAX} (set a shorter "
                "one)",
            )
    for index, listener in enumerate(config.listeners):
        if part(("listeners",), index) in failed:
            continue
        path: KeyPath = ("listeners", index, "listen")
        for other, whose in taken:
            if meet(listener.listen, other):
                text = f"{listener.listen} conflicts with {other}, {whose}"
                document.report(path, f"{text} (each needs its own address and port, or its own path)")
                break
        taken.append((listener.listen, f"the listener{_at(document, path)}"))


def _at(document: Document, path: KeyPath) -> str:
    """Return ` at FILE:LINE:COL`, or nothing for a default."""
    return f" at {document.value_place(path)}" if path in document.spots else ""
