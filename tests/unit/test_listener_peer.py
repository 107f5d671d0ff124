"""Who owns the other end: what the kernel says of living connections, and that it says nothing of dead ones."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from sesrelay.listener import peer
from sesrelay.listener.peer import Owners, prove_owners, same_machine
from sesrelay.mail.envelope import Owner
from somebody import UNNAMED, as_root, somebody

ME = Owner(os.geteuid(), pwd.getpwuid(os.geteuid()).pw_name)
FAMILIES = {"IPv4": (socket.AF_INET, "127.0.0.1"), "IPv6": (socket.AF_INET6, "::1")}


@pytest.fixture
def owners() -> Iterator[Owners]:
    asker = Owners()
    yield asker
    asker.close()


@pytest.fixture(params=FAMILIES)
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family, host = FAMILIES[request.param]
    try:
        listening = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"no {request.param} here")
    with listening:
        yield listening


def ask(owners: Owners, accepted: socket.socket) -> Owner | None:
    return owners.of_tcp(accepted.getpeername(), accepted.getsockname())


def test_the_kernel_names_owners_here(monkeypatch: pytest.MonkeyPatch) -> None:
    prove_owners()
    monkeypatch.setattr(peer, "_NETLINK_SOCK_DIAG", 31)
    with pytest.raises(OSError, match=r"access\.local_users: the kernel does not say .* Protocol not supported"):
        prove_owners()


def test_a_living_connection_has_an_owner(owners: Owners, server: socket.socket) -> None:
    with socket.create_connection(server.getsockname()[:2]), server.accept()[0] as accepted:
        assert ask(owners, accepted) == ME


def test_what_is_closed_half_or_whole_has_none(owners: Owners, server: socket.socket) -> None:
    with socket.create_connection(server.getsockname()[:2]) as client, server.accept()[0] as accepted:
        client.shutdown(socket.SHUT_WR)
        assert ask(owners, accepted) is None
        client.close()
        assert ask(owners, accepted) is None


def test_a_stranger_who_listens_on_the_clients_port_is_not_its_owner(owners: Owners, server: socket.socket) -> None:
    for _ in range(20):
        with socket.create_connection(server.getsockname()[:2]) as client, server.accept()[0] as accepted:
            us, them = accepted.getsockname(), accepted.getpeername()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT keeps the port
            client.close()
            try:
                stranger = socket.create_server(them[:2], family=server.family)
            except OSError as error:
                assert error.errno == errno.EADDRINUSE
                continue  # some other program was given the port in between
            with stranger:
                assert owners.of_tcp(them, us) is None
                return
    pytest.fail("no port of a client's was ever free again")


def test_another_client_of_the_same_server_is_told_apart(owners: Owners, server: socket.socket) -> None:
    with socket.create_connection(server.getsockname()[:2]) as client, server.accept()[0] as accepted:
        host, port, *more = accepted.getpeername()
        assert owners.of_tcp((host, port ^ 1, *more), accepted.getsockname()) is None
        assert owners.of_tcp(accepted.getpeername(), ("192.0.2.1" if len(more) == 0 else "2001:db8::1", 25, *more)) is None
        assert client.getsockname() == accepted.getpeername()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")])
def test_ipv4_within_ipv6(owners: Owners, family: socket.AddressFamily, host: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.socket(family) as client,
    ):
        client.connect((host, server.getsockname()[1]))
        with server.accept()[0] as accepted:
            assert accepted.getpeername()[0] == "::ffff:127.0.0.1"
            assert ask(owners, accepted) == ME
            assert same_machine(accepted.getpeername(), accepted.getsockname())


def test_an_ipv6_program_that_calls_an_ipv4_server(owners: Owners) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        with server.accept()[0] as accepted:
            assert ask(owners, accepted) == ME


@as_root
@pytest.mark.parametrize("uid", [1, 65534, UNNAMED])
def test_somebody_elses_connection(owners: Owners, server: socket.socket, uid: int) -> None:
    with somebody(uid):
        client = socket.create_connection(server.getsockname()[:2])
    with client, server.accept()[0] as accepted:
        found = ask(owners, accepted)
    assert found == Owner(uid, "" if uid == UNNAMED else pwd.getpwuid(uid).pw_name)
    assert str(found) == ("uid 54321" if uid == UNNAMED else pwd.getpwuid(uid).pw_name)


def test_a_unix_socket_tells_who_connected(owners: Owners, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        with server.accept()[0] as accepted:
            client.close()
            assert owners.of_unix(accepted) == ME  # whatever became of the client


def test_who_is_hidden_by_a_user_namespace_is_nobody(
    owners: Owners, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "_overflow_uid", os.geteuid)
    hidden = Owners()
    with socket.create_connection(server.getsockname()[:2]), server.accept()[0] as accepted:
        assert ask(hidden, accepted) is None
        assert ask(owners, accepted) == ME
    hidden.close()


def test_names_are_asked_for_once_until_forgotten(owners: Owners, server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_connection(server.getsockname()[:2]), server.accept()[0] as accepted:
        assert ask(owners, accepted) == ME

        def renamed(uid: int) -> pwd.struct_passwd:
            return pwd.struct_passwd(("renamed", "x", uid, uid, "", "/", "/bin/sh"))

        monkeypatch.setattr(pwd, "getpwuid", renamed)
        assert ask(owners, accepted) == ME
        owners.forget()
        assert ask(owners, accepted) == Owner(ME.uid, "renamed")


def test_a_kernel_that_cannot_be_asked_is_an_error_and_asked_again(
    owners: Owners, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_connection(server.getsockname()[:2]), server.accept()[0] as accepted:
        with monkeypatch.context() as patch:
            patch.setattr(peer, "_NETLINK_SOCK_DIAG", 31)  # no such protocol, as where a filter forbids it
            with pytest.raises(OSError, match="Protocol not supported"):
                ask(owners, accepted)
        with monkeypatch.context() as patch:
            patch.setattr(peer, "_SOCK_DIAG_BY_FAMILY", 99)
            with pytest.raises(OSError, match="Invalid argument"):
                ask(owners, accepted)
        assert ask(owners, accepted) == ME


def test_a_late_answer_is_not_taken_for_another(owners: Owners, server: socket.socket) -> None:
    with socket.create_connection(server.getsockname()[:2]), server.accept()[0] as accepted:
        assert ask(owners, accepted) == ME
        assert owners._netlink is not None
        stale = peer._REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0) + bytes(48)
        header = peer._HEADER.pack(peer._HEADER.size + len(stale), peer._SOCK_DIAG_BY_FAMILY, 1, 4_000_000_000, 0)
        owners._netlink.send(header + stale)  # answered, and never read
        assert ask(owners, accepted) == ME


@pytest.mark.parametrize(
    ("client", "here", "same"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", 25), True),
        (("127.9.9.9", 1), ("192.0.2.1", 25), True),
        (("::1", 1, 0, 0), ("::1", 25, 0, 0), True),
        (("192.0.2.1", 1), ("192.0.2.1", 25), True),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::1%eth0", 25, 0, 2), True),
        (("::ffff:192.0.2.1", 1, 0, 0), ("::ffff:192.0.2.1", 25, 0, 0), True),
        (("192.0.2.2", 1), ("192.0.2.1", 25), False),
        (("2001:db8::2", 1, 0, 0), ("2001:db8::1", 25, 0, 0), False),
    ],
)
def test_what_certainly_comes_from_this_machine(client: tuple[object, ...], here: tuple[object, ...], same: bool) -> None:
    assert same_machine(client, here) is same
