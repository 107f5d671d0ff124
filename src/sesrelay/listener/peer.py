"""Who is at the other end of a connection on this machine, by the kernel's word alone.

A Unix socket tells it of itself (SO_PEERCRED). For TCP the kernel is asked about the client's own socket, exactly the one
whose two addresses are ours the other way round.

Invariant: an owner is named only for a socket that is ESTABLISHED and has an inode. A closed one has neither inode nor
true owner, and where there is none any more the kernel answers with whoever listens on that port.

Source: sock_diag(7), linux/inet_diag.h, unix(7), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import pwd
import socket
import struct
from pathlib import Path

from sesrelay.mail.envelope import Owner

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_ESTABLISHED = 1
_ANY_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port: nlmsghdr
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states: inet_diag_req_v2 without its socket
_SOCKET = struct.Struct("=2s2s16s16sI8s")  # ports, addresses, interface, cookie: inet_diag_sockid
_ANSWER = struct.Struct("=BBBB")  # family, state, timer, retransmissions: inet_diag_msg without its socket and …
_COUNTS = struct.Struct("=IIIII")  # … expires, two queues, uid, inode
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid: ucred
_ALL_STATES = 0xFFFFFFFF
_NOT_TOLD = (
    "the kernel does not say who owns a TCP connection (NETLINK_SOCK_DIAG; a container or RestrictAddressFamilies may forbid it): "
    "allow it, or use only Unix sockets under listeners"
)
_PATIENCE = 1.0  # seconds; the kernel answers within the call that asks
_ANSWER_MAX = 2**16  # octets of an answer, more than there ever are


class Owners:
    """Asks the kernel about clients, and the machine for the names of uids.

    A name is asked for once; `forget` it when the configuration is read anew.
    """

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        self._sequence = 0
        self._names: dict[int, str] = {}
        self._stranger = _overflow_uid()

    def close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def forget(self) -> None:
        """Let the names of uids be looked up anew."""
        self._names.clear()

    def of_unix(self, sock: socket.socket) -> Owner | None:
        """Return who connected to a Unix socket; None: somebody of another user namespace. Raises: OSError"""
        _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return self._owner(uid)

    def of_tcp(self, client: tuple[object, ...], here: tuple[object, ...]) -> Owner | None:
        """Return who owns the client's socket, or None: another machine or network namespace, or it is closed already.

        `client` and `here` are the two addresses of our socket, as getpeername and getsockname say. Raises: OSError,
        where the kernel cannot be asked.
        """
        family, from_address, from_port, scope = _packed(client)
        _, to_address, to_port, _ = _packed(here)
        wanted = _SOCKET.pack(from_port, to_port, from_address, to_address, scope, _ANY_COOKIE)
        answer = self._ask(_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + wanted)
        if answer is None or len(answer) < _ANSWER.size + _SOCKET.size + _COUNTS.size:
            return None
        state = _ANSWER.unpack_from(answer)[1]
        ports = _SOCKET.unpack_from(answer, _ANSWER.size)[:2]
        *_, uid, inode = _COUNTS.unpack_from(answer, _ANSWER.size + _SOCKET.size)
        if state != _ESTABLISHED or not inode or ports != (from_port, to_port):
            return None
        return self._owner(uid)

    def _owner(self, uid: int) -> Owner | None:
        if uid == self._stranger:
            return None
        name = self._names.get(uid)
        if name is None:
            try:
                name = pwd.getpwuid(uid).pw_name
            except KeyError:
                name = ""
            self._names[uid] = name
        return Owner(uid, name)

    def _ask(self, question: bytes) -> bytes | None:
        """Return the kernel's answer, or None where there is no such socket. Raises: OSError"""
        if self._netlink is None:
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
            netlink.settimeout(_PATIENCE)
            self._netlink = netlink
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        length = _HEADER.size + len(question)
        try:
            self._netlink.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, self._sequence, 0) + question)
            while True:
                data = self._netlink.recv(_ANSWER_MAX)
                length, kind, _, sequence, _ = _HEADER.unpack_from(data)
                if sequence == self._sequence:  # else the answer to a question that was given up
                    break
        except OSError:
            self.close()
            raise
        content = data[_HEADER.size : length]
        if kind != _NLMSG_ERROR:
            return content
        error = -struct.unpack_from("=i", content)[0]
        if error == errno.ENOENT:
            return None
        raise OSError(error, os.strerror(error))


def same_machine(client: tuple[object, ...], here: tuple[object, ...]) -> bool:
    """Tell whether a TCP connection certainly comes from this machine: from loopback, or from the very address it goes to."""
    return _plain(client).is_loopback or _plain(client) == _plain(here)


def prove_owners() -> None:
    """Make sure that the kernel names the owners of TCP connections: it has to know our own. Raises: OSError"""
    try:
        found = _own()
    except OSError as error:
        raise OSError(error.errno, f"access.local_users: {_NOT_TOLD}: {error.strerror}") from error
    if found is None or found.uid != os.geteuid():
        raise OSError(errno.ENOSYS, f"access.local_users: {_NOT_TOLD}")


def _own() -> Owner | None:
    with (
        contextlib.closing(Owners()) as owners,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        return owners.of_tcp(client.getsockname(), server.getsockname())


def _plain(address: tuple[object, ...]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def _packed(address: tuple[object, ...]) -> tuple[int, bytes, bytes, int]:
    """Return family, address, port and interface as the kernel wants them; an IPv4-mapped address is an IPv4 one."""
    plain = _plain(address)
    family = socket.AF_INET if plain.version == 4 else socket.AF_INET6
    scope = address[3] if len(address) > 3 and plain.is_link_local else 0
    return family, plain.packed.ljust(16, b"\0"), struct.pack("!H", address[1]), scope if isinstance(scope, int) else 0


def _overflow_uid() -> int | None:
    """Return the uid by which the kernel shows everybody of another user namespace; None: all are of ours."""
    try:
        if Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
