"""MTA-STS by the real process: what it has fetched holds after a restart, when neither DNS nor the policy's host answer."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import trustme

from policy_host import PolicyHost
from relay_process import Relay, wait_for
from scripted_host import ScriptedHost
from small_dns import SmallDns

CA = trustme.CA()
RECORDS = {
    ("example.org", "MX"): ["10 mx.example.org."],
    ("mx.example.org", "A"): ["127.0.0.1"],
    ("mta-sts.example.org", "A"): ["127.0.0.1"],
    ("_mta-sts.example.org", "TXT"): ['"v=STSv1; id=one"'],
}
POLICY = "version: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 86400\n"


def attempt(relay: Relay, queue_id: str) -> Any:
    def look() -> Any:
        return next((one for one in relay.trace(queue_id)["events"] if one["event"] == "attempt"), None)

    return wait_for("an attempt", look)


def send(relay: Relay) -> Any:
    """Start the relay, send one message and stop; return its first attempt."""
    with relay:
        found = attempt(relay, relay.submit("a@example.com", "b@example.org"))
        relay.stop()
    return found


async def test_a_policy_holds_after_a_restart(tmp_path: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("mx.example.org").configure_cert(context)
    async with SmallDns(dict(RECORDS)) as dns:
        async with PolicyHost(CA, body=POLICY) as web, ScriptedHost(tls=context, offers=("STARTTLS", "8BITMIME")) as host:
            relay = Relay(
                tmp_path,
                f"transports: {{direct: {{type: direct, port: {host.port}, nameservers: ['{dns.nameserver}'], tls: mta-sts, "
                f"ca_file: ca.pem, policy_port: {web.port}, allow_private_addresses: true}}}}\nqueue: {{retry: [1h]}}",
            )
            found = await asyncio.to_thread(send, relay)
            assert found["outcome"] == "delivered", found
            assert found["tls"].endswith(" (mta-sts enforce: verified)")
            assert web.asked == ["mta-sts.example.org"]
        dns.rcodes["_mta-sts.example.org"] = "SERVFAIL"
        async with ScriptedHost(port=host.port) as stripped:
            found = await asyncio.to_thread(send, relay)
            assert found["outcome"] == "deferred"
            assert "no TLS with mx.example.org: the host does not offer STARTTLS" in found["reply"]
            assert stripped.said("MAIL") == []
