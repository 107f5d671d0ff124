"""Listening sockets: made by hand, or handed over by systemd.

Invariant: TCP sockets have proto=IPPROTO_TCP: with 0 asyncio leaves TCP_NODELAY off, and each new connection costs
44 ms of delayed acknowledgement.

Source: sd_listen_fds(3); RFC 3493 §5.3 (IPV6_V6ONLY).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from pathlib import Path

BACKLOG = 1024
FIRST_FD = 3  # SD_LISTEN_FDS_START
FDS_MAX = 1024  # that are looked at, however many are said to be there
UNIX_PREFIX = "unix:"
ANYBODY = 0o666  # like 127.0.0.1:25: every local user may submit


class ListenError(Exception):
    """An address cannot be listened on; the text names it and the remedy, for a person."""


class AddressTaken(ListenError):
    """Another program listens there."""


class AddressAway(ListenError):
    """The machine has no such address, or not yet: a bridge of containers may come."""


def parse(listen: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:25`, `[::1]:25`, `localhost:25`; port -1: the host is a Unix path.

    `localhost` is 127.0.0.1, as the configuration takes it, whatever /etc/hosts has first. Raises: ListenError
    """
    if listen.startswith(UNIX_PREFIX):
        return listen.removeprefix(UNIX_PREFIX), -1
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ListenError(f"{listen} is not HOST:PORT, [IPV6]:PORT or unix:PATH")
    if host.lower() == "localhost":
        host = "127.0.0.1"
    return "0.0.0.0" if host in ("", "*") else host, int(port)


def bind(listen: str) -> socket.socket:
    """Return a socket that listens where `listen` says. Raises: ListenError, AddressTaken"""
    host, port = parse(listen)
    if port < 0:
        return bind_unix(host, listen)
    sock = _bound(listen, host, port)
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _explained(listen, port, error) from error
    return sock


def rehearse(listen: str, key: str, *, ours: bool) -> None:
    """Find out whether `bind` or `bind_unix` could succeed here, where the address is free and this user may have the port.

    `ours`: whether this user is the one that would do it, so that rights count. Raises: ListenError, AddressAway
    """
    host, port = parse(listen)
    if port >= 0:
        _bound(listen, host, 0, key).close()
        return
    why = _unfit(Path(host), ours=ours)
    if why:
        raise _explained_unix(listen, host, key, OSError(why, os.strerror(why)))


def _unfit(path: Path, *, ours: bool) -> int:
    """Return the errno with which a socket could not be made there, 0 where nothing is known of one.

    Where a socket is, the folder's rights do not count: systemd, which may hand it over, has made it.
    """
    try:
        if not stat.S_ISDIR(_mode(path.parent)):
            return errno.ENOENT
        there = _mode(path)
    except PermissionError:
        return errno.EACCES if ours else 0
    if there:
        return 0 if stat.S_ISSOCK(there) else errno.EADDRINUSE
    return errno.EACCES if ours and not os.access(path.parent, os.W_OK | os.X_OK) else 0


def _mode(path: Path) -> int:
    """Return the mode of what is there, 0 for nothing. Raises: PermissionError, which `is_dir` of Python 3.14 keeps to itself"""
    try:
        return path.stat().st_mode
    except PermissionError:
        raise
    except OSError:
        return 0


def _bound(listen: str, host: str, port: int, key: str = "listeners") -> socket.socket:
    """Return a socket that has the address and does not listen. Raises: ListenError"""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"{listen}: {host} is not an address of this machine ({error.strerror}); change {key}") from error
    family, address = found[0][0], found[0][4]
    try:
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:  # a kernel without IPv6, for one
        raise _explained(listen, port, error, key) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _explained(listen, port, error, key) from error
    return sock


