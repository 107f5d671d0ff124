"""TLS and logins towards relays, with real certificates."""

from __future__ import annotations

import base64
import hashlib
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from batches import Bytes, batch, by_address
from fakes import FakeClock
from scripted_host import DROP, ScriptedHost
from sesrelay.mail.outcome import Deferred, Delivered, Outcome, PauseReason, Scope
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport

CA = trustme.CA()
STRANGER = trustme.CA()
STARTTLS = ("STARTTLS", "8BITMIME")


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return path


def certificate(*names: str, issuer: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
    return context


def old_certificate() -> ssl.SSLContext:
    """Return one that is shown under TLS 1.1 at most."""
    context = certificate()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


async def deliver(host: ScriptedHost, **options: Any) -> Outcome:
    options.setdefault("hosts", ["127.0.0.1"])
    out = SmtpTransport("out", SmtpOptions(port=host.port, local_hostname="relay.example.com", **options), FakeClock())
    message = batch()
    outcome = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
    await out.close()
    return outcome


async def test_starttls_verified(ca_file: Path) -> None:
    async with ScriptedHost(tls=certificate(), offers=STARTTLS) as host:
        outcome = await deliver(host, tls="required", ca_file=ca_file)
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls is not None
        assert outcome.trail.tls.startswith("TLSv1.3 TLS_")
        assert host.commands[0][:3] == ["EHLO relay.example.com", "STARTTLS", "EHLO relay.example.com"]


@pytest.mark.parametrize(
    ("replies", "code"),
    [
        ({"STARTTLS": "454-4.7.0 \x1b[31mnot\r\n454 4.7.0 now\udcff"}, "4.7.5"),
        ({"CONNECT": "22\x1b[31m0 hello\x07"}, "4.5.0"),
        ({"EHLO": "25\x1b[31m0 hello\x07"}, "4.5.0"),
        ({"AUTH": "23\x1b[31m5 hello\x07"}, "4.5.0"),
    ],
)
async def test_what_a_host_says_reaches_no_terminal_as_it_is(replies: dict[str, Any], code: str) -> None:
    async with ScriptedHost(replies, offers=("AUTH PLAIN", *(STARTTLS if "STARTTLS" in replies else ()))) as host:
        tls: Any = "required" if "STARTTLS" in replies else "none"
        outcome = await deliver(host, tls=tls, username="u", password="p")
    assert isinstance(outcome, Deferred)
    assert (outcome.reply.code, outcome.reply.enhanced) == (451, code)
    assert outcome.reply.text.isprintable()
    assert outcome.reply.text.encode()


async def test_implicit_tls(ca_file: Path) -> None:
    async with ScriptedHost(tls=certificate(), implicit=True) as host:
        outcome = await deliver(host, hosts=["localhost"], tls="implicit", ca_file=ca_file)
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls
        assert host.tls_names == ["localhost"]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("names", "issuer"), [(("127.0.0.1",), STRANGER), (("other.test",), CA)], ids=["unknown issuer", "another name"]
)
async def test_a_certificate_that_does_not_hold_defers(
    ca_file: Path, names: tuple[str, ...], issuer: trustme.CA, implicit: bool
) -> None:
    async with ScriptedHost(tls=certificate(*names, issuer=issuer), implicit=implicit, offers=STARTTLS) as host:
        outcome = await deliver(host, tls="implicit" if implicit else "required", ca_file=ca_file)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason, outcome.reply.enhanced) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, "4.7.5")
        assert "certificate" in outcome.remedy
        assert host.said("MAIL") == []


@pytest.mark.parametrize("implicit", [False, True])
async def test_a_certificate_for_another_name_that_is_named(ca_file: Path, implicit: bool) -> None:
    tls = "implicit" if implicit else "required"
    async with ScriptedHost(tls=certificate("other.test"), implicit=implicit, offers=STARTTLS) as host:
        outcome = await deliver(host, tls=tls, ca_file=ca_file, tls_name="other.test")
        assert isinstance(outcome, Delivered)
        assert host.tls_names == ["other.test"]
    async with ScriptedHost(tls=certificate(), implicit=implicit, offers=STARTTLS) as host:
        outcome = await deliver(host, tls=tls, ca_file=ca_file, tls_name="other.test")
        assert isinstance(outcome, Deferred)
        assert "other.test is the name" in outcome.remedy


@pytest.mark.parametrize("implicit", [False, True])
async def test_a_certificate_by_its_fingerprint(implicit: bool) -> None:
    issued = STRANGER.issue_cert("whoever.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    print_ = hashlib.sha256(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())).hexdigest()
    tls = "implicit" if implicit else "required"
    async with ScriptedHost(tls=context, implicit=implicit, offers=STARTTLS) as host:
        outcome = await deliver(host, tls=tls, tls_fingerprints=frozenset({"0" * 64, print_}))
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls
        outcome = await deliver(host, tls=tls, tls_fingerprints=frozenset({"0" * 64}))
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reply.enhanced) == (Scope.NEXTHOP, "4.7.5")
        assert print_ in outcome.reply.text
        assert "tls_fingerprints" in outcome.remedy
        assert len(host.messages) == 1


