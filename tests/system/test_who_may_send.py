"""Who may send as whom, by the real process: domains are their owners', in the envelope and in the header From.

As root the tests are several local users; otherwise they are one, who is named or not.
"""

from __future__ import annotations

import os
import pwd
import signal
import smtplib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import peers
from relay_process import PYTHON, Relay, StandIn, ses_transport, wait_for
from somebody import ME, UNNAMED, as_root, somebody

ROUTES = "transports: {nowhere: {type: discard}}\ndefault_route: {transport: nowhere}\n"
OTHER = "daemon" if ME != "daemon" else "bin"
OTHER_UID = pwd.getpwnam(OTHER).pw_uid

NAMED = f"""\
local: {{domain: local.example.net, aliases: {{root: ops@example.org}}}}
access:
  local_users:
    {ME}: [mine.example, "*.mine.example", bücher.example, ceo@shared.example]
    {OTHER}: [theirs.example]
    "{UNNAMED}": [number.example]
"""


class UnixSmtp(smtplib.SMTP):
    """smtplib over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.getreply()


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with tempfile.TemporaryDirectory() as name:  # pytest's own is for us alone, and somebody else is to find the socket
        folder = Path(name)
        folder.chmod(0o755)
        with two_doors(folder, ROUTES + NAMED) as running:
            yield running


def two_doors(folder: Path, more: str) -> Relay:
    """Return a relay on a port and on a Unix socket."""
    relay = Relay(folder, more)
    add_socket(relay, "submit.sock")
    return relay


def add_socket(relay: Relay, name: str) -> None:
    """Name a socket beside the configuration as one more listener."""
    relay.config.write_text(
        relay.config.read_text().replace('[{listen: "127.0.0.1:0"}', f'[{{listen: "127.0.0.1:0"}}, {{listen: "unix:{name}"}}')
    )


@pytest.fixture(params=["tcp", "unix"])
def connect(request: pytest.FixtureRequest, relay: Relay) -> Any:
    """Return what makes a connection to the relay, each way."""
    return lambda: smtplib.SMTP(*relay.smtp) if request.param == "tcp" else UnixSmtp(relay.folder / "submit.sock")


def said(reply: tuple[int, bytes]) -> str:
    return f"{reply[0]} {reply[1].decode()[:5]}"


def mail(smtp: smtplib.SMTP, sender: str) -> str:
    smtp.ehlo("client.example")
    options = [] if sender.isascii() else ["SMTPUTF8"]
    smtp.command_encoding = "utf-8"
    reply = smtp.mail(sender, options)
    smtp.rset()
    return said(reply)


def send(smtp: smtplib.SMTP, sender: str, head: str) -> tuple[int, bytes]:
    smtp.ehlo("client.example")
    assert smtp.mail(sender)[0] == 250
    assert smtp.rcpt("b@example.org")[0] == 250
    return smtp.data(f"{head}\r\n\r\nHello\r\n".encode())


OK, REFUSED = "250 2.1.0", "550 5.7.1"


@pytest.mark.parametrize(
    ("sender", "reply"),
    [
        ("a@mine.example", OK),
        ("A@MINE.Example", OK),
        ("a@x.mine.example", OK),
        ("a@bücher.example", OK),
        ("a@xn--bcher-kva.example", OK),
        ("ceo@shared.example", OK),
        ('"ceo"@shared.example', OK),
        ("", OK),
        (ME, OK),  # completed by local.domain
        (f"{ME}@local.example.net", OK),
        ("a@theirs.example", REFUSED),
        ("A@THEIRS.EXAMPLE", REFUSED),
        ("a@theirs.example.", REFUSED),
        ("a@notmine.example", REFUSED),
        ("a@mine.example.evil.org", REFUSED),
        ("worker@shared.example", REFUSED),
        ("a@unnamed.example", REFUSED),
        (OTHER, REFUSED),
    ],
)
def test_a_named_user_keeps_to_what_is_his(connect: Any, sender: str, reply: str) -> None:
    with connect() as smtp:
        assert mail(smtp, sender) == reply


@as_root
@pytest.mark.parametrize(
    ("uid", "sender", "reply"),
    [
        (OTHER_UID, "a@theirs.example", OK),
        (OTHER_UID, "a@mine.example", REFUSED),
        (OTHER_UID, "a@unnamed.example", REFUSED),
        (UNNAMED, "a@number.example", OK),
        (UNNAMED, "a@unnamed.example", REFUSED),
        (UNNAMED + 1, "a@unnamed.example", OK),
        (UNNAMED + 1, "a@x.mine.example", REFUSED),
        (UNNAMED + 1, "a@BÜCHER.example", REFUSED),
        (UNNAMED + 1, '"ceo"@shared.example', REFUSED),
        (UNNAMED + 1, "worker@shared.example", OK),
        (UNNAMED + 1, "root", OK),
    ],
)
def test_and_so_does_everybody_else(connect: Any, uid: int, sender: str, reply: str) -> None:
    with somebody(uid):
        smtp = connect()
    with smtp:
        assert mail(smtp, sender) == reply


@pytest.mark.parametrize(
    ("head", "reply"),
    [
        ("From: Me <a@mine.example>", "250 2.0.0"),
        ("From: a@mine.example, b@x.mine.example", "250 2.0.0"),
        ("Subject: no From, so the sender's is added", "250 2.0.0"),
        ("From: a@mine.example\r\nResent-From: a@theirs.example\r\nSender: a@theirs.example", "250 2.0.0"),
        ("From: a@mine.example, b@theirs.example", REFUSED),
        ("From: a@mine.example\r\nFrom: b@theirs.example", REFUSED),
        ("From: Boss\r\n <b@theirs\r\n .example>", REFUSED),
        ("From: b@theirs.example <a@mine.example>", REFUSED),
        ("From: All: a@mine.example, b@theirs.example;", REFUSED),
        ("From: b@(comment)theirs.example", REFUSED),
        ("From: =?utf-8?q?b=40theirs=2Eexample?=", REFUSED),
        ("From: B@THEIRS.EXAMPLE", REFUSED),
        ("From: a@unnamed.example", REFUSED),
        (f"From: {OTHER}", REFUSED),  # completed by local.domain
        (f"From: {ME}, Me <a@mine.example>", "250 2.0.0"),
        (f"From: {OTHER} (a@mine.example)", REFUSED),
        (f'From: "a@mine.example" <{OTHER}>', REFUSED),
        (f"From: {OTHER}, a@mine.example", REFUSED),
        (f"From: Boss <{OTHER}>, a@mine.example", REFUSED),
        (f"From: grp: {OTHER};", REFUSED),
        (f'From: "{OTHER}"', REFUSED),
        (f"From: {OTHER};", REFUSED),
        (f"From: a@mine.example\r\nFrom: {OTHER}", REFUSED),
        (f"From: a@mine.example\r\nSender: {OTHER}", "250 2.0.0"),
    ],
)
def test_the_header_from_is_held_to_it_after_data(connect: Any, head: str, reply: str) -> None:
    with connect() as smtp:
        assert said(send(smtp, "a@mine.example", head)) == reply


def test_with_the_null_sender_the_header_from_counts(connect: Any) -> None:
    with connect() as smtp:
        assert said(send(smtp, "", "From: a@mine.example")) == "250 2.0.0"
        assert said(send(smtp, "", "From: a@theirs.example")) == REFUSED


def test_the_output_of_a_cron_job_is_taken(connect: Any) -> None:
    with connect() as smtp:
        assert said(send(smtp, ME, "From: root (Cron Daemon)\r\nTo: root")) == "250 2.0.0"
        assert said(send(smtp, ME, f'From: "(Cron Daemon)" <{ME}>\r\nTo: root')) == "250 2.0.0"


def test_the_queue_and_the_log_tell_whose_it_was(relay: Relay) -> None:
    with UnixSmtp(relay.folder / "submit.sock") as smtp:
        code, text = send(smtp, "a@mine.example", "From: a@mine.example")
        smtp.mail("a@theirs.example")
    shown = relay.ask("show", id=text.decode().rpartition(" ")[2])
    name = f"unix:{relay.folder}/submit.sock"
    assert (code, shown["user"], shown["client"], shown["listener"]) == (250, ME, None, name)
    assert relay.events("accepted")[-1]["user"] == ME
    refused = wait_for("the refusal is logged", lambda: relay.events("refused"))[-1]
    assert (refused["user"], refused["reason"]) == (ME, "policy")
    assert f'sesrelay_messages_accepted_total{{listener="{name}"}}' in relay.get("/metrics").decode()


def test_who_sends_and_hangs_up_is_not_somebody_else(relay: Relay) -> None:
    """A named user who is gone before he is asked for could otherwise send as everybody may."""
    talk = b"EHLO x\r\nMAIL FROM:<a@%b>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nFrom: a@%b\r\nSubject: gone\r\n\r\n.\r\nQUIT\r\n"
    for n in range(200):
        domain = b"unnamed.example" if n % 2 else b"theirs.example"
        with socket.create_connection(relay.smtp) as client:
            client.sendall(talk % (domain, domain))
    relay.submit("a@mine.example", "b@example.org")
    assert not [line for line in relay.events("accepted") if line["sender"].endswith(("@unnamed.example", "@theirs.example"))]


@as_root
def test_another_program_of_another_user(relay: Relay) -> None:
    bash = peers.require("bash")
    script = f"exec 3<>/dev/tcp/127.0.0.1/{relay.smtp[1]}; read -r x <&3; printf 'HELO x\\r\\nMAIL FROM:<a@%s>\\r\\nQUIT\\r\\n' $1 >&3; cat <&3"
    for domain, reply in (("theirs.example", "\n250 2.1.0"), ("mine.example", "\n550 5.7.1")):
        done = subprocess.run(
            bash.command("-c", script, "x", domain),
            user=OTHER_UID,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert reply in done.stdout, done


def test_ipv6(tmp_path: Path) -> None:
    relay = Relay(tmp_path, ROUTES + NAMED)
    relay.config.write_text(relay.config.read_text().replace('{listen: "127.0.0.1:0"}', '{listen: "[::1]:0"}'))
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with relay:
        host, port = relay.status["listeners"]["[::1]:0"][:2]
        with smtplib.SMTP(host, port) as smtp:
            assert mail(smtp, "a@mine.example") == OK
            assert mail(smtp, "a@theirs.example") == REFUSED


def test_a_reload_opens_and_closes_sockets_and_names_users_for_new_connections(tmp_path: Path) -> None:
    relay = Relay(tmp_path, ROUTES)
    plain = relay.config.read_text()
    with relay, smtplib.SMTP(*relay.smtp) as kept:
        assert mail(kept, "a@theirs.example") == OK
        relay.write(ROUTES + NAMED)
        for name in ("one.sock", "two.sock"):
            add_socket(relay, name)
        assert relay.ask("reload")["problems"] == []
        assert mail(kept, "a@theirs.example") == OK  # a session keeps the rules that it began with
        with smtplib.SMTP(*relay.smtp) as late:
            assert mail(late, "a@theirs.example") == REFUSED
            assert mail(late, "a@mine.example") == OK
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("one.sock", "two.sock")] == [0o666, 0o666]
        with UnixSmtp(tmp_path / "one.sock") as one:
            assert mail(one, "a@mine.example") == OK
            relay.write(ROUTES + NAMED)
            add_socket(relay, "two.sock")
            assert relay.ask("reload")["problems"] == []
            wait_for("the socket that is named no more is gone", lambda: not (tmp_path / "one.sock").exists())
            assert mail(one, "a@mine.example") == OK  # the session goes on
        add_socket(relay, "no/such/folder.sock")
        (problem,) = relay.ask("reload")["problems"]
        assert f"there is no folder {tmp_path}/no/such: create it" in problem
        with UnixSmtp(tmp_path / "two.sock") as two:
            assert mail(two, "a@mine.example") == OK
        with smtplib.SMTP(*relay.smtp) as bound:
            bound.ehlo("client.example")
            assert bound.mail("a@mine.example")[0] == bound.rcpt("b@x.example")[0] == 250
            relay.config.write_text(plain)
            assert relay.ask("reload")["problems"] == []
            assert said(bound.data(b"From: a@theirs.example\r\n\r\nx\r\n")) == REFUSED
            assert mail(bound, "a@theirs.example") == REFUSED
        with smtplib.SMTP(*relay.smtp) as late:
            assert mail(late, "a@theirs.example") == OK
        wait_for("no socket is left", lambda: not list(tmp_path.glob("t*.sock")))


def test_a_session_keeps_its_routes_for_what_is_refused(tmp_path: Path) -> None:
    relay = Relay(tmp_path, ROUTES)
    with relay, smtplib.SMTP(*relay.smtp) as kept:
        kept.ehlo("client.example")
        assert kept.mail("a@new.example")[0] == kept.rcpt("b@x.example")[0] == 250
        relay.config.write_text(relay.config.read_text() + "routes: [{sender: new.example, reject: true}]\n")
        assert relay.ask("reload")["problems"] == []
        code, text = kept.data(b"From: a@new.example\r\n\r\nx\r\n")
        assert code == 250, "its MAIL was taken"
        show = lambda: relay.ask("show", id=text.split()[-1].decode())["deliveries"][0]  # noqa: E731
        wait_for("it is held for the operator", lambda: (show()["state"], show()["reason"]) == ("held", "no_route"))
        assert mail(kept, "a@new.example") == OK
        with smtplib.SMTP(*relay.smtp) as late:
            assert mail(late, "a@new.example") == REFUSED


def test_a_socket_goes_with_the_daemon_and_a_killed_ones_is_replaced(tmp_path: Path) -> None:
    with two_doors(tmp_path, ROUTES) as relay:
        relay.kill()
        assert (tmp_path / "submit.sock").is_socket()
        relay.start()
        with UnixSmtp(tmp_path / "submit.sock") as smtp:
            assert mail(smtp, "a@any.example") == OK
        assert relay.stop() == 0
        assert not (tmp_path / "submit.sock").exists()


def test_systemd_may_hand_over_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "submit.sock"
    relay = two_doors(tmp_path, ROUTES + NAMED)
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(path))
        ours.listen()
        fd = ours.fileno()
        code = f"import os, sys; os.dup2({fd}, 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.executable, [sys.executable, '-m', 'sesrelay', 'run', '--config', sys.argv[1]])"
        with relay.log.open("ab") as log:
            relay.process = subprocess.Popen([PYTHON, "-c", code, str(relay.config)], env=relay.env, stderr=log, pass_fds=[fd])
        try:
            wait_for("the daemon is ready", relay._look)
            with UnixSmtp(path) as smtp:
                assert mail(smtp, "a@mine.example") == OK
                assert mail(smtp, "a@theirs.example") == REFUSED
        finally:
            relay.process.send_signal(signal.SIGTERM)
            assert relay.process.wait(30) == 0
        assert path.is_socket()


def test_no_order_to_ses_but_the_trusted(tmp_path: Path) -> None:
    head = "From: a@mine.example\r\nX-SES-CONFIGURATION-SET: theirs\r\nx-ses-source-arn: arn:x\r\nX-SES-Message-Tags: k=v\r\nX-Mailer: x"
    with StandIn() as ses:
        trusting = ses_transport("trusting", ses.url).replace("}", ", trusted_headers: [x-ses-message-tags]}")
        more = (
            f"transports:\n{ses_transport('plain', ses.url)}\n{trusting}\n"
            "routes: [{sender: trusted.example, transport: trusting}]\ndefault_route: {transport: plain}\n"
        )
        with Relay(tmp_path, more) as relay:
            for domain, kept in (("plain.example", []), ("trusted.example", [b"X-SES-Message-Tags: k=v"])):
                content = head.replace("mine.example", domain).encode() + b"\r\n\r\nX-SES-TENANT: body\r\n"
                queue_id = relay.submit(f"a@{domain}", "b@example.org", content)
                relay.ended(queue_id)
                raw = ses.journal()[-1]["raw"]
                found, body = raw.split(b"\r\n\r\n", 1)
                assert [line for line in found.split(b"\r\n") if line.lower().startswith(b"x-ses-")] == kept
                assert b"X-Mailer: x" in found and body == b"X-SES-TENANT: body\r\n"
                changes = [change for event in relay.trace(queue_id)["events"] for change in event["changes"]]
                assert {"removed X-SES-CONFIGURATION-SET", "removed x-ses-source-arn"} <= set(changes)


def test_the_daemon_refuses_rules_that_its_kernel_cannot_keep(tmp_path: Path) -> None:
    """As in a container that forbids the question: better no start than everybody a stranger."""
    (tmp_path / "sitecustomize.py").write_text("import sesrelay.listener.peer as peer\npeer._NETLINK_SOCK_DIAG = 31\n")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    relay = Relay(tmp_path, ROUTES + NAMED, env=env)
    done = relay.run("run")
    assert done.returncode == 1
    assert (
        "cannot start: " in done.stderr and "access.local_users: the kernel does not say who owns a TCP connection" in done.stderr
    )
