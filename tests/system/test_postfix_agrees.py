"""Postfix's posttls-finger beside our `direct`, at the same hosts by the same resolver: both find the same hosts proven.

posttls-finger only looks: where our policy lets mail go without proof it has no verdict of its own, and says `Untrusted` or
goes on in clear text. It differs from Postfix's delivery, and from us, in one place: at `dane` without usable TLSA records it
looks at the certificate as at `secure`, where mail goes encrypted (RFC 7672 §2.2) or by what else holds.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme

import peers
from batches import Bytes, batch, by_address
from dnssec import SignedDns, host, tlsa
from fakes import FakeClock
from policy_host import PolicyHost
from postfix_folder import identities
from sesrelay.mail.outcome import Deferred, Delivered
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(os.geteuid() != 0, reason="posttls-finger asks resolvers at port 53 only, which wants root here"),
]

ROOT = trustme.CA()
ISSUER = ROOT.create_child_ca()
NOW = datetime.now(UTC)
LEAVES = {
    "self-signed": trustme.CA().issue_cert("nobody.test"),
    "of the anchor": ISSUER.issue_cert("mx-ta.example.org"),
    "of the anchor, misnamed": ISSUER.issue_cert("other.test"),
    "right": ROOT.issue_cert("mx-none.example.org"),
    "right for sts": ROOT.issue_cert("mx-sts.example.org"),
    "for the domain": ROOT.issue_cert("none.example.org"),
    "misnamed": ROOT.issue_cert("other.test"),
    "expired": ROOT.issue_cert("mx-none.example.org", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1)),
    "expired, of the anchor": ISSUER.issue_cert(
        "mx-ta.example.org", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1)
    ),
    "none": None,
}
OWN, WRONG = LEAVES["self-signed"], f"3 1 1 {'ab' * 32}"
assert OWN is not None
HOSTS = {
    "ee": tlsa(3, 1, OWN.cert_chain_pems[0].bytes()),
    "eecert": tlsa(3, 0, OWN.cert_chain_pems[0].bytes()),
    "ta": tlsa(2, 0, ISSUER.cert_pem.bytes()),
    "takey": tlsa(2, 1, ISSUER.cert_pem.bytes()),
    "wrong": WRONG,
    "unusable": f"1 1 1 {'ab' * 32}",
}
ZONE = "".join(
    f"{label} MX 10 mx-{label}\nmx-{label} A 127.0.0.1\n*._tcp.mx-{label} TLSA {record}\n" for label, record in HOSTS.items()
) + (
    "none MX 10 mx-none\nmx-none A 127.0.0.1\nalias MX 10 mx-alias\nmx-alias CNAME mx-ee\n"
    "bad MX 10 mx-bad\nmx-bad A 127.0.0.1\n_tcp.mx-bad NS dead\ndead A 127.0.0.99\n"
    'sts MX 10 mx-sts\nmx-sts A 127.0.0.1\n_mta-sts.sts TXT "v=STSv1; id=one"\nmta-sts.sts A 127.0.0.1\n'
)
PLAIN = f"@ MX 10 mx\nmx A 127.0.0.1\n*._tcp.mx TLSA {WRONG}\n"

VERIFIED, UNPROVEN, CLEAR, NO_SESSION = "Verified", "Untrusted", "no TLS", "no session"
CELLS = [
    # our policy, the domain, the host's certificate: whether mail goes, and what Postfix says of the connection
    ("opportunistic", "none", "self-signed", True, UNPROVEN),
    ("opportunistic", "none", "expired", True, UNPROVEN),
    ("opportunistic", "wrong", "self-signed", True, UNPROVEN),
    ("opportunistic", "none", "none", True, CLEAR),
    ("required", "none", "right", True, VERIFIED),
    ("required", "none", "expired", False, UNPROVEN),
    ("required", "none", "misnamed", False, UNPROVEN),
    ("required", "none", "for the domain", False, UNPROVEN),
    ("required", "none", "self-signed", False, UNPROVEN),
    ("required", "none", "none", False, CLEAR),
    ("mta-sts", "sts", "right for sts", True, VERIFIED),
    ("mta-sts", "sts", "right", False, UNPROVEN),
    ("mta-sts", "sts", "self-signed", False, UNPROVEN),
    ("mta-sts", "sts", "none", False, CLEAR),
    ("dane", "ee", "self-signed", True, VERIFIED),
    ("dane", "eecert", "self-signed", True, VERIFIED),
    ("dane", "alias", "self-signed", True, VERIFIED),
    ("dane", "ee", "right", False, UNPROVEN),
    ("dane", "ee", "none", False, CLEAR),
    ("dane", "ta", "of the anchor", True, VERIFIED),
    ("dane", "ta", "of the anchor, misnamed", False, UNPROVEN),
    ("dane", "ta", "expired, of the anchor", False, UNPROVEN),
    ("dane", "ta", "self-signed", False, UNPROVEN),
    ("dane", "takey", "of the anchor, misnamed", False, UNPROVEN),
    ("dane", "wrong", "self-signed", False, UNPROVEN),
    ("dane", "bad", "self-signed", False, NO_SESSION),
    ("dane", "forged.test", "self-signed", False, NO_SESSION),
    ("dane", "unusable", "self-signed", True, UNPROVEN),
    ("dane", "none", "self-signed", True, UNPROVEN),
    ("dane", "plain.test", "self-signed", True, UNPROVEN),
]
LEVELS = {"opportunistic": "may", "required": "verify", "mta-sts": "secure", "dane": "dane"}


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedDns]:
    zones = {"example.org": ZONE, "plain.test": PLAIN, "forged.test": "@ MX 10 mx\nmx A 127.0.0.1\n"}
    usual = f"127.{random.randint(64, 250)}.{random.randint(0, 250)}.{random.randint(1, 250)}"
    folder = tmp_path_factory.mktemp("dnssec")
    with SignedDns(folder, zones, plain=frozenset({"plain.test"}), forged=frozenset({"forged.test"}), usual=usual) as found:
        owner, group = identities()
        (folder / "main.cf").write_text(
            f"compatibility_level = 3.6\nmyhostname = finger.example.com\nqueue_directory = {folder}\n"
            f"mail_owner = {owner}\nsetgid_group = {group}\n"
        )
        (folder / "master.cf").touch()
        (folder / "resolv.conf").write_text(f"nameserver {usual}\noptions trust-ad timeout:2 attempts:1\n")
        ROOT.cert_pem.write_to_path(str(folder / "ca.pem"))
        yield found


async def ours(dns: SignedDns, port: int, policy: str, domain: str) -> tuple[bool, bool | None]:
    """Return whether mail goes, and whether the host was proven; None: no TLS."""
    sts = "version: STSv1\nmode: enforce\nmx: mx-sts.example.org\nmax_age: 86400\n"
    async with PolicyHost(ROOT, names=("mta-sts.sts.example.org",), body=sts) as web:
        options: Any = DirectOptions(
            "relay.example.com", port, nameservers=[dns.nameserver], allow_private_addresses=True, tls=policy,  # type: ignore[arg-type]
            ca_file=dns.folder / "ca.pem", policy_port=web.port, dns_lifetime=3.0,
        )  # fmt: skip
        out = DirectTransport("direct", options, FakeClock(now=time.time()))
        message = batch(f"b@{domain}")
        outcome = by_address(message, await out.deliver(message, Bytes()))[f"b@{domain}"]
        await out.close()
    assert isinstance(outcome, Delivered | Deferred), outcome
    shown = outcome.trail.tls
    return isinstance(outcome, Delivered), None if shown is None else "verified)" in shown


def theirs(dns: SignedDns, port: int, policy: str, domain: str) -> str:
    """Return what posttls-finger says of the connection that it makes."""
    finger = peers.require("posttls-finger")
    names = [f"mx-{domain}"] if policy == "mta-sts" else []  # what the domain's policy names
    words = finger.command(
        "-a", "ipv4", "-t", "5", "-l", LEVELS[policy], "-F", dns.folder / "ca.pem", "-L", "summary", f"{domain}:{port}", *names
    )
    # libc looks for its resolver in one place, which is another one for this process alone.
    looking = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", looking, str(dns.folder / "resolv.conf"), *words],
        env={**finger.env, "MAIL_CONFIG": str(dns.folder)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    said = done.stdout + done.stderr
    if found := re.search(r": (\w+) TLS connection established", said):
        return found[1]
    if ": Connected to " in said:
        assert "STARTTLS" not in said, said
        return CLEAR
    assert "lookup error" in said or "lookup failed" in said, said
    return NO_SESSION


@pytest.mark.parametrize(("policy", "domain", "leaf", "goes", "said"), CELLS, ids=["-".join(cell[:3]) for cell in CELLS])
async def test_both_find_the_same_hosts_proven(dns: SignedDns, policy: str, domain: str, leaf: str, goes: bool, said: str) -> None:
    domain = domain if "." in domain else f"{domain}.example.org"
    async with host(LEAVES[leaf]) as there:
        went, proven = await ours(dns, there.port, policy, domain)
        assert (went, await asyncio.to_thread(theirs, dns, there.port, policy, domain)) == (goes, said)
    if went:
        assert proven is {VERIFIED: True, UNPROVEN: False, CLEAR: None}[said]
