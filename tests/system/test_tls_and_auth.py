"""The real daemon before real clients: TLS both ways, logins, new certificates, guessing, and no password anywhere."""

from __future__ import annotations

import base64
import datetime
import signal
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import peers
from guarded import CHEAP, Authority
from relay_process import PYTHON, Relay, StandIn, ses_transport, wait_for

PASSWORD = "c4nary-sesame"
STARTTLS, IMPLICIT, ANY = "127.0.0.1", "127.0.0.2", "127.0.0.3"


class Guarded(Relay):
    """A relay with a listener each for STARTTLS, implicit TLS and any password, on an address of loopback each."""

    def __init__(self, folder: Path, more: str, users: str = "") -> None:
        self.authority = Authority(folder / "tls", trustme.CA())
        self.users = users or f"{{name: blog, password_hash: '{CHEAP.hash(PASSWORD)}'}}"
        super().__init__(folder, more)

    def write(self, more: str) -> None:
        super().write(more)
        files = f"certificate: {self.authority.certificate}, key: {self.authority.key}"
        listeners = (
            f"listeners:\n  - {{listen: '{STARTTLS}:0', tls: starttls, auth: required, {files}}}\n"
            f"  - {{listen: '{IMPLICIT}:0', tls: implicit, auth: required, {files}}}\n"
            f"  - {{listen: '{ANY}:0', auth: any}}\n"
        )
        lines = [line for line in self.config.read_text().splitlines() if not line.startswith("listeners:")]
        self.config.write_text("\n".join(lines) + f"\n{listeners}access: {{users: [{self.users}]}}\n")

    def port(self, host: str) -> int:
        return int(self.status["listeners"][f"{host}:0"][1])

    @property
    def smtp(self) -> tuple[str, int]:
        return STARTTLS, self.port(STARTTLS)

    def session(self, host: str = STARTTLS) -> smtplib.SMTP:
        """Return a session under TLS that trusts our CA alone."""
        if host == IMPLICIT:
            return smtplib.SMTP_SSL(host, self.port(host), timeout=30, context=self.authority.client(check_hostname=False))
        session = smtplib.SMTP(host, self.port(host), timeout=30)
        session.starttls(context=self.authority.client())
        return session

    def hang_up(self) -> dict[str, object]:
        """Send SIGHUP and return what the log says of the reload."""
        before = len(self.events("reloaded"))
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        events = wait_for("the reload is told of", lambda: self.events("reloaded")[before:])
        return dict(events[-1])