def _explained(listen: str, port: int, error: OSError, key: str = "listeners") -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return AddressTaken(
            f"{listen} is taken: another program listens there (see: ss -ltnp 'sport = :{port}'); stop it, or change {key}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ListenError(
            f"{listen}: no permission for port {port}: run with CAP_NET_BIND_SERVICE or socket activation, or use a port above 1023"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return AddressAway(f"{listen}: no such address on this machine; change {key}")
    return ListenError(f"{listen}: {error.strerror}")


class UnixListener(socket.socket):
    """A listening Unix socket that takes its file away when it is closed, unless another one has taken the place."""

    _made: tuple[str, tuple[int, int]] | None = None

    def appear(self, path: str, mode: int) -> None:
        """Bind to `path`, for those to connect to whom `mode` lets write. Raises: OSError"""
        self.bind(path)
        self._made = str(Path(path).absolute()), _identity(path)
        Path(path).chmod(mode)  # nobody connects before `listen`, whatever the umask was
        self.listen(BACKLOG)

    @property
    def lost(self) -> bool:
        """Whether its file is gone, or another one in its place, so that no client finds it."""
        if self._made is None:
            return False
        path, identity = self._made
        try:
            return _identity(path) != identity
        except FileNotFoundError:
            return True
        except OSError:  # it cannot be seen, and nothing could be made there either
            return False

    def close(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            path, identity = made
            with contextlib.suppress(OSError):  # it is gone already, or in a folder that is not ours any more
                if _identity(path) == identity:
                    Path(path).unlink()
        super().close()


def _identity(path: str) -> tuple[int, int]:
    found = Path(path).lstat()
    return found.st_dev, found.st_ino


def bind_unix(path: str, name: str, key: str = "listeners", mode: int = ANYBODY) -> UnixListener:
    """Return a socket that listens at `path`, in place of a stale one and of nothing else.

    `name` and `key` are how errors call it, and where they say that it can be changed. Raises: ListenError, AddressTaken
    """
    sock = UnixListener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path, name, key)
        sock.setblocking(False)
        sock.appear(path, mode)
    except OSError as error:
        sock.close()
        raise _explained_unix(name, path, key, error) from error
    except ListenError:
        sock.close()
        raise
    return sock


def _explained_unix(name: str, path: str, key: str, error: OSError) -> ListenError:
    folder = Path(path).parent
    if error.errno == errno.EADDRINUSE:
        return AddressTaken(f"{name} is taken: something other than a stale socket is there; remove it, or change {key}")
    if error.errno == errno.ENOENT:
        return ListenError(
            f"{name}: there is no folder {folder}: create it, owned by the relay's user (systemd: RuntimeDirectory=), "
            f"or change {key}"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ListenError(
            f"{name}: no permission to create a socket in {folder}: give the folder to the relay's user, or change {key}"
        )
    if error.errno is None:  # Python's own: AF_UNIX path too long
        return ListenError(f"{name}: the path is too long for a socket (107 octets): change {key}")
    return ListenError(f"{name}: {error.strerror}")


def _remove_stale(path: str, name: str, key: str) -> None:
    """Remove the socket that a process which was killed left behind."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
            return
        except OSError:
            pass  # it has a listener that is slow, or that we may not speak to
    raise AddressTaken(f"{name} is taken: another program listens there; stop it, or change {key}")


def activated(listens: Iterable[str], environ: MutableMapping[str, str]) -> tuple[dict[str, socket.socket], list[str]]:
    """Return the sockets that systemd hands over, by the `listen` that names their address; forget them in `environ`.

    A socket of another kind, or that no `listen` names, is closed; the second result tells of each, with the remedy. What is
    not there, or was opened since (which no exec leaves open), is not ours to take.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not (count.isdecimal() and len(count) < 10):
        return {}, []
    wanted = {_key(*parse(listen)): listen for listen in listens}
    taken: dict[str, socket.socket] = {}
    unnamed: list[str] = []
    for fd in range(FIRST_FD, FIRST_FD + min(int(count), FDS_MAX)):
        if not _inherited(fd):
            continue
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            unnamed.append(f"descriptor {fd} from systemd is not a socket (use ListenStream= in the socket unit)")
            continue
        sock = socket.socket(fileno=os.dup(fd))
        os.close(fd)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            unnamed.append(
                f"{shown(sock)} from systemd is a socket that cannot accept connections"
                " (use ListenStream= and Accept=no in the socket unit)"
            )
            sock.close()
            continue
        name = sock.getsockname()
        listen = wanted.get(_key(name, -1) if sock.family == socket.AF_UNIX else _key(name[0], name[1]))
        if listen is None:
            unnamed.append(
                f"{shown(sock)} from systemd belongs to no configured listener, so clients there get no answer"
                " (remove it from the socket unit, or add it as `listen` under listeners)"
            )
            sock.close()
            continue
        sock.setblocking(False)
        taken[listen] = sock
    return taken, unnamed


def _inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # there is none
        return False


def _key(host: str, port: int) -> tuple[str, int]:
    if port >= 0:
        with contextlib.suppress(ValueError):
            host = str(ipaddress.ip_address(host))
    return host, port


def shown(sock: socket.socket) -> str:
    """Return where a socket really listens, as `listen` would be written."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"{UNIX_PREFIX}{os.fsdecode(name)}"
    return f"[{name[0]}]:{name[1]}" if ":" in str(name[0]) else f"{name[0]}:{name[1]}"
