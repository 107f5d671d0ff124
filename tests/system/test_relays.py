"""A relay as the configuration names it, by the real process: several hosts, a certificate by fingerprint, a token, one sender."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from pathlib import Path

import trustme

from batches import eventually
from relay_process import Relay, wait_for
from scripted_host import ScriptedHost


def own_certificate() -> tuple[ssl.SSLContext, str]:
    """Return a server's context with a certificate that nobody vouches for, and what openssl prints of it."""
    issued = trustme.CA().issue_cert("relay.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())).hexdigest().upper()
    return context, "sha256 Fingerprint=" + ":".join(digest[n : n + 2] for n in range(0, 64, 2))


async def test_a_token_is_taken_up_without_a_reload(tmp_path: Path) -> None:
    tls, fingerprint = own_certificate()
    accepted = base64.b64encode(b"user=site@example.net\x01auth=Bearer second-canary\x01\x01").decode()
    replies = {"AUTH": ["334 e30=", "235 2.7.0 Accepted"], "PASSWORD": "535 5.7.8 Token expired"}
    async with ScriptedHost(dict(replies), tls=tls, offers=("STARTTLS", "AUTH XOAUTH2")) as host:
        token = tmp_path / "relay.token"
        token.write_text("first-canary\n")
        token.chmod(0o600)
        relay = Relay(
            tmp_path,
            f"transports:\n  out: {{type: smtp, hosts: [127.0.0.9, 127.0.0.1], port: {host.port}, username: site@example.net,\n"
            f"    token_file: relay.token, tls_fingerprints: '{fingerprint}', rewrite_sender: site@example.net,\n"
            "    source_address: 127.0.0.3}\ndefault_route: {transport: out}",
        )
        await asyncio.to_thread(relay.start)
        try:
            queue_id = await asyncio.to_thread(relay.submit, "app@example.org", "you@example.com")
            paused = await asyncio.to_thread(wait_for, "the pause", lambda: relay.ask("summary")["paused"])
            assert [(one["transport"], one["reason"]) for one in paused] == [("out", "credentials")]
            assert "token" in paused[0]["remedy"]
            token.write_text("second-canary\n")
            assert (await asyncio.to_thread(relay.run, "queue", "retry", queue_id)).returncode == 0
            (delivery,) = await asyncio.to_thread(relay.ended, queue_id)
            assert delivery["state"] == "delivered"
            assert host.said("AUTH")[-1] == f"AUTH XOAUTH2 {accepted}"
            assert host.said("MAIL") == ["MAIL FROM:<site@example.net>"]
            assert set(host.peers) == {"127.0.0.3"}
            await eventually(lambda: len(host.messages) == 1)
            attempts = [one for one in (await asyncio.to_thread(relay.trace, queue_id))["events"] if one["event"] == "attempt"]
            assert "envelope sender site@example.net instead of app@example.org" in attempts[-1]["changes"]
            assert attempts[-1]["tls"]
        finally:
            await asyncio.to_thread(relay.stop)
    assert "canary" not in relay.log.read_text()