@pytest.fixture(scope="module")
def ses() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture(scope="module")
def relay(ses: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    more = f"transports:\n{ses_transport('ses', ses.url)}\ndefault_route: {{transport: ses}}\n"
    with Guarded(tmp_path_factory.mktemp("guarded"), more) as running:
        yield running


def received(ses: StandIn, to: str) -> str:
    """Wait for the message to `to` and return our Received line."""

    def look() -> list[bytes]:
        return [one["raw"] for one in ses.journal() if to in one["destinations"]]

    (raw,) = wait_for(f"SES has the message to {to}", look)
    return raw.partition(b";")[0].decode()


def serial(session: smtplib.SMTP) -> int:
    """Return the serial number of the certificate that a session was shown."""
    assert isinstance(session.sock, ssl.SSLSocket)
    found = session.sock.getpeercert()
    assert found is not None
    return int(str(found["serialNumber"]), 16)


@pytest.mark.parametrize("host", [STARTTLS, IMPLICIT])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_logs_in(host: str, mechanism: str, relay: Guarded, ses: StandIn) -> None:
    to = f"swaks.{mechanism.lower()}.{host}@example.org"
    swaks = peers.require("swaks")
    tls = ["--tls-on-connect"] if host == IMPLICIT else ["--tls"]
    command = swaks.command(
        "--server", host, "--port", str(relay.port(host)), *tls, "--auth", mechanism, "--auth-user", "blog", "--auth-password",
        PASSWORD, "--from", "blog@example.com", "--to", to, "--tls-ca-path", relay.authority.file, "--tls-verify",
    )  # fmt: skip
    done = subprocess.run(command, env=dict(swaks.env), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with ESMTPSA id" in received(ses, to)


@pytest.mark.parametrize("host", [STARTTLS, IMPLICIT])
def test_curl_logs_in(host: str, relay: Guarded, ses: StandIn, tmp_path: Path) -> None:
    to = f"curl.{host}@example.org"
    curl = peers.require("curl")
    upload = tmp_path / "message.eml"
    upload.write_bytes(f"From: blog@example.com\r\nTo: {to}\r\nSubject: x\r\n\r\nx\r\n".encode())
    scheme = "smtps" if host == IMPLICIT else "smtp"
    # The certificate names 127.0.0.1.
    url = f"{scheme}://127.0.0.1:{relay.port(host)}/client.example.com"
    command = curl.command(
        "-sS", "-q", "--noproxy", "*", "--ssl-reqd", "--cacert", relay.authority.file, "--connect-to", f"127.0.0.1::{host}:",
        url, "--user", f"blog:{PASSWORD}", "--mail-from", "blog@example.com", "--mail-rcpt", to, "--upload-file", upload,
    )  # fmt: skip
    done = subprocess.run(command, env=dict(curl.env), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "with ESMTPSA id" in received(ses, to)


def test_smtplib_is_known_by_name(relay: Guarded) -> None:
    with relay.session() as session:
        session.login("blog", PASSWORD)
        session.mail("blog@example.com")
        session.rcpt("smtplib@example.org")
        code, text = session.data(b"From: blog@example.com\r\nSubject: x\r\n\r\nx\r\n")
        assert code == 250
    queue_id = text.decode().rpartition(" ")[2]
    shown = relay.json("queue", "show", queue_id)
    assert (shown["user"], shown["client"]) == ("blog", "127.0.0.1")


def test_the_test_message_goes_through_a_door_that_is_open_to_it(relay: Guarded) -> None:
    done = relay.run("send", "--from", "a@example.com", "--to", "send@example.org")
    assert done.returncode == 0, done.stderr
    shown = relay.json("queue", "show", done.stdout.split()[2])
    assert shown["listener"] == f"{ANY}:0"


def test_any_password_makes_nobody(relay: Guarded, ses: StandIn) -> None:
    with smtplib.SMTP(ANY, relay.port(ANY), timeout=30) as session:
        session.ehlo()
        assert not session.has_extn("starttls")
        session.login("root", "whatever")
        session.sendmail("app@example.com", "any@example.org", b"From: app@example.com\r\nSubject: x\r\n\r\nx\r\n")
    assert "with ESMTP id" in received(ses, "any@example.org")


def test_openssl_sees_a_chain_that_verifies(relay: Guarded) -> None:
    openssl = peers.require("openssl")
    for host, more in ((STARTTLS, ["-starttls", "smtp"]), (IMPLICIT, [])):
        command = openssl.command(
            "s_client", "-connect", f"{host}:{relay.port(host)}", "-CAfile", relay.authority.file, "-verify_return_error",
            "-verify_hostname", "relay.example.net", "-quiet", *more,
        )  # fmt: skip
        said = "EHLO client.example\r\nQUIT\r\n"
        done = subprocess.run(command, env=dict(openssl.env), input=said, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "AUTH PLAIN LOGIN" in done.stdout
        assert done.stdout.endswith("221 2.0.0 Bye\n")


def test_guessing_ends_a_session_and_slows_the_next(relay: Guarded) -> None:
    with relay.session() as session:
        session.ehlo()
        for number in range(5):
            guess = base64.b64encode(f"\0nobody\0guess{number}".encode()).decode()
            assert session.docmd("AUTH", f"PLAIN {guess}")[0] == 535
        assert session.getreply()[0] == 421
        with pytest.raises(smtplib.SMTPServerDisconnected):
            session.getreply()
    refused = [one for one in relay.events("refused") if one["reason"] == "auth"]
    assert [one["reply"][:9] for one in refused[-6:]] == ["535 5.7.8"] * 5 + ["421 4.7.0"]
    with relay.session() as session:  # others of this machine are not held up
        assert session.login("blog", PASSWORD)[0] == 235


def test_an_http_client_at_the_tls_door_is_one_line(relay: Guarded) -> None:
    before = len(relay.events("refused"))
    with socket.create_connection((IMPLICIT, relay.port(IMPLICIT)), timeout=30) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"220" not in sock.recv(1024)
    (one,) = wait_for("the failed handshake is told of", lambda: relay.events("refused")[before:])
    assert (one["reason"], one["reply"]) == ("tls", "421 4.7.0 TLS handshake failed: http request")
    assert "Traceback" not in relay.log.read_text()


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Guarded]:
    with Guarded(tmp_path, "default_route: {transport: park}\ntransports: {park: {type: hold}}\n") as running:
        yield running


def test_a_reload_shows_a_new_certificate_to_new_sessions_only(changing: Guarded) -> None:
    with changing.session() as old, changing.session(IMPLICIT) as implicit:
        first = serial(old)
        renewed = changing.authority.issue()
        assert changing.hang_up()["ok"] is True
        with changing.session() as new, changing.session(IMPLICIT) as other:
            assert serial(new) == serial(other) == renewed != first
        # Those in progress go on as they began.
        assert old.login("blog", PASSWORD)[0] == 235
        assert implicit.login("blog", PASSWORD)[0] == 235
        assert serial(old) == first


@pytest.mark.parametrize("fault", ["stranger", "expired", "gone", "open"])
def test_a_reload_with_files_that_cannot_serve_keeps_the_old(fault: str, changing: Guarded) -> None:
    authority = changing.authority
    with changing.session() as session:
        first = serial(session)
    match fault:
        case "stranger":
            authority.ca.issue_cert("x.example").private_key_pem.write_to_path(authority.key)
        case "expired":
            past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
            pair = authority.ca.issue_cert("relay.example.net", not_before=past, not_after=past + datetime.timedelta(days=1))
            pair.private_key_pem.write_to_path(authority.key)
            pair.cert_chain_pems[0].write_to_path(authority.certificate)
        case "gone":
            authority.certificate.unlink()
        case "open":
            authority.key.chmod(0o644)
    told = changing.hang_up()
    words = {
        "stranger": "does not belong to the certificate",
        "expired": "expired on",
        "gone": "cannot be read",
        "open": "other users can access",
    }
    assert told["ok"] is False
    assert words[fault] in str(told["detail"])
    with changing.session() as session:
        assert serial(session) == first
        assert session.login("blog", PASSWORD)[0] == 235
    checked = changing.run("check")
    assert checked.returncode == 78
    assert words[fault] in checked.stdout


def test_users_change_for_new_sessions(changing: Guarded) -> None:
    with changing.session() as old:
        changing.users = f"{{name: blog, password_hash: '{CHEAP.hash('n3w-canary')}'}}"
        changing.write("default_route: {transport: park}\ntransports: {park: {type: hold}}\n")
        changing.hang_up()
        assert old.login("blog", PASSWORD)[0] == 235
        with changing.session() as new:
            with pytest.raises(smtplib.SMTPAuthenticationError):
                new.login("blog", PASSWORD)
            assert new.login("blog", "n3w-canary")[0] == 235


def test_an_expired_certificate_does_not_keep_the_daemon_down(tmp_path: Path) -> None:
    relay = Guarded(tmp_path, "")
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    pair = relay.authority.ca.issue_cert("relay.example.net", not_before=past, not_after=past + datetime.timedelta(days=1))
    pair.private_key_pem.write_to_path(relay.authority.key)
    pair.cert_chain_pems[0].write_to_path(relay.authority.certificate)
    with relay:
        with pytest.raises(ssl.SSLCertVerificationError):
            relay.session()
        with smtplib.SMTP(ANY, relay.port(ANY), timeout=30) as session:
            assert session.noop()[0] == 250
        assert relay.run("queue", "list").returncode == 0
        assert [one["what"] for one in relay.events("trouble")] == [
            f"the certificate in {relay.authority.certificate} expired on {(past + datetime.timedelta(days=1)).date()} (renew it)"
        ]


def test_no_password_stands_anywhere(relay: Guarded) -> None:
    with relay.session() as session:
        session.ehlo()
        for said in (f"\0blog\0{PASSWORD}x", f"\0{PASSWORD}\0x", f"{PASSWORD}\0blog\0{PASSWORD}", PASSWORD):
            session.docmd("AUTH", "PLAIN " + base64.b64encode(said.encode()).decode())
        session.login("blog", PASSWORD)
    shown = relay.log.read_text() + relay.get("/metrics").decode() + relay.get("/").decode() + str(relay.ask("status"))
    shown += relay.run("check").stdout + relay.run("queue", "list", "--state", "delivered", "--json").stdout
    encoded = base64.b64encode(f"\0blog\0{PASSWORD}".encode()).decode()
    assert not any(secret in shown for secret in (PASSWORD, encoded, encoded[:-4], "argon2id"))


def test_a_hash_of_the_verb_is_one_that_check_takes(tmp_path: Path) -> None:
    relay = Relay(tmp_path, "")
    command = [PYTHON, "-m", "sesrelay", "password-hash"]
    done = subprocess.run(command, input=PASSWORD + "\n", capture_output=True, text=True, timeout=60, check=True)
    relay.write(f"access: {{users: [{{name: blog, password_hash: '{done.stdout.strip()}'}}]}}\n")
    assert relay.run("check").returncode == 0
    for nothing in ("", "\n", "x" * 300 + "\n"):
        assert subprocess.run(command, input=nothing, capture_output=True, text=True, timeout=60, check=False).returncode == 64
    refused = subprocess.run(command, input=b"caf\xe9\n", capture_output=True, timeout=60, check=False)
    assert (refused.returncode, refused.stderr) == (64, b"sesrelay: the password must be UTF-8 text of 1 to 255 octets\n")
