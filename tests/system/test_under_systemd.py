"""What a service manager sees: sockets handed over, readiness, signs of life, the end; played by real programs and a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from batches import unused_port
from peers import require
from relay_process import PYTHON, Relay, wait_for
from sesrelay.app.daemon import Daemon
from sesrelay.config.loading import load

MORE = "transports: {nowhere: {type: discard}}\ndefault_route: {transport: nowhere}"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end of the notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def test_ready_alive_and_stopping_are_told(tmp_path: Path, manager: socket.socket) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    with Relay(tmp_path, MORE, env=env) as relay:
        first = manager.recv(4096).decode()
        assert first.splitlines()[0] == "READY=1"
        assert {manager.recv(4096) for _ in range(3)} == {b"WATCHDOG=1"}
        assert relay.stop() == 0
        told = b""
        while told != b"STOPPING=1":
            told = manager.recv(4096)
            assert told in (b"WATCHDOG=1", b"STOPPING=1")


@pytest.mark.parametrize("moment", ["while it starts", "once it is ready"])
def test_a_reload_that_comes_early_is_done_and_ends_nothing(tmp_path: Path, manager: socket.socket, moment: str) -> None:
    relay = Relay(tmp_path, MORE, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    with relay.log.open("ab") as log:
        command = [PYTHON, "-m", "sesrelay", "run", "--config", str(relay.config)]
        process = relay.process = subprocess.Popen(command, env=relay.env, stderr=log)
    try:
        if moment == "while it starts":
            wait_for("the start has begun", (tmp_path / "state/lock").exists, 90.0)
            process.send_signal(signal.SIGHUP)
            assert manager.recv(4096).startswith(b"READY=1")
        else:
            assert manager.recv(4096).startswith(b"READY=1")
            process.send_signal(signal.SIGHUP)  # systemd takes an end by it for a clean one, and starts nothing anew
        wait_for("the reload", lambda: process.poll() is not None or len(relay.events("reloaded")) == 2)
        assert [event["ok"] for event in relay.events("reloaded")] == [True, True]
        assert relay.stop() == 0
    finally:
        relay.__exit__()


def test_a_reload_that_was_refused_stands_in_the_status(tmp_path: Path, manager: socket.socket) -> None:
    with Relay(tmp_path, MORE, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as relay:
        ready = manager.recv(4096).decode()
        relay.write(f"{MORE}\nnonsense: 1")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert not relay.ask("reload")["ok"]
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        begun = manager.recv(4096).decode()  # sd_notify(3): what Type=notify-reload waits for, by the clock that it compares with
        assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert before <= int(begun.rpartition("=")[2]) <= after
        told = manager.recv(4096).decode()
        assert told.startswith(f"{ready}; the last reload was refused: {relay.config}:")
        assert len(told.splitlines()) == 2
        relay.write(MORE)
        assert relay.ask("reload")["ok"]
        assert manager.recv(4096).decode().startswith("RELOADING=1\n")
        assert manager.recv(4096).decode() == ready


async def test_a_reload_that_fails_by_a_fault_of_ours_has_ended_too(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    relay = Relay(tmp_path, MORE)
    daemon = Daemon(load(relay.config), relay.config)
    await daemon.start()
    ready = manager.recv(4096).decode()

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("seven by nothing")

    monkeypatch.setattr("sesrelay.app.daemon.load", fails)
    assert await daemon.reload() == {"ok": False, "problems": ["it failed, and the log says why"]}
    assert manager.recv(4096).startswith(b"RELOADING=1\n")
    assert manager.recv(4096).decode() == f"{ready}; the last reload was refused: it failed, and the log says why"
    assert b"sesrelay_config_reload_success 0.0" in await daemon._metrics_text()
    await daemon.stop()
    assert "seven by nothing" in capfd.readouterr().err


@pytest.mark.parametrize(("config", "code"), [("nonsense: 1", 78), (f"{MORE}\ncontrol: /nowhere/control.sock", 1)])
def test_the_journal_takes_why_there_was_no_start_for_an_error(tmp_path: Path, config: str, code: int) -> None:
    relay = Relay(tmp_path, MORE)
    relay.config.write_text(relay.config.read_text().replace(f"control: {relay.control}\n", "").replace(MORE, config))
    with (tmp_path / "journal").open("w+") as journal:
        found = os.fstat(journal.fileno())
        env = {**relay.env, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        done = subprocess.run(
            [PYTHON, "-m", "sesrelay", "run", "--config", str(relay.config)], env=env, stderr=journal, timeout=60, check=False
        )
        journal.seek(0)
        lines = journal.read().splitlines()
    assert done.returncode == code
    assert lines
    assert all(line.startswith("<3>") for line in lines)


def test_no_sign_of_life_for_another_process(tmp_path: Path, manager: socket.socket) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}
    with Relay(tmp_path, MORE, env=env) as relay:
        assert manager.recv(4096).startswith(b"READY=1")
        assert relay.stop() == 0
        assert manager.recv(4096) == b"STOPPING=1"


@pytest.mark.peer
def test_a_socket_handed_over_is_served(tmp_path: Path) -> None:
    activate = require("systemd-socket-activate")
    port = unused_port()
    relay = Relay(tmp_path, MORE)
    relay.config.write_text(relay.config.read_text().replace('listen: "127.0.0.1:0"}]', f'listen: "127.0.0.1:{port}"}}]', 1))
    command = activate.command("-l", f"127.0.0.1:{port}", PYTHON, "-m", "sesrelay", "run", "--config", str(relay.config))
    with relay.log.open("ab") as log:
        process = relay.process = subprocess.Popen(command, env={**relay.env, "PATH": relay.env["PATH"]}, stderr=log)
    try:
        # The manager listens already; the daemon is started by the first connection and finds its address taken, by itself.
        def connect() -> smtplib.SMTP | None:
            try:
                return smtplib.SMTP("127.0.0.1", port, timeout=30)
            except ConnectionRefusedError:
                return None

        with wait_for("the manager listens", connect) as smtp:
            assert smtp.sendmail("a@example.com", ["b@example.org"], "Subject: x\r\n\r\nx\r\n") == {}
        assert relay.ask("status")["listeners"] == {f"127.0.0.1:{port}": ["127.0.0.1", port]}
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_a_socket_that_no_listener_names_is_told_of_and_closed(tmp_path: Path) -> None:
    relay = Relay(tmp_path, MORE)
    # As systemd does: the socket is descriptor 3, and LISTEN_PID is the process that execs the daemon.
    start = (
        "import os, sys\nfd = int(sys.argv[1])\nif fd != 3:\n os.dup2(fd, 3)\n os.close(fd)\n"
        "os.execve(sys.executable, [sys.executable, '-m', 'sesrelay', 'run', '--config', sys.argv[2]],"
        " {**os.environ, 'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'})"
    )
    with socket.create_server(("127.0.0.1", 0)) as handed:
        where = handed.getsockname()
        command = [PYTHON, "-c", start, str(handed.fileno()), str(relay.config)]
        with relay.log.open("ab") as log:
            relay.process = subprocess.Popen(command, env=relay.env, stderr=log, pass_fds=[handed.fileno()])
        with socket.create_connection(where, timeout=10):
            pass
    try:
        relay.status = wait_for("the daemon is ready", relay._look, 90.0)
        (told,) = relay.events("trouble")
        assert told["what"].startswith(f"127.0.0.1:{where[1]} from systemd belongs to no configured listener")
        assert "under listeners" in told["what"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where, timeout=10)
        assert relay.stop() == 0
    finally:
        relay.__exit__()


def test_a_full_disk_is_not_ready_and_yet_alive(tmp_path: Path, manager: socket.socket) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    with Relay(tmp_path, f"{MORE}\nlimits: {{min_free_disk: 900000GB}}", env=env) as relay:
        assert manager.recv(4096).startswith(b"READY=1")
        assert {manager.recv(4096) for _ in range(3)} == {b"WATCHDOG=1"}, "a restart mends no full disk"
        assert relay.ask("status")


async def test_an_end_is_not_lost_on_the_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop` waits for it, and would until systemd kills the daemon; the store may answer in that very moment."""
    monkeypatch.setenv("WATCHDOG_USEC", "600000000")
    relay = Relay(tmp_path, "")
    daemon = Daemon(load(relay.config), relay.config)
    answered = asyncio.get_running_loop().create_future()

    async def refresh() -> None:
        await answered

    monkeypatch.setattr(daemon, "_running", lambda: SimpleNamespace(scheduler=SimpleNamespace(refresh=refresh)))
    watching = asyncio.create_task(daemon._watchdog())
    for _ in range(3):
        await asyncio.sleep(0)
    answered.set_result(None)
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait({watching}, timeout=5)
    assert watching.cancelled()
