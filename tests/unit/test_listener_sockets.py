"""Listening sockets: made by hand, handed over, and refused with a remedy."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

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


def test_a_taken_address_is_named() -> None:
    with bind("127.0.0.1:0") as sock:
        listen = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(AddressTaken, match=rf"{listen} is taken"):
            bind(listen)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:2525.*no such address"):
        bind("192.0.2.1:2525")


@pytest.mark.parametrize("listen", ["25", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:smtp"])
def test_no_address_at_all(listen: str) -> None:
    with pytest.raises(ListenError, match="is no HOST:PORT"):
        bind(listen)


def test_a_unix_socket_replaces_a_stale_one_only(tmp_path: Path) -> None:
    path = tmp_path / "submit.sock"
    first = bind(f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    with pytest.raises(AddressTaken):
        bind(f"unix:{path}")
    first.close()
    bind(f"unix:{path}").close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(AddressTaken):
        bind(f"unix:{path}")
    assert path.read_text() == "precious"


def test_systemds_sockets_are_matched_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with bind("127.0.0.1:0") as ours, bind("127.0.0.1:0") as other:
        wanted, unknown = os.dup(ours.fileno()), os.dup(other.fileno())
        first = min(wanted, unknown)
        monkeypatch.setattr(sockets, "FIRST_FD", first)
        count = max(wanted, unknown) - first + 1
        listen = f"127.0.0.1:{ours.getsockname()[1]}"
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}
        if count != 2:
            pytest.skip("the descriptors are not side by side")
        found = activated(["127.0.0.1:1", listen], environ)
        assert {name: sock.getsockname() for name, sock in found.items()} == {listen: ours.getsockname()}
        assert found[listen].proto == socket.IPPROTO_TCP
        assert environ == {"PATH": "/bin"}
        os.fstat(unknown)
        with pytest.raises(OSError):
            os.fstat(wanted)
        os.close(unknown)
        found[listen].close()


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}]
)
def test_nothing_is_taken_that_is_not_for_us(environ: dict[str, str]) -> None:
    assert activated(["127.0.0.1:25"], environ) == {}
    assert environ == {}