@pytest.mark.parametrize("replies", [{}, {"STARTTLS": "454 4.7.0 Not now"}, {"STARTTLS": DROP}, {"STARTTLS": "220 but no TLS"}])
async def test_required_never_falls_back(ca_file: Path, replies: dict[str, Any]) -> None:
    async with ScriptedHost(replies, offers=STARTTLS if replies else ()) as host:
        outcome = await deliver(host, tls="required", ca_file=ca_file)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reply.enhanced) == (Scope.NEXTHOP, "4.7.5")
        assert host.said("MAIL") == []


async def test_opportunistic_takes_any_certificate() -> None:
    async with ScriptedHost(tls=certificate("other.test", issuer=STRANGER), offers=STARTTLS) as host:
        outcome = await deliver(host, tls="opportunistic")
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls


@pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="OpenSSL was built without TLS 1.1")
async def test_old_tls_is_better_than_none_where_none_is_the_alternative(ca_file: Path) -> None:
    async with ScriptedHost(tls=old_certificate(), offers=STARTTLS) as host:
        outcome = await deliver(host, tls="opportunistic")
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls is not None
        assert outcome.trail.tls.startswith("TLSv1.1 ")
        assert isinstance(await deliver(host, tls="required", ca_file=ca_file), Deferred)


@pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="OpenSSL was built without TLS 1.1")
async def test_a_login_does_not_go_by_old_tls() -> None:
    """Which would be the alternative to nothing: a password never goes in clear, but on loopback, as here."""
    async with ScriptedHost(tls=old_certificate(), offers=(*STARTTLS, "AUTH PLAIN")) as host:
        outcome = await deliver(host, tls="opportunistic", username="site", password="canary")
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls is None
    async with ScriptedHost(tls=certificate(), offers=(*STARTTLS, "AUTH PLAIN")) as host:
        outcome = await deliver(host, tls="opportunistic", username="site", password="canary")
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls, "of its own making, as the certificate may be"


@pytest.mark.parametrize("replies", [{}, {"STARTTLS": "454 4.7.0 Not now"}, {"STARTTLS": DROP}, {"STARTTLS": "220 but no TLS"}])
async def test_opportunistic_falls_back_to_clear_text(replies: dict[str, Any]) -> None:
    async with ScriptedHost(replies, offers=STARTTLS if replies else ()) as host:
        outcome = await deliver(host, tls="opportunistic")
        assert isinstance(outcome, Delivered)
        assert outcome.trail.tls is None


async def test_none_does_not_ask_for_tls() -> None:
    async with ScriptedHost(tls=certificate(), offers=STARTTLS) as host:
        assert isinstance(await deliver(host, tls="none"), Delivered)
        assert host.said("STARTTLS") == []


# --- logins ---

LOGIN: dict[str, Any] = {"tls": "required", "username": "site", "password": "canary"}


@pytest.mark.parametrize("methods", ["PLAIN LOGIN", "PLAIN"])
async def test_plain(ca_file: Path, methods: str) -> None:
    async with ScriptedHost(tls=certificate(), offers=("STARTTLS", f"AUTH {methods}")) as host:
        assert isinstance(await deliver(host, ca_file=ca_file, **LOGIN), Delivered)
        assert host.said("AUTH") == ["AUTH PLAIN " + base64.b64encode(b"\0site\0canary").decode()]
        assert host.said("STARTTLS")


async def test_login(ca_file: Path) -> None:
    replies: dict[str, Any] = {"AUTH": "334 UGFzc3dvcmQ6", "PASSWORD": "235 2.7.0 Welcome"}
    async with ScriptedHost(replies, tls=certificate(), offers=("STARTTLS", "AUTH LOGIN")) as host:
        assert isinstance(await deliver(host, ca_file=ca_file, **LOGIN), Delivered)
        assert base64.b64encode(b"canary").decode() in host.commands[0]


def oauth(token: str = "canary") -> dict[str, Any]:
    return {"tls": "required", "username": "site@example.com", "token": lambda: token}


async def test_xoauth2(ca_file: Path) -> None:
    async with ScriptedHost(tls=certificate(), offers=("STARTTLS", "AUTH PLAIN XOAUTH2")) as host:
        assert isinstance(await deliver(host, ca_file=ca_file, **oauth()), Delivered)
        said = base64.b64encode(b"user=site@example.com\x01auth=Bearer canary\x01\x01").decode()
        assert host.said("AUTH") == [f"AUTH XOAUTH2 {said}"]


