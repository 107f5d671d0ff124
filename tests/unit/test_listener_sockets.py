"""Listening sockets: made by hand, handed over, and refused with a remedy."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from sesrelay.listener import AddressTaken, ListenError, activated, bind, sockets


def test_a_tcp_socket_gets_no_delay() -> None:
    with bind("127.0.0.1:0") as sock:
        assert sock.proto == socket.IPPROTO_TCP
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not sock.getblocking()


def test_an_ipv6_socket_leaves_ipv4_alone() -> None:
    try:
        sock = bind("[::1]:0")
    except ListenError:
        pytest.skip("no IPv6 here")
    with sock, bind(f"127.0.0.1:{sock.getsockname()[1]}"):
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@pytest.mark.parametrize("name", ["localhost", "LocalHost"])
def test_localhost_is_the_ipv4_one_whatever_etc_hosts_has_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's has both, and getaddrinfo puts ::1 in front."""
    resolve = socket.getaddrinfo

    def ipv6_first(host: str, *args: Any, **more: Any) -> Any:
        return resolve("::1" if host.lower() == "localhost" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", ipv6_first)
    with bind(f"{name}:0") as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_taken_address_is_named() -> None:
    with bind("127.0.0.1:0") as sock:
        listen = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(AddressTaken, match=rf"{listen} is taken"):
            bind(listen)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:2525.*no such address"):
        bind("192.0.2.1:2525")


def test_a_family_that_the_kernel_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without IPv6 still knows how its addresses are written."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    for listening in (lambda: bind("[::1]:25"), lambda: sockets.rehearse("[::1]:25", "listeners", ours=True)):
        with pytest.raises(ListenError, match=r"^\[::1\]:25: Address family not supported"):
            listening()


@pytest.mark.parametrize("listen", ["25", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:smtp"])
def test_no_address_at_all(listen: str) -> None:
    with pytest.raises(ListenError, match="is not HOST:PORT"):
        bind(listen)


def test_a_unix_socket_replaces_a_stale_one_only(tmp_path: Path) -> None:
    path = tmp_path / "submit.sock"
    first = bind(f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    with pytest.raises(AddressTaken):
        bind(f"unix:{path}")
    first.close()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    assert path.is_socket()
    bind(f"unix:{path}").close()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(AddressTaken):
        bind(f"unix:{path}")
    assert path.read_text() == "precious"


def test_a_unix_socket_takes_away_its_own_file_only(tmp_path: Path) -> None:
    path = tmp_path / "submit.sock"
    first = bind(f"unix:{path}")
    path.unlink()
    second = bind(f"unix:{path}")
    first.close()
    assert path.is_socket()
    second.close()
    second.close()
    assert not path.exists()
    third = bind(f"unix:{path}")
    path.unlink()
    third.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none/s.sock", "there is no folder .*/none: create it, owned by the relay's user"),
        ("x" * 108, "too long for a socket"),
        ("file/s.sock", "Not a directory"),
        pytest.param(
            "locked/s.sock",
            "no permission to create a socket in .*/locked",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="nothing is locked for root"),
        ),
    ],
)
def test_where_no_socket_can_be(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ListenError, match=f"^unix:.*: .*{said}"):
        bind(f"unix:{tmp_path / name}")


def handed_over(sock: socket.socket) -> int:
    """Return a descriptor that an exec has left open."""
    made = os.dup(sock.fileno())
    os.set_inheritable(made, True)
    return made


def test_systemds_unix_socket_is_matched_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(path))
        ours.listen()
        monkeypatch.setattr(sockets, "FIRST_FD", handed_over(ours))
        found, unnamed = activated([f"unix:{path}", "127.0.0.1:25"], {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
    assert (list(found), unnamed) == ([f"unix:{path}"], [])
    found[f"unix:{path}"].close()
    assert path.is_socket()  # its file is systemd's


def test_systemds_sockets_are_matched_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with bind("127.0.0.1:0") as ours, bind("127.0.0.1:0") as other:
        wanted, unknown = handed_over(ours), handed_over(other)
        first = min(wanted, unknown)
        monkeypatch.setattr(sockets, "FIRST_FD", first)
        count = max(wanted, unknown) - first + 1
        listen = f"127.0.0.1:{ours.getsockname()[1]}"
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}
        if count != 2:
            pytest.skip("the descriptors are not side by side")
        found, unnamed = activated(["127.0.0.1:1", listen], environ)
        assert {name: sock.getsockname() for name, sock in found.items()} == {listen: ours.getsockname()}
        assert found[listen].proto == socket.IPPROTO_TCP
        assert environ == {"PATH": "/bin"}
        (told,) = unnamed
        assert told.startswith(f"127.0.0.1:{other.getsockname()[1]} from systemd belongs to no configured listener")
        for handed in (wanted, unknown):
            with pytest.raises(OSError):
                os.fstat(handed)
        found[listen].close()


@pytest.mark.parametrize("kind", ["datagram", "connection", "one that does not listen"])
def test_what_cannot_be_listened_on_is_told_with_the_remedy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by ListenDatagram= or Accept=yes; the start ended with nothing but `Bad file descriptor`."""
    with bind("127.0.0.1:0") as ours, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        with socket.create_connection(ours.getsockname()) as client:
            idle = socket.socket()
            idle.bind(("127.0.0.1", 0))
            handed = {"datagram": datagram, "connection": client}.get(kind, idle)
            monkeypatch.setattr(sockets, "FIRST_FD", handed_over(handed))
            host, port = handed.getsockname()
            found, (told,) = activated([f"{host}:{port}"], {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
            idle.close()
    assert not found
    assert told.startswith(f"{host}:{port} from systemd is a socket that cannot accept connections (use ListenStream= and")


def test_more_than_was_handed_over_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind it is the relay's own, as the pair by which a loop wakes itself."""
    near, far = socket.socketpair()
    with near, far, Path(os.devnull).open() as file:
        monkeypatch.setattr(sockets, "FIRST_FD", near.fileno())
        os.set_inheritable(file.fileno(), True)
        before = os.listdir("/proc/self/fd")
        found, told = activated(["127.0.0.1:25"], {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "999999999"})
        assert os.listdir("/proc/self/fd") == before
        near.sendall(b"still there")
        assert far.recv(99) == b"still there"
        assert f"descriptor {file.fileno()} from systemd is not a socket" in "".join(told)
    assert not found


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "9" * 30},
    ],
)
def test_nothing_is_taken_that_is_not_for_us(environ: dict[str, str]) -> None:
    assert activated(["127.0.0.1:25"], environ) == ({}, [])
    assert environ == {}
