"""A signed zone and a resolver that validates it: real Knot and real Unbound, unpacked, on loopback ports of their own.

Knot signs the zones with keys of its own making; Unbound has those keys as trust anchors, and nothing above them.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import peers
from scripted_host import ScriptedHost

KNOT = """
server:
    listen: 127.0.0.1@{port}
    rundir: "{folder}/run"
    pidfile: "{folder}/run/knot.pid"
database:
    storage: "{folder}/db"
log:
  - target: stderr
    any: warning
policy:
  - id: ours
    algorithm: ecdsap256sha256
    nsec3: off
template:
  - id: default
    storage: "{folder}"
    semantic-checks: off
    zonefile-sync: -1
    journal-content: none
zone:
{zones}
"""
UNBOUND = """
server:
    interface: 127.0.0.1@{port}
{usual}
    port: {port}
    do-daemonize: no
    use-syslog: no
    logfile: ""
    verbosity: 1
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: "{folder}/unbound.pid"
    do-not-query-localhost: no
    module-config: "validator iterator"
    cache-max-negative-ttl: 0
    access-control: 127.0.0.0/8 allow
    val-log-level: 1
    root-hints: ""
    local-zone: "test." nodefault
{anchors}
remote-control:
    control-enable: no
{stubs}
"""
SOA = "$ORIGIN {origin}\n@ 3600 SOA ns{dot} hostmaster{dot} 1 3600 600 86400 60\n@ 3600 NS ns{dot}\nns 3600 A 127.0.0.1\n"


def tlsa(usage: int, selector: int, pem: bytes) -> str:
    """Return the TLSA record of a certificate, by SHA-256."""
    certificate = x509.load_pem_x509_certificate(pem)
    found = (
        certificate.public_bytes(Encoding.DER)
        if selector == 0
        else certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    return f"{usage} {selector} 1 {hashlib.sha256(found).hexdigest()}"


def host(leaf: trustme.LeafCert | None) -> ScriptedHost:
    """Return a mail host with that certificate, or one without STARTTLS."""
    if leaf is None:
        return ScriptedHost()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return ScriptedHost(tls=context, offers=("STARTTLS", "8BITMIME"))


def unused_port() -> int:
    """Return a port that nobody has on loopback just now, over UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass
class SignedDns:
    """`zones`: what stands in each, without SOA and NS; those in `plain` are not signed, those in `forged` are signed by another key
    than their trust anchor says. The root is one where it is among them. `usual`: an address on which the resolver listens at port 53 too, for programs that know no other.
    """

    folder: Path
    zones: dict[str, str]
    plain: frozenset[str] = frozenset()
    forged: frozenset[str] = frozenset()
    usual: str | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def nameserver(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> SignedDns:
        for left in (2, 1, 0):
            try:
                return self._begin()
            except AssertionError:  # somebody else may have taken a port meanwhile
                self.__exit__()
                if not left:
                    raise
            except BaseException:
                self.__exit__()
                raise
        raise AssertionError("unreachable")

    def _begin(self) -> SignedDns:
        knot, unbound = peers.require("knotd"), peers.require("unbound")
        self.knot_port, self.port = unused_port(), unused_port()
        for name in ("run", "db"):
            (self.folder / name).mkdir(exist_ok=True)
        lines: list[str] = []
        for zone, text in self.zones.items():
            file, origin, dot = ("root", ".", ".") if zone == "." else (zone, f"{zone}.", f".{zone}.")
            (self.folder / f"{file}.zone").write_text(SOA.format(origin=origin, dot=dot) + text)
            signing = "" if zone in self.plain else "\n    dnssec-signing: on\n    dnssec-policy: ours"
            lines.append(f"  - domain: {zone}\n    file: {file}.zone{signing}")
        config = self.folder / "knot.conf"
        config.write_text(KNOT.format(port=self.knot_port, folder=self.folder, zones="\n".join(lines)))
        self._start(knot.command("-c", config), knot.env, "knot.log")
        anchors = [f'    trust-anchor: "{self._anchor(zone)}"' for zone in self.zones if zone not in self.plain]
        insecure = [f'    domain-insecure: "{zone}"' for zone in self.plain]
        # The root as well: nothing leaves this machine.
        stubs = [f'stub-zone:\n    name: "{zone}"\n    stub-addr: 127.0.0.1@{self.knot_port}' for zone in {".": None, **self.zones}]
        conf = self.folder / "unbound.conf"
        usual = f"    interface: {self.usual}@53" if self.usual else ""
        conf.write_text(
            UNBOUND.format(
                port=self.port, folder=self.folder, anchors="\n".join(anchors + insecure), stubs="\n".join(stubs), usual=usual
            )
        )
        self._start(unbound.command("-d", "-c", conf), unbound.env, "unbound.log")
        for zone in self.zones:
            expected = dns.rcode.SERVFAIL if zone in self.forged else dns.rcode.NOERROR
            self._until(self.port, zone, "SOA", lambda answer, expected=expected: answer.rcode() == expected)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def _start(self, command: list[str], env: Any, log: str) -> None:
        with (self.folder / log).open("wb") as out:
            self.processes.append(subprocess.Popen(command, env=dict(env) or dict(os.environ), stdout=out, stderr=out))

    def _anchor(self, zone: str) -> str:
        answer = self._until(self.knot_port, zone, "DNSKEY", lambda found: bool(found.answer))
        (key,) = (one for one in answer.answer[0] if one.flags & 1)  # the secure entry point
        text = key.to_text()
        if zone in self.forged:
            text = text[:-6] + ("AAAA==" if not text.endswith("AAAA==") else "BBBB==")
        return f"{zone.rstrip('.')}. DNSKEY {text}"

    def _until(self, port: int, name: str, kind: str, true: Any) -> dns.message.Message:
        query = dns.message.make_query(name, kind, want_dnssec=True)
        deadline = time.monotonic() + 20
        while True:
            try:
                answer = dns.query.udp(query, "127.0.0.1", timeout=1, port=port)
                if true(answer):
                    return answer
            except (OSError, dns.exception.DNSException):
                pass
            dead = [process.args for process in self.processes if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                logs = "\n".join(file.read_text()[-2000:] for file in self.folder.glob("*.log"))
                raise AssertionError(f"no answer for {name} {kind} from port {port}; ended: {dead}\n{logs}")
            time.sleep(0.05)
