"""Listeners across a reload: what cannot follow is said truthfully, and what somebody took away comes back."""

from __future__ import annotations

import asyncio
import signal
import smtplib
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from batches import unused_port
from relay_process import Relay, wait_for
from sesrelay.app.daemon import Daemon
from sesrelay.config.loading import load

MORE = "transports: {nowhere: {type: discard}}\ndefault_route: {transport: nowhere}"


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
    ports = {"mail": unused_port(), "page": unused_port()}
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


def greeted(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        return client.recv(200).startswith(b"220 ")


def test_a_unix_socket_that_somebody_took_away_is_made_again(tmp_path: Path) -> None:
    relay, path = Relay(tmp_path, MORE), tmp_path / "submit.sock"
    listen(relay, f"unix:{path}", "127.0.0.1:0")
    with relay:
        path.unlink()
        assert relay.process is not None
        relay.process.send_signal(signal.SIGHUP)
        wait_for("the socket is there again", path.is_socket)
        assert greeted(path)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        assert relay.ask("reload")["ok"], "what a dead program left there is replaced"
        assert greeted(path)
        made = path.stat().st_ino
        assert relay.ask("reload")["ok"]
        assert path.stat().st_ino == made, "a socket that can be found is left alone"
        path.unlink()
        path.write_text("precious")
        (problem,) = relay.ask("reload")["problems"]
        assert "something other than a stale socket is there" in problem
        path.unlink()
        assert relay.ask("reload")["ok"]
        assert greeted(path)
        assert relay.stop() == 0
        assert not path.exists()


def test_the_page_stays_where_it_is_until_its_new_place_is_open(tmp_path: Path) -> None:
    relay, free = Relay(tmp_path, MORE), unused_port()
    listen(relay, "127.0.0.1:0")
    with relay, socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        listen(relay, "127.0.0.1:0", http=taken)
        (problem,) = relay.ask("reload")["problems"]
        assert problem.startswith(f"cannot listen on {taken} for HTTP: "), problem
        assert relay.ask("status")["http"] == f"{relay.http}/"
        assert relay.get("/healthz")
        listen(relay, "127.0.0.1:0", http=f"127.0.0.1:{free}")
        assert relay.ask("reload")["ok"]
        assert relay.ask("status")["http"] == f"http://127.0.0.1:{free}/"
        urllib.request.urlopen(f"http://127.0.0.1:{free}/healthz").close()

        def closed() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", int(relay.http.rpartition(":")[2]))) != 0

        wait_for("the old place is closed", closed)
        assert relay.stop() == 0


async def test_an_end_that_overtakes_a_reload_opens_no_door_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relay, path, read = Relay(tmp_path, MORE), tmp_path / "submit.sock", threading.Event()
    listen(relay, f"unix:{path}")
    daemon = Daemon(load(relay.config), relay.config)
    await daemon.start()

    def slow(*args: Any, **named: Any) -> Any:
        read.wait(30)
        return load(*args, **named)

    monkeypatch.setattr("sesrelay.app.daemon.load", slow)
    reload = asyncio.create_task(daemon.reload())
    await asyncio.sleep(0.05)
    stop = asyncio.create_task(daemon.stop())
    await asyncio.sleep(0.05)
    read.set()
    assert (await reload)["problems"] == ["the daemon is stopping"]
    await stop
    assert not path.exists()