async def test_the_token_is_read_anew_for_each_login(ca_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    replies: dict[str, Any] = {"AUTH": ["334 eyJzdGF0dXMiOiI0MDEifQ==", "235 2.7.0 Accepted"], "PASSWORD": "535 5.7.8 Expired"}
    async with ScriptedHost(replies, tls=certificate(), offers=("STARTTLS", "AUTH XOAUTH2")) as host:
        options = {**oauth(), "token": lambda: file.read_text().strip()}
        outcome = await deliver(host, ca_file=ca_file, **options)
        assert isinstance(outcome, Deferred)
        assert (outcome.reason, outcome.scope) == (PauseReason.CREDENTIALS, Scope.NEXTHOP)
        assert "token_file" in outcome.remedy
        assert host.said("AUTH") == []
        for token, kind in (("old", Deferred), ("new", Delivered)):
            file.write_text(f"{token}\n")
            outcome = await deliver(host, ca_file=ca_file, **options)
            assert type(outcome) is kind
            assert getattr(outcome, "reason", PauseReason.CREDENTIALS) is PauseReason.CREDENTIALS
        assert [base64.b64decode(line.split()[2])[-5:-2] for line in host.said("AUTH")] == [b"old", b"new"]


@pytest.mark.parametrize("token", ["", "two\nlines", "caf\u00e9"])
async def test_what_is_no_token_is_not_sent(ca_file: Path, token: str) -> None:
    async with ScriptedHost(tls=certificate(), offers=("STARTTLS", "AUTH XOAUTH2")) as host:
        outcome = await deliver(host, ca_file=ca_file, **oauth(token))
        assert isinstance(outcome, Deferred)
        assert (outcome.reason, host.said("AUTH")) == (PauseReason.CREDENTIALS, [])


async def test_a_host_that_takes_no_token_is_a_matter_of_configuration(ca_file: Path) -> None:
    async with ScriptedHost(tls=certificate(), offers=("STARTTLS", "AUTH PLAIN LOGIN")) as host:
        outcome = await deliver(host, ca_file=ca_file, **oauth())
        assert isinstance(outcome, Deferred)
        assert (outcome.reason, "canary" in repr(outcome)) == (PauseReason.CONFIGURATION, False)
        assert "XOAUTH2" in outcome.reply.text


async def test_a_refused_login_pauses_and_no_other_host_is_asked(ca_file: Path) -> None:
    replies: dict[str, Any] = {"AUTH": "535 Authentication Credentials Invalid"}
    async with (
        ScriptedHost(replies, tls=certificate(), offers=("STARTTLS", "AUTH PLAIN")) as host,
        ScriptedHost(address="127.0.0.2", port=host.port) as second,
    ):
        outcome = await deliver(host, ca_file=ca_file, hosts=["127.0.0.1", "127.0.0.2"], **LOGIN)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.CREDENTIALS)
        assert "username and password" in outcome.remedy
        assert "canary" not in repr(outcome)
        assert outcome.trail.tls
        assert second.connections == 0


async def test_a_login_that_cannot_be_checked_now_is_no_matter_of_credentials(ca_file: Path) -> None:
    replies: dict[str, Any] = {"AUTH": "454 4.7.0 Temporary authentication failure"}
    async with ScriptedHost(replies, tls=certificate(), offers=("STARTTLS", "AUTH PLAIN")) as host:
        outcome = await deliver(host, ca_file=ca_file, **LOGIN)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE)


@pytest.mark.parametrize("offers", [("STARTTLS",), ("STARTTLS", "AUTH GSSAPI")])
async def test_a_host_that_takes_no_login_is_a_matter_of_configuration(ca_file: Path, offers: tuple[str, ...]) -> None:
    async with ScriptedHost(tls=certificate(), offers=offers) as host:
        outcome = await deliver(host, ca_file=ca_file, **LOGIN)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.CONFIGURATION)


async def test_on_loopback_a_password_may_go_in_clear() -> None:
    async with ScriptedHost(offers=("AUTH PLAIN",)) as host:
        assert isinstance(await deliver(host, **LOGIN | {"tls": "none"}), Delivered)


async def test_elsewhere_a_password_never_goes_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests reach nothing but loopback: here loopback counts as elsewhere.
    monkeypatch.setattr("sesrelay.transport.client.connect._on_loopback", lambda _client: False)
    async with ScriptedHost(offers=("AUTH PLAIN",)) as host:
        for tls in ("none", "opportunistic"):
            outcome = await deliver(host, **LOGIN | {"tls": tls})
            assert isinstance(outcome, Deferred)
            assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.CONFIGURATION)
        assert host.said("AUTH") == []


def test_an_issuer_file_that_is_none_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for missing in ("ca.pem", "gone.pem"):
        options = SmtpOptions(hosts=["x.test"], local_hostname="h.test", tls="required", ca_file=tmp_path / missing)
        with pytest.raises((FileNotFoundError, ssl.SSLError)):
            SmtpTransport("out", options, FakeClock())
