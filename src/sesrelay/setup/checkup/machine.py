"""The machine around the relay: ports and who has them, the queue, who may send as whom.

Source: proc(5): /proc/net/tcp lists sockets by inode, /proc/PID/fd who holds them.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sesrelay.config.doors import is_loopback
from sesrelay.config.loading import Loaded
from sesrelay.config.model import Listener
from sesrelay.config.values import LOOPBACK, UNIX
from sesrelay.setup.checkup.check import Check, fail, ok, warn

OLD = 3600.0  # seconds after which a message that waits is worth a look
UNITS = {"master": "postfix", "sendmail-mta": "sendmail"}  # of mail servers whose process has another name than their unit
LISTEN = "0A"  # the state of a socket that listens, in /proc/net/tcp


def listeners(loaded: Loaded, open_now: Collection[str] | None) -> Iterator[Check]:
    """Look at each address where mail is to be taken. `open_now`: those that a running relay has; None: none runs."""
    for name in loaded.passed_over:
        yield ok("listener", name, "skipped, because this machine has no IPv6")
    for listener in loaded.config.listeners:
        name = listener.listen
        if open_now is not None and name in open_now:
            yield ok("listener", name, "the relay accepts mail here")
        elif open_now is not None:
            yield fail("listener", name, "the running relay does not listen here", "systemctl reload sesrelay")
        elif not name.startswith(UNIX):
            yield _can_bind(listener)


def reach(loaded: Loaded) -> Iterator[Check]:
    """Tell of listeners beyond this machine where no other host may connect, login or not, and of those on it where nobody may."""
    networks = loaded.config.access.networks
    beyond = any(not network.is_loopback for network in networks)
    for listener in loaded.config.listeners:
        name = listener.listen
        if name.startswith(UNIX):
            continue
        if not is_loopback(name):
            if not beyond:
                yield warn(
                    "listener", name, "only this machine may connect", "add the networks of the other hosts to access.networks"
                )
            continue
        host = ipaddress.ip_address(listener.address.host)
        home = next(network for network in LOOPBACK if network.version == host.version)
        if not any(network.version == home.version and network.overlaps(home) for network in networks):
            yield warn("listener", name, "nobody may connect", f"add {home} to access.networks")


def relay(version: str | None) -> Check:
    """Tell whether a relay runs."""
    if version is None:
        return warn("relay", "sesrelay", "the relay is not running", "systemctl start sesrelay (or: sesrelay run)")
    return ok("relay", "sesrelay", f"version {version} is running")


def queue(summary: Mapping[str, Any]) -> Iterator[Check]:
    """Look at what waits, by the document of `queue summary`."""
    for pause in summary["paused"]:
        about = " ".join(filter(None, (pause["transport"], pause.get("domain") or pause.get("route") or pause["nexthop"])))
        cap = pause.get("cap")  # what a route's owner wants of it is no fault
        said = warn if cap else fail
        yield said("paused", about, f"{cap or pause['reason']}, since {pause['since']}", pause["remedy"] or "sesrelay queue list")
    held = summary["by_state"].get("held", 0)
    if held:
        yield warn(
            "held", "queue", f"{held} deliveries wait for an operator", "sesrelay queue list --state held, then release or delete"
        )
    oldest = summary["oldest_seconds"]
    if oldest is not None and oldest > OLD:
        yield warn("queue", "queue", f"the oldest message has waited for {oldest / 3600:.1f} hours", "sesrelay queue list")
    elif not held:
        yield ok("queue", "queue", f"{summary['messages']} messages wait")
    kept = summary.get("undeliverable") or {}
    if kept.get("messages"):
        yield warn(
            "bounces", str(kept["folder"]), f"{kept['messages']} bounces could not be sent", "read them there, then delete them"
        )


def senders(loaded: Loaded) -> Iterator[Check]:
    """Tell which routed senders any client may use: on a host of many sites that is worth knowing."""
    if not loaded.senders:
        yield ok("senders", "access", "no sender is restricted: every client that may connect may use any of them")
        return
    free = [rule.pattern for rule in loaded.routing.rules if not loaded.senders.binds(rule.pattern)]
    if free:
        yield warn(
            "senders",
            ", ".join(free),
            "any client may send as these",
            "restrict them in access.local_users or access.users (docs/sites.md)",
        )
    else:
        yield ok("senders", "access", "each routed sender is restricted to certain users")


def _can_bind(listener: Listener) -> Check:
    """Try an address that nobody of ours has."""
    host, port = listener.address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                holder = holder_of(port)
                stop = _stop(holder.split()[0]) if holder else "see: ss -ltnp"
                return fail(
                    "listener", listener.listen, f"in use by {holder or 'another program'}", f"{stop}, or choose another address"
                )
            if error.errno == errno.EACCES:
                return warn("listener", listener.listen, "only root can tell whether it is free", "run doctor as root")
            return fail(
                "listener", listener.listen, f"cannot listen here: {error.strerror}", "correct listeners in the configuration"
            )
    return ok("listener", listener.listen, "free")


def _stop(name: str) -> str:
    """Return what to do about a program that has the port, by its name."""
    if name == "sesrelay":
        return "it runs with another or an older configuration: give that one with --config, or restart it"
    if name == "systemd":
        return "find the socket unit: systemctl list-sockets (if it is the relay's own: systemctl start sesrelay)"
    return f"systemctl disable --now {UNITS.get(name, name)}"


def holder_of(port: int) -> str | None:
    """Return `name (pid N)` of the program that listens on a TCP port, or None where that cannot be seen."""
    wanted = set(_listening(port))
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and wanted & set(_open_files(entry)):
            return f"{_name(entry)} (pid {entry.name})"
    return None


def _open_files(process: Path) -> Iterator[str]:
    """Yield what a process has open; nothing where it is not ours to look into."""
    try:
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                yield str(link.readlink())
    except OSError:
        return


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a program that has just ended"


def _listening(port: int) -> Iterator[str]:
    """Yield the links that stand for sockets which listen on `port`, as /proc/PID/fd has them."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"
