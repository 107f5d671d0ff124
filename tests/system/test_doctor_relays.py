"""doctor before relays by SMTP: it opens each connection as the daemon does, and what it says is what mail meets."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from aws_world import sesrelay
from scripted_host import ScriptedHost

CA = trustme.CA()
LEAF = CA.issue_cert("relay.example")
FINGERPRINT = hashlib.sha256(x509.load_pem_x509_certificate(LEAF.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)).hexdigest()
OFFERS = ("STARTTLS", "AUTH PLAIN LOGIN XOAUTH2")


def host(*, implicit: bool = False, address: str = "127.0.0.1", port: int = 0, **replies: str) -> ScriptedHost:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    LEAF.configure_cert(context)
    return ScriptedHost(dict(replies), OFFERS, context, implicit, address=address, port=port)


async def doctor(tmp_path: Path, keys: str) -> list[tuple[str, str, str]]:
    """Return what doctor says of a relay: check, status and message."""
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    config = tmp_path / "config.yaml"
    config.write_text(
        f"state_dir: {tmp_path}/state\nlisteners: [{{listen: '127.0.0.1:0'}}]\ntransports:\n"
        f"  r: {{type: smtp, {keys}}}\ndefault_route: {{transport: r}}\n"
    )
    config.chmod(0o600)
    said = await asyncio.to_thread(sesrelay, "doctor", "--json", "--config", config)
    return [(one["check"], one["status"], one["message"]) for one in said.json["checks"] if one["subject"] == "r"]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    "more",
    ["tls_name: relay.example, ca_file: ca.pem, password: s", f"tls_fingerprints: ['{FINGERPRINT}'], token: t"],
    ids=["by another name", "by fingerprint and token"],
)
async def test_all_is_well(tmp_path: Path, more: str, implicit: bool) -> None:
    async with host(implicit=implicit) as there:
        tls = "implicit" if implicit else "required"
        found = await doctor(tmp_path, f"host: 127.0.0.1, port: {there.port}, tls: {tls}, username: u, {more}")
        assert [one[:2] for one in found] == [("relay host", "ok"), ("credentials", "ok")], found
        assert "with TLSv1.3" in found[0][2]
        assert there.said("MAIL") == []


@pytest.mark.parametrize(
    ("more", "replies", "check", "said"),
    [
        ("ca_file: ca.pem", {}, "tls", "no TLS with 127.0.0.1: "),
        (f"tls_fingerprints: ['{'ab' * 32}']", {}, "tls", "the certificate of 127.0.0.1 has a different fingerprint"),
        ("tls_name: relay.example, ca_file: ca.pem", {"AUTH": "535 5.7.8 No"}, "credentials", "refuses the login: 535 5.7.8 No"),
        ("tls_name: relay.example, ca_file: ca.pem", {"STARTTLS": "454 4.7.0 No"}, "tls", "it answered STARTTLS with 454"),
        ("tls_name: relay.example, ca_file: ca.pem", {"CONNECT": "554 5.7.1 Not you"}, "relay host", ": Not you"),
    ],
)
async def test_what_keeps_mail_from_it(tmp_path: Path, more: str, replies: dict[str, str], check: str, said: str) -> None:
    async with host(**replies) as there:
        found = await doctor(tmp_path, f"host: 127.0.0.1, port: {there.port}, tls: required, username: u, password: s, {more}")
        assert [one[:2] for one in found] == [(check, "fail")]
        assert said in found[0][2]
        assert "127.0.0.1" in found[0][2]


async def test_every_host_is_looked_at_and_one_that_works_is_enough(tmp_path: Path) -> None:
    async with host(CONNECT="421 4.3.2 Later", address="127.0.0.41") as first, host(address="127.0.0.42", port=first.port):
        more = f"port: {first.port}, tls: required, tls_name: relay.example, ca_file: ca.pem"
        assert await doctor(tmp_path, f"hosts: [127.0.0.41, 127.0.0.42], {more}") == [
            ("relay host", "warn", f"127.0.0.41:{first.port}: Later; mail goes through another host"),
            ("relay host", "ok", f"127.0.0.42:{first.port} answers, with TLSv1.3 TLS_AES_256_GCM_SHA384 (verified)"),
        ]
        ((check, status, _),) = await doctor(tmp_path, f"hosts: [127.0.0.41], {more}")
        assert (check, status) == ("relay host", "fail")
