"""Listeners across a reload: what cannot follow is said truthfully, and what somebody took away comes back."""

from __future__ import annotations

import smtplib
import socket
from pathlib import Path

import pytest

from relay_process import Relay

MORE = "transports: {nowhere: {type: discard}}\ndefault_route: {transport: nowhere}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listen(relay: Relay, *listens: str, http: str = "127.0.0.1:0") -> None:
    """Have the configuration name these listeners and this page."""
    relay.write(MORE)
    lines = relay.config.read_text().splitlines()
    lines[3:5] = ["listeners:", *(f"- listen: '{one}'" for one in listens), f"http: {{listen: '{http}'}}"]
    relay.config.write_text("\n".join([*lines, "access: {networks: [127.0.0.0/8, 192.0.2.0/24]}"]))


@pytest.mark.parametrize(
    ("listener", "page", "at_fault", "ours"),
    [
        ("0.0.0.0:{mail}", "127.0.0.1:{page}", "0.0.0.0:{mail}", "127.0.0.1:{mail}"),
        ("localhost:{mail}", "127.0.0.1:{page}", "localhost:{mail}", "127.0.0.1:{mail}"),
        ("127.0.0.1:{page}", "127.0.0.1:0", "127.0.0.1:{page}", "127.0.0.1:{page}"),
        ("127.0.0.1:0", "127.0.0.1:{mail}", "127.0.0.1:{mail}", "127.0.0.1:{mail}"),
    ],
)
def test_an_address_that_our_own_sockets_keep_wants_a_restart(
    listener: str, page: str, at_fault: str, ours: str, tmp_path: Path
) -> None:
    ports = {"mail": free_port(), "page": free_port()}
    relay = Relay(tmp_path, MORE)
    listen(relay, "127.0.0.1:{mail}".format(**ports), http="127.0.0.1:{page}".format(**ports))
    with relay:
        listen(relay, listener.format(**ports), http=page.format(**ports))
        assert relay.run("check").returncode == 0
        assert relay.ask("reload")["problems"] == [
            f"{at_fault} cannot be opened while the daemon, as it runs, listens on {ours}: restart it".format(**ports)
        ]
        with smtplib.SMTP("127.0.0.1", ports["mail"], timeout=30) as smtp:
            assert smtp.noop()[0] == 250
        assert relay.get("/healthz")
