"""The whole process in trouble: a full disk, signals in a storm, an end with much in flight, a store it may not have."""

from __future__ import annotations

import os
import re
import resource
import signal
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

import peers
from onslaught import FIVE_PERCENT, Clients, SesHop, SmtpHop, finish, relay_before, vitals
from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for
from small_disk import mounted
from traces import completed, strace


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", mebibytes=12) as place:
        yield place


def on(disk: Path, relay: Relay) -> None:
    relay.config.write_text(relay.config.read_text().replace(f"{relay.folder}/state", f"{disk}/state"))


def send(port: int, size: int = 100_000) -> int:
    """Submit one message and return the last code."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as smtp:
        smtp.ehlo("client.example")
        smtp.mail("a@example.com")
        smtp.rcpt("b@example.org")
        return smtp.data(b"From: a@example.com\r\nSubject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * (size // 72))[0]


def nothing_goes(ses: StandIn) -> bool:
    """Look for three seconds; all that waits here is due each second."""
    taken = len(ses.journal())
    time.sleep(3.0)
    return len(ses.journal()) == taken


def test_a_full_disk_is_told_loses_nothing_and_heals_without_a_restart(small_disk: Path, tmp_path: Path) -> None:
    """Outcomes that cannot be stored stop sending first: no message goes out in circles."""
    ballast = small_disk / "ballast"
    with StandIn({"keys": {KEY: SECRET}, "chances": {"503": 1.0}}) as ses:
        relay = Relay(
            tmp_path,
            f"transports:\n{ses_transport('out', ses.url)}\ndefault_route: {{transport: out}}\n"
            "limits: {min_free_disk: 0}\nqueue: {retry: [1s]}\nlog: {level: warning}",
        )
        on(small_disk, relay)
        with relay:
            port = relay.smtp[1]
            codes = [send(port) for _ in range(20)]
            assert set(codes) == {250}
            ballast.write_bytes(bytes(4096))
            with ballast.open("ab") as file:
                while True:
                    try:
                        os.write(file.fileno(), bytes(4096))
                    except OSError:
                        break
            while codes[-1] == 250:
                codes.append(send(port))
            codes += [send(port) for _ in range(5)]
            assert set(codes) <= {250, 451, 452}
            assert set(codes[-5:]) <= {451, 452}
            ses.tell(chances={})  # SES takes all now, and the store can take no outcome
            relay.ask("status")
            wait_for("sending stops", lambda: nothing_goes(ses), 60)
            ballast.unlink()
            wait_for("mail is taken again", lambda: send(port) == 250)
            assert relay.process is not None
            assert relay.process.poll() is None
            finish(relay)
            taken = [one["tags"]["sesrelay-id"] for one in ses.journal()]
            assert len(set(taken)) == codes.count(250) + 1
            assert len(taken) == len(set(taken)), "each once: no process died"


def test_a_file_that_may_not_grow_is_a_full_disk_to_any_user(tmp_path: Path) -> None:
    with SesHop() as hop, relay_before(hop, tmp_path, "limits: {min_free_disk: 0}") as (relay, port):
        assert relay.process is not None
        assert send(port, 4096) == 250
        for pid in relay.pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
        assert {send(port, size) for size in (200_000, 200_000, 600_000)} <= {451, 452}
        for pid in relay.pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_for("mail is taken again", lambda: send(port, 200_000) == 250)
        finish(relay)
        assert len(hop.taken()) == len(set(hop.taken())) == 2


def test_a_storm_of_signals_refuses_and_loses_nothing(tmp_path: Path) -> None:
    with SesHop() as hop, relay_before(hop, tmp_path) as (relay, port):
        good = relay.config.read_text()
        clients = Clients(port, count=5, pause=0.01)
        clients.start()
        assert relay.process is not None
        for n in range(16):
            relay.config.write_text(good + ("default_rote: {}\n" if n % 2 else f"# {n}\n"))
            relay.process.send_signal(signal.SIGHUP)
            time.sleep(0.25)
        relay.config.write_text(good)
        assert relay.ask("reload")["ok"]
        clients.stop()
        finish(relay)
        assert clients.refused == {}
        assert clients.acknowledged
        assert sorted(clients.acknowledged) == sorted(hop.taken()), "each exactly once"
        told = [event["detail"] for event in relay.events("reloaded") if not event["ok"]]
        assert told
        assert all("default_rote" in detail and "default_route" in detail for detail in told)


def test_sigterm_with_two_hundred_in_flight(tmp_path: Path) -> None:
    """Two hundred are on their way, as many of them at SES as its lane lets: they are finished, or stay for the next life."""
    with StandIn({"keys": {KEY: SECRET}}, ("--rate", "100000")) as ses:
        more = (
            f"transports:\n{ses_transport('out', ses.url, rate='1000')}\ndefault_route: {{transport: out}}\nlog: {{level: warning}}"
        )
        with Relay(tmp_path, more) as relay:
            # A lane opens as its next hop takes mail, and only then has much under way.
            ses.tell(script=["ok"] * 200 + [{"name": "slow", "seconds": 2.0}] * 200)
            clients = Clients(relay.smtp[1], count=20, messages=400)
            clients.start()
            wait_for("much is in flight", lambda: relay.ask("status")["in_flight"] >= 20)
            clients.join()
            assert relay.stop(60) == 0
            relay.start()
            finish(relay)
            taken = [one["tags"]["sesrelay-id"] for one in ses.journal()]
            assert sorted(taken) == sorted(clients.acknowledged), "each exactly once"


def test_a_store_that_it_may_not_have_ends_the_start_with_the_remedy(tmp_path: Path) -> None:
    relay = Relay(tmp_path, "transports: {park: {type: hold}}\ndefault_route: {transport: park}\nlog: {level: warning}")
    with relay:
        relay.submit("a@example.com", "b@example.org")
        second = relay.run("run")
        assert second.returncode == 75
        assert f"pid {relay.process and relay.process.pid}" in second.stderr
        relay.stop()
    store = tmp_path / "state" / "queue.db"
    whole = store.read_bytes()
    with closing(apsw.Connection(str(store))) as db:
        db.execute("BEGIN EXCLUSIVE")
        locked = relay.run("run")
        db.execute("ROLLBACK")
        version = db.pragma("user_version")
        db.pragma("user_version", version + 1)
    newer = relay.run("run")
    store.write_bytes(b"")
    empty = relay.run("run")
    assert store.read_bytes() == b"", "never started empty"
    store.unlink()
    for made in ("queue.db-wal", "queue.db-shm"):
        (tmp_path / "state" / made).unlink(missing_ok=True)
    store.write_bytes(whole)
    assert {each.returncode for each in (locked, newer, empty)} == {1}
    assert "locked by another program" in locked.stderr
    assert "start that version again" in newer.stderr
    assert "queue export" in empty.stderr
    with relay:
        assert relay.ask("summary")["messages"] == 1


def test_under_load_with_faults_nothing_grows(tmp_path: Path) -> None:
    """The short form of `make soak`: descriptors and threads as before, the log bounded, nothing lost."""
    with SesHop(FIVE_PERCENT) as hop, relay_before(hop, tmp_path, "queue: {retry: [1s]}") as (relay, port):
        clients = Clients(port, count=5, pause=0.01)
        clients.start()
        wait_for("it runs warm", lambda: len(clients.acknowledged) > 200)
        before = vitals(relay)
        wait_for("more of the same", lambda: len(clients.acknowledged) > 800, 60)
        after = vitals(relay)
        clients.stop()
        hop.mend()
        finish(relay)
        assert clients.acknowledged <= set(hop.taken())
        assert after.descriptors <= before.descriptors + 20
        assert after.threads <= before.threads + 4
        assert after.log < 64
        assert after.resident < before.resident + 40
        assert clients.refused == {}


@pytest.mark.peer
def test_each_250_follows_the_sync_of_its_message(tmp_path: Path) -> None:
    """Power loss: the system calls of both processes show the sync of the log before each reply."""
    program = strace()
    trace = tmp_path / "trace"
    with SmtpHop() as hop, relay_before(hop, tmp_path, "limits: {min_free_disk: 0}") as (relay, port):
        assert relay.process is not None
        calls = "trace=pwrite64,fdatasync,fsync,sendto,write,writev,sendmsg"
        tracer = subprocess.Popen(
            program.command("-f", "-y", "-s", "5000", "-o", trace, "-e", calls, *(f"-p{pid}" for pid in relay.pids)),
            env=program.env, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert tracer.stderr is not None
        if "attached" not in tracer.stderr.readline():
            peers.missing("tracing is not allowed here")
        sizes = [1_000, 300_000, 1_000, 1_000, 300_000]
        for size in sizes:
            assert send(port, size) == 250
        finish(relay)
        tracer.terminate()
        tracer.wait(30)
    check_order(list(completed(trace)), len(sizes), sizes.count(300_000))


def to_disk(call: str) -> bool:
    return re.match(r"p?write(64|v)?\(\d+<[^>]*/(queue\.db-wal|bodies/)", call) is not None


def check_order(calls: list[str], messages: int, bodies: int) -> None:
    """Raise unless between the writing of a message and the reply for it comes the sync of the log, and of its file before."""
    synced = [n for n, call in enumerate(calls) if re.match(r"f(data)?sync\(\d+<[^>]*/queue\.db-wal>\) += 0", call)]
    folder = [n for n, call in enumerate(calls) if re.match(r"fsync\(\d+<[^>]*/bodies>\) += 0", call)]
    told = in_files = 0
    for reply, call in enumerate(calls):
        found = re.search(r"250 2\.0\.0 Ok: queued as ([0-9a-v]{13})", call)
        if found is None:
            continue
        told += 1
        first = next(n for n, each in enumerate(calls) if f" id {found[1]}" in each and to_disk(each))
        if f"/bodies/{found[1]}" in calls[first]:
            in_files += 1
            whole = next(n for n, each in enumerate(calls) if re.match(rf"fsync\(\d+<[^>]*/bodies/{found[1]}>\) += 0", each))
            first = next(n for n in folder if n > whole)
        else:
            assert "/queue.db-wal" in calls[first]
        assert any(first < n < reply for n in synced), f"told before the sync: {call}"
    assert (told, in_files) == (messages, bodies)


def test_a_start_that_fails_leaves_no_socket_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        relay = Relay(tmp_path, "")
        text = relay.config.read_text().replace('[{listen: "127.0.0.1:0"}]', f"[{{listen: 'unix:{tmp_path}/s'}}]", 1)
        relay.config.write_text(
            text.replace('http: {listen: "127.0.0.1:0"}', f'http: {{listen: "127.0.0.1:{taken.getsockname()[1]}"}}')
        )
        done = relay.run("run")
    assert (done.returncode, "change http.listen" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("state_dir", ["/proc/sesrelay", "/etc/hostname", "/etc/hostname/below"])
def test_a_state_dir_that_cannot_be_is_said_with_its_key(tmp_path: Path, state_dir: str) -> None:
    relay = Relay(tmp_path, "")
    relay.config.write_text(relay.config.read_text().replace(f"state_dir: {tmp_path}/state", f"state_dir: {state_dir}"))
    done = relay.run("run")
    assert (done.returncode, "state_dir must be a directory" in done.stderr) == (1, True), done.stderr


def test_a_start_that_fails_for_its_page_puts_no_mail_in_doubt(tmp_path: Path) -> None:
    """Tried again every two seconds by systemd, such starts would have the whole queue held."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as other:
        relay = Relay(tmp_path, "transports: {out: {type: hold}}\ndefault_route: {transport: out}")
        with relay:
            queue_id = relay.submit("a@example.com", "b@example.org")
            wait_for("it is held", lambda: relay.ask("show", id=queue_id)["deliveries"][0]["state"] == "held")
            assert relay.stop() == 0
        relay.write(
            f"transports: {{out: {{type: smtp, host: 127.0.0.1, port: {silent.getsockname()[1]}}}}}\ndefault_route: {{transport: out}}"
        )
        assert relay.run("queue", "release", queue_id).returncode == 0
        taken = f'http: {{listen: "127.0.0.1:{other.getsockname()[1]}"}}'
        relay.config.write_text(relay.config.read_text().replace('http: {listen: "127.0.0.1:0"}', taken))
        failed = relay.run("run")
        assert (failed.returncode, "change http.listen" in failed.stderr) == (1, True), failed.stderr
        (delivery,) = relay.json("queue", "list")
        assert (delivery["state"], delivery["attempts"]) == ("queued", 0)


@pytest.mark.parametrize(("mode", "told"), [(0o777, True), (0o770, False)])
def test_a_queue_that_every_user_may_replace_is_told_of(tmp_path: Path, mode: int, told: bool) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with Relay(tmp_path, "") as relay:
        assert relay.stop() == 0
    assert (f"chmod o-w {tmp_path}/state" in relay.log.read_text()) == told
