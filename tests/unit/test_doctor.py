"""doctor: each fault is planted in a real name server, the strict SES, a host or this machine, and found with its remedy."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from aws_world import AwsWorld, Elsewhere, Said, aws_world, sesrelay
from iam_world import moto_server
from sesrelay.aws.clients import Clients
from sesrelay.aws.session import Source
from sesrelay.config.dkim_keys import generate, read_key
from sesrelay.config.model import Listener
from sesrelay.mail.dkim import record, record_name
from sesrelay.setup.checkup import machine as checkup_machine
from sesrelay.setup.checkup import ses as checkup_ses
from sesrelay.setup.checkup.check import Check
from sesrelay.setup.checkup.dns import DirectHost, host
from sesrelay.setup.dkim_key import write_key
from sesrelay.setup.zones.lookup import Dns
from small_dns import SmallDns
from somebody import ME, UNNAMED, as_root

HOST = "127.0.0.1"
LITTLE = "limits: {min_free_disk: 1MiB}\n"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def world(tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsWorld]:
    """SES with example.com verified and all its records in the DNS: nothing to complain of."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    more = 'listeners: [{listen: "127.0.0.1:0"}]\nhttp: {listen: "127.0.0.1:0"}\nlimits: {min_free_disk: 1MiB}\n'
    more += "default_route: {transport: main}\n"
    for here in aws_world(tmp_path, more):
        added = here.domain("add", "--json")
        assert added.code == 0, added.err
        here.publish(here.domain("dns", "--format", "json").json["records"])
        yield here


def examined(here: AwsWorld, *args: str) -> Said:
    return here.run("doctor", *args, "--nameserver", here.dns.nameserver, "--json")


def found(said: Said, check: str, subject: str = "") -> list[str]:
    """Return `status: message` of the checks of that name."""
    return [
        f"{one['status']}: {one['message']}" for one in said.json["checks"] if one["check"] == check and subject in one["subject"]
    ]


def test_a_sound_whole_is_ok(world: AwsWorld) -> None:
    said = examined(world)
    assert [one for one in said.json["checks"] if one["status"] == "fail"] == []
    assert (said.code, said.json["ok"]) == (0, True)
    assert {tuple(one) for one in said.json["checks"]} == {("check", "subject", "status", "message", "remedy")}
    seen = {one["check"] for one in said.json["checks"]}
    assert {"configuration", "relay", "disk", "queue", "senders", "region", "credentials", "clock", "sandbox", "sending", "quota",
            "simulator", "identity", "dkim", "mail-from", "dmarc", "alignment"} <= seen  # fmt: skip
    assert (
        f"`sesrelay send --from postmaster@example.com --simulator success --config {world.config}`" in found(said, "simulator")[0]
    )
    assert found(said, "alignment") == ["ok: DMARC passes by DKIM and SPF"]


@pytest.mark.parametrize(("sent", "bounced", "status"), [(20, 1, "ok"), (20, 0, "ok"), (1_000, 60, "fail"), (1_000, 40, "ok")])
def test_a_bounce_among_few_is_no_rate(world: AwsWorld, sent: int, bounced: int, status: str) -> None:
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    world.ses.account.statistics = [{"Timestamp": at, "DeliveryAttempts": sent, "Bounces": bounced, "Complaints": 0, "Rejects": 0}]
    (said,) = found(examined(world), "bounces")
    assert said.startswith(f"{status}: {bounced / sent:.2%} of {sent:,} in 14 days")


@pytest.mark.parametrize(
    ("plant", "check", "message", "remedy"),
    [
        (lambda w: w.dns.records.pop(next(k for k in w.dns.records if "_domainkey" in k[0])), "dkim", "fail: missing", "publish CNAME"),
        (
            lambda w: w.dns.records.update({next(k for k in w.dns.records if "_domainkey" in k[0]): ["elsewhere.example."]}),
            "dkim", "fail: different: elsewhere.example", "publish CNAME",
        ),
        (lambda w: w.dns.records[("bounce.example.com", "MX")].append("20 mx.example."), "mail-from", "fail: different", "publish MX 10"),
        (lambda w: w.dns.records.pop(("bounce.example.com", "TXT")), "mail-from", "fail: missing", "publish TXT v=spf1"),
        (lambda w: w.dns.records.pop(("_dmarc.example.com", "TXT")), "dmarc", "warn: missing", "publish TXT v=DMARC1"),
        (lambda w: w.dns.rcodes.update({"_dmarc.example.com": "SERVFAIL"}), "dmarc", "warn: could not be looked up", "another name server"),
        (lambda w: w.ses.identities.order("example.com", "FAILED"), "identity", "fail: not verified", "sesrelay domain dns example.com"),
        (lambda w: w.ses.identities.known.clear(), "identity", "fail: no verified domain", "sesrelay domain add example.com"),
        (lambda w: setattr(w.ses.account, "sandbox", True), "sandbox", "warn: mail goes to verified recipients only", "request-production"),
        (lambda w: setattr(w.ses.account, "suspended", True), "sending", "fail: AWS", "console"),
        (lambda w: w.ses.account.tell_sent(1_000_000), "quota", "fail: used up", "Service Quotas"),
        (lambda w: w.ses.account.tell_sent(950_000), "quota", "warn: 950,000 of 1,000,000", "Service Quotas"),
        (lambda w: setattr(w.ses, "keys", {"AKIAOTHER00000000000": "x"}), "account", "fail: cannot read", "credentials rotate"),
    ],
)  # fmt: skip
def test_a_fault_is_found_with_its_remedy(world: AwsWorld, plant: object, check: str, message: str, remedy: str) -> None:
    plant(world)  # type: ignore[operator]
    said = examined(world)
    matching = [
        one for one in said.json["checks"] if one["check"] == check and f"{one['status']}: {one['message']}".startswith(message)
    ]
    assert matching, said.out
    assert remedy in matching[0]["remedy"]
    failed = message.startswith("fail")
    assert (said.code, said.json["ok"]) == ((1, False) if failed else (0, True))


def test_what_ses_does_not_tell_is_not_called_well(world: AwsWorld) -> None:
    world.ses.v2 = False
    said = examined(world)
    assert (found(said, "sandbox"), found(said, "sending"), found(said, "account")) == ([], [], [])
    assert found(said, "quota")


def test_it_asks_the_name_servers_that_the_verbs_about_domains_ask(world: AwsWorld) -> None:
    text = world.config.read_text()
    named = f"  elsewhere: {{type: direct, nameservers: ['{world.dns.nameserver}']}}\n"
    world.config.write_text(text.replace("routes:\n", f"{named}routes:\n"))
    world.dns.records.pop(("bounce.example.com", "TXT"))
    states = {one["name"]: one["state"] for one in world.run("domain", "show", "example.com", "--json").json["records"]}
    assert states["bounce.example.com"] == "missing"
    said = world.run("doctor", "--json")
    assert found(said, "mail-from", "bounce.example.com TXT") == ["fail: missing"]
    assert set(found(said, "dkim")) == {"ok: correct"}


def test_a_verified_parent_speaks_for_a_sub_domain(world: AwsWorld) -> None:
    assert found(examined(world, "shop.example.com"), "identity") == ["ok: verified in us-east-1, by example.com"]


def test_what_a_sub_domain_sends_directly_is_no_matter_of_its_parents_spf(world: AwsWorld) -> None:
    direct = f"  direct: {{type: direct, source_address: {HOST}, nameservers: ['{world.dns.nameserver}']}}\n"
    text = world.config.read_text().replace(
        "routes:\n", f"{direct}routes:\n  - {{sender: shop.example.com, transport: [main, direct]}}\n"
    )
    world.config.write_text(text)
    said = world.run("doctor", "shop.example.com", "--nameserver", world.dns.nameserver.replace(HOST, "localhost"), "--json")
    assert found(said, "address", HOST) == ["warn: loopback: this host is behind NAT, and its public address is not known"]
    assert found(said, "identity") == ["ok: verified in us-east-1, by example.com"]
    assert [one["subject"] for one in said.json["checks"] if one["check"] == "spf"] == ["shop.example.com"]
    world.config.write_text(text.replace("example.com, transport: main", "example.com, transport: [main, direct]"))
    assert found(examined(world, "shop.example.com"), "spf", "example.com TXT") == ["fail: missing"]


def test_lines_have_the_remedy_and_quiet_leaves_out_what_is_well(world: AwsWorld) -> None:
    world.ses.account.sandbox = True
    said = world.run("doctor", "--nameserver", world.dns.nameserver, "--quiet")
    remedy = f"sesrelay account request-production --config {world.config}"
    assert f"warn sandbox: main: mail goes to verified recipients only, 200 a day (do: {remedy})" in said.out
    assert not any(line.startswith("ok") for line in said.out.splitlines())


def test_a_configuration_with_mistakes_is_told_of_and_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("routes: [{sender: example.com, transport: nowhere}]\nhotsname: x\n")
    said = sesrelay("doctor", "--json", "--config", config)
    assert said.code == 1
    assert {one["check"] for one in said.json["checks"]} == {"configuration"}
    assert any("there is no transport 'nowhere'" in one["message"] for one in said.json["checks"])


@pytest.mark.parametrize(("off", "status"), [(0.0, "ok"), (90.0, "warn"), (-90.0, "warn"), (400.0, "fail")])
def test_a_clock_that_is_off(off: float, status: str) -> None:
    assert checkup_ses._skew(off).status == status


class Refusing(BaseHTTPRequestHandler):
    """Refuses whatever AWS is asked, 15 minutes ahead of this machine."""

    said = ("", "")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code, text = self.said
        by_v2 = self.path.startswith("/v2/")
        body = json.dumps({"message": text}) if by_v2 else f"<r><Error><Code>{code}</Code><Message>{text}</Message></Error></r>"
        self.send_response_only(403)
        self.send_header("Date", formatdate(time.time() + 900.0, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        if by_v2:
            self.send_header("X-Amzn-ErrorType", code)
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def all_of(url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    """Return what doctor says of an account, and of a domain of it, by check."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
    clients = Clients(Source("us-east-1", "AKIAEXAMPLE", "s" * 40, endpoint_url=url))
    checks = [*checkup_ses.account(clients, "main", time.time()), checkup_ses.identity(clients, "example.com")[0]]
    return {check.check: check for check in checks}


@pytest.mark.parametrize(
    ("said", "remedies"),
    [
        (("SignatureDoesNotMatch", "Signature expired: 1 is now earlier than 2 (3 - 5 min.)"), ["timedatectl"] * 3),
        (("InvalidSignatureException", "Signature not yet current: 1 is still later than 2"), ["timedatectl"] * 3),
        (("SignatureDoesNotMatch", "The request signature we calculated does not match"), ["credentials rotate"] * 3),
        (("AccessDenied", "not authorized"), ["credentials rotate", "sesrelay iam-policy", "ses:GetEmailIdentity"]),
        (("ThrottlingException", "Rate exceeded"), ["no answer from STS", "try again", "try again"]),
    ],
)
def test_a_refusal_is_told_of_with_the_remedy_for_it(
    said: tuple[str, str], remedies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Refusing, "said", said)
    server = ThreadingHTTPServer((HOST, 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        told = all_of(f"http://{HOST}:{server.server_port}", monkeypatch)
    finally:
        server.shutdown()
        server.server_close()
    for check, remedy in zip(("credentials", "account", "identity"), remedies, strict=True):
        assert remedy in (told[check].remedy or ""), told[check]
        assert ("keys are not valid" in told[check].message) == (said[1].startswith("The request"))
    assert (told["clock"].status, "behind AWS: AWS refuses every request" in told["clock"].message) == ("fail", True)


def test_a_network_that_is_down_is_not_laid_to_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        told = all_of(f"http://{HOST}:{closed.getsockname()[1]}", monkeypatch)
    for check in ("account", "identity"):
        assert "Could not connect" in told[check].message
        assert "DNS, firewall, proxy" in (told[check].remedy or "")
    assert "clock" not in told


def test_ctrl_c_does_not_wait_for_what_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as silent:
        silent.settimeout(60.0)
        url = f"http://{HOST}:{silent.getsockname()[1]}"
        config = tmp_path / "config.yaml"
        ses = f"{{type: ses, region: us-east-1, endpoint_url: {url}, access_key_id: AKIAEXAMPLE, secret_access_key: {'s' * 40}}}"
        config.write_text(f"transports: {{main: {ses}}}\ndefault_route: {{transport: main}}\nstate_dir: {tmp_path}\n{LITTLE}")
        config.chmod(0o600)
        verb = [sys.executable, "-m", "sesrelay", "doctor", "--config", str(config)]
        with subprocess.Popen(verb, env={**os.environ, "AWS_ENDPOINT_URL_STS": url}) as running:
            try:
                asked, _ = silent.accept()
                running.send_signal(signal.SIGINT)
                assert running.wait(15) == 130  # a question is given up after 20 seconds, and there are several
                asked.close()
            finally:
                running.kill()


def test_regions_without_ses_are_told_from_those_with_it() -> None:
    for name in ("eu-west-1", "us-gov-west-1", "eusc-de-east-1"):
        assert checkup_ses.region(name, "t").status == "ok"
    missing = checkup_ses.region("mars-north-1", "t")
    assert (missing.status, "eu-west-1" in (missing.remedy or "")) == ("fail", True)


# --- direct ---


class Direct:
    """A relay that sends directly from 127.0.0.1 to exchangers on loopback, and a name server with all that it wants."""

    def __init__(self, folder: Path, port: int) -> None:
        self.elsewhere = Elsewhere()
        self.key = folder / "k.pem"
        pem, key = generate("rsa")
        write_key(self.key, pem, folder / "config.yaml")
        self.dns = SmallDns(
            records={
                ("mail.example.net", "A"): [HOST],
                ("1.0.0.127.in-addr.arpa", "PTR"): ["mail.example.net."],
                ("example.org", "TXT"): ['"v=spf1 a:mail.example.net -all"'],
                ("example.org", "MX"): ["10 mx.example.org."],
                ("mx.example.org", "A"): [HOST],
                ("_dmarc.example.org", "TXT"): ['"v=DMARC1; p=reject"'],
                (record_name("example.org", "s1"), "TXT"): [
                    " ".join(f'"{part}"' for part in _parts(record(key.algorithm, key.public)))
                ],
            }
        )
        self.elsewhere.do(self.dns.__aenter__())
        self.config = folder / "config.yaml"
        self.config.write_text(
            f"hostname: mail.example.net\nstate_dir: {folder}/state\n"
            'listeners: [{listen: "127.0.0.1:0"}]\nhttp: {listen: "127.0.0.1:0"}\nlimits: {min_free_disk: 1MiB}\n'
            "transports:\n  direct:\n    type: direct\n"
            f"    port: {port}\n    nameservers: ['{self.dns.nameserver}']\n    allow_private_addresses: true\n"
            f"    source_address: {HOST}\n    dkim: {{example.org: {{selector: s1, key_file: {self.key}}}}}\n"
            "routes: [{sender: example.org, transport: direct}]\ndefault_route: {reject: true}\n"
        )
        self.config.chmod(0o640)

    def close(self) -> None:
        self.elsewhere.do(self.dns.__aexit__())
        self.elsewhere.close()

    def examined(self) -> Said:
        return sesrelay("doctor", "--json", "--config", self.config)


def _parts(text: str) -> list[str]:
    return [text[start : start + 250] for start in range(0, len(text), 250)]


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Direct]:
    with socket.create_server((HOST, 0)) as exchanger:
        here = Direct(tmp_path, exchanger.getsockname()[1])
        greeter = asyncio.run_coroutine_threadsafe(_greet(exchanger), here.elsewhere._loop)
        yield here
        greeter.cancel()
        here.close()


async def _greet(exchanger: socket.socket) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.net ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, sock=exchanger.dup()) as server:
        await server.serve_forever()


def test_a_sound_direct_way_is_ok(direct: Direct) -> None:
    said = direct.examined()
    assert (said.code, [one for one in said.json["checks"] if one["status"] != "ok" and one["check"] != "relay"]) == (0, []), (
        said.out
    )
    assert found(said, "spf") == ["ok: covers 127.0.0.1"]
    assert found(said, "reverse dns") == ["ok: mail.example.net, which resolves back to it"]
    assert found(said, "port 25") == ["ok: answers: 220 mail.example.net ESMTP"]
    assert read_key(direct.key, os.environ)  # what was compared is the key that signs


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("10.0.0.1", "private"),
        ("100.64.0.1", "shared address space (carrier-grade NAT)"),
        ("fec0::1", "site-local"),
        ("64:ff9b::a00:1", "private"),
    ],
)
async def test_what_others_see_of_an_address_that_goes_nowhere_is_not_known(address: str, kind: str) -> None:
    async with SmallDns({("mail.example.net", "A"): ["192.0.2.1"]}) as dns:
        (check,) = await host(Dns([dns.nameserver]), DirectHost("mail.example.net", (address,)))
    assert (check.status, check.message) == ("warn", f"{kind}: this host is behind NAT, and its public address is not known")


@pytest.mark.parametrize(
    ("name", "kind", "values", "check", "message"),
    [
        ("example.org", "TXT", ['"v=spf1 ip4:192.0.2.0/24 -all"'], "spf", "fail: does not cover 127.0.0.1"),
        ("example.org", "TXT", ['"v=spf1 a:mail.example.net -all"', '"v=spf1 -all"'], "spf", "fail: several SPF records"),
        ("example.org", "TXT", [], "spf", "fail: no SPF record"),
        ("example.org", "TXT", ['"v=spf1 ip4:banana -all"'], "spf", "fail: not valid"),
        ("s1._domainkey.example.org", "TXT", [], "dkim", "fail: missing"),
        ("s1._domainkey.example.org", "TXT", ['"v=DKIM1; k=rsa; p=AAAA"'], "dkim", "fail: has another key than the signing key"),
        ("_dmarc.example.org", "TXT", [], "dmarc", "warn: no policy"),
        ("1.0.0.127.in-addr.arpa", "PTR", [], "reverse dns", "fail: no PTR record"),
        (
            "1.0.0.127.in-addr.arpa",
            "PTR",
            ["host-7.isp.example."],
            "reverse dns",
            "warn: PTR says host-7.isp.example, but EHLO says",
        ),
        (
            "mail.example.net",
            "A",
            ["192.0.2.9"],
            "reverse dns",
            "warn: PTR says mail.example.net, which does not resolve back to it",
        ),
        ("mail.example.net", "A", [], "ehlo", "fail: the name in EHLO has no address"),
        ("example.org", "MX", ["10 mail.example.net."], "port 25", "warn: no MX host on another machine"),
        ("example.org", "MX", [], "port 25", "warn: no MX host on another machine"),
    ],
)
def test_a_fault_of_direct_delivery_is_found(
    direct: Direct, name: str, kind: str, values: list[str], check: str, message: str
) -> None:
    direct.dns.records[name, kind] = values
    if not values:
        del direct.dns.records[name, kind]
    told = found(direct.examined(), check)
    assert any(one.startswith(message) for one in told), told


def test_what_the_dns_does_not_tell_is_not_missing(direct: Direct) -> None:
    direct.dns.rcodes.update({"_dmarc.example.org": "SERVFAIL"})
    assert [one.partition(":")[0] for one in found(direct.examined(), "dmarc")] == ["warn"]
    assert "could not be looked up" in found(direct.examined(), "dmarc")[0]
    direct.dns.rcodes.update({"1.0.0.127.in-addr.arpa": "SERVFAIL"})
    assert [one.partition(" (")[0] for one in found(direct.examined(), "reverse dns")] == [
        "warn: could not be looked up: no name server has a usable answer"
    ]


def test_port_25_is_tried_where_no_route_names_a_sender(direct: Direct) -> None:
    direct.dns.records["example.net", "MX"] = ["5 mail.example.net.", "10 mx.example.org."]
    direct.config.write_text(direct.config.read_text().partition("routes:")[0])  # all of it by default_route
    assert found(direct.examined(), "port 25") == ["ok: answers: 220 mail.example.net ESMTP"]


# --- this machine, the queue, relays ---


def test_who_has_the_port_is_named(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert checkup_machine.holder_of(port) == f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
        config = tmp_path / "config.yaml"
        config.write_text(
            f"state_dir: {tmp_path}/state\nlisteners: [{{listen: '127.0.0.1:{port}'}}]\ndefault_route: {{reject: true}}\n"
        )
        told = found(sesrelay("doctor", "--json", "--config", config), "listener")
        assert told[0].startswith("fail: in use by ")
        assert str(os.getpid()) in told[0]


class Disk:
    """What statvfs says, but for what is planted."""

    def __init__(self, found: os.statvfs_result, **planted: int) -> None:
        self._found = found
        self.__dict__.update(planted)

    def __getattr__(self, name: str) -> int:
        return int(getattr(self._found, name))


@pytest.mark.parametrize(
    ("planted", "more", "message", "remedy"),
    [
        (
            {"f_flag": os.ST_RDONLY},
            "",
            "fail: on a file system that is mounted read-only: no mail is accepted",
            "mount -o remount,rw",
        ),
        ({"f_bavail": 0}, "limits: {min_free_disk: 0}\n", "fail: full: no mail is accepted", "free disk space"),
        ({"f_bavail": 100, "f_frsize": 4096}, "", "fail: 0 MiB are free, less than limits.min_free_disk", "free disk space"),
        ({"f_favail": 0, "f_files": 1000}, "", "fail: no inode is free: no mail is accepted", "remove unneeded files"),
        ({"f_favail": 0, "f_files": 0}, "", "ok: ", ""),  # btrfs counts none
    ],
)
@pytest.mark.parametrize("made", [True, False])
def test_a_disk_that_takes_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: dict[str, int], more: str, message: str, remedy: str, made: bool
) -> None:
    state, before = tmp_path / "state", os.statvfs
    if made:
        state.mkdir()
    monkeypatch.setattr(os, "statvfs", lambda path: Disk(before(path), **planted))
    (one,) = disk(tmp_path, more)
    assert f"{one['status']}: {one['message']}".startswith(message)
    assert remedy in (one["remedy"] or "")
    assert one["subject"] == str(state if made else tmp_path)


def disk(folder: Path, more: str = "") -> list[dict[str, str | None]]:
    config = folder / "config.yaml"
    config.write_text(
        f"state_dir: {folder}/state\nlisteners: [{{listen: '127.0.0.1:0'}}]\ndefault_route: {{reject: true}}\n{more or LITTLE}"
    )
    config.chmod(0o640)
    return [one for one in sesrelay("doctor", "--json", "--config", config).json["checks"] if one["check"] == "disk"]


def test_a_folder_that_its_owner_may_not_write_to_fails(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    if os.geteuid() == 0:
        os.chown(state, UNNAMED, UNNAMED)
    owner = UNNAMED if os.geteuid() == 0 else ME
    state.chmod(0o550)
    (one,) = disk(tmp_path)
    assert (one["status"], one["message"]) == ("fail", f"{owner} cannot write there (mode 0550): no mail is accepted")
    assert one["remedy"] == f"chmod u+rwx {state}"
    state.chmod(0o750)
    assert [one["status"] for one in disk(tmp_path)] == ["ok"]
    state.chmod(0o1777)
    (one,) = disk(tmp_path)
    assert (one["status"], one["remedy"]) == ("warn", f"chmod o-w {state}")


@as_root
def test_what_root_may_read_and_the_relay_may_not_fails() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where the way to it is everybody's, as pytest's own is not
        folder = Path(name)
        folder.chmod(0o755)
        secret, config = folder / "ses.secret", folder / "config.yaml"
        secret.write_text("x" * 40)
        secret.chmod(0o600)
        (folder / "state").mkdir(0o750)
        os.chown(folder / "state", UNNAMED, UNNAMED)
        config.write_text(
            "state_dir: state\nlisteners: [{listen: 127.0.0.1:0}]\nhttp: {listen: 127.0.0.1:0}\ndefault_route: {reject: true}\n"
            "transports: {s: {type: ses, region: us-east-1, access_key_id: K, secret_access_key_file: ses.secret, tags: {key: x}}}\n"
        )

        def told() -> tuple[str, str, str | None]:
            said = sesrelay("doctor", "--json", "--config", config)
            (one,) = (one for one in said.json["checks"] if one["check"] == "configuration")
            return one["status"], one["message"], one["remedy"]

        stops = f"{UNNAMED} cannot read it, so the relay can neither start nor reload"
        assert told() == ("fail", f"{secret}: {stops}", f"chgrp {UNNAMED} {secret} && chmod g+r {secret}")
        os.chown(secret, 0, UNNAMED)
        secret.chmod(0o640)
        assert told()[0] == "fail", "modes are not all: without a name there is no group"
        os.chown(secret, UNNAMED, 0)
        assert told() == ("ok", "0 site files, no problem", None)
        folder.chmod(0o700)
        assert told()[:2] == ("fail", f"{config}: {stops}")


def test_a_configuration_that_every_user_may_change_is_a_warning(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("state_dir: state\nlisteners: [{listen: 127.0.0.1:0}]\ndefault_route: {reject: true}\n")
    for mode, status, remedy in ((0o644, "ok", None), (0o666, "warn", f"chmod o-w {config}")):
        config.chmod(mode)
        said = sesrelay("doctor", "--json", "--config", config)
        assert [(one["status"], one["remedy"]) for one in said.json["checks"] if one["check"] == "configuration"] == [
            (status, remedy)
        ]


@as_root
def test_what_root_left_in_the_folder_of_the_relays_user_fails(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(0o750)
    os.chown(state, UNNAMED, UNNAMED)
    (state / "lock").touch(0o640)
    (one,) = disk(tmp_path)
    assert (one["status"], one["message"]) == (
        "fail",
        f"{state}/lock belongs to root, and {UNNAMED} cannot write to it: no mail is accepted",
    )
    assert one["remedy"] == f"chown -R {UNNAMED}: {state}"
    os.chown(state / "lock", UNNAMED, UNNAMED)
    assert [one["status"] for one in disk(tmp_path)] == ["ok"]


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        ("master", "systemctl disable --now postfix"),
        ("sendmail-mta", "systemctl disable --now sendmail"),
        ("exim4", "systemctl disable --now exim4"),
        ("sesrelay", "it runs with another or an older configuration: give that one with --config, or restart it"),
        ("systemd", "find the socket unit: systemctl list-sockets (if it is the relay's own: systemctl start sesrelay)"),
    ],
)
def test_the_remedy_names_the_unit_of_who_has_the_port(monkeypatch: pytest.MonkeyPatch, name: str, stop: str) -> None:
    with socket.create_server((HOST, 0)) as taken:
        monkeypatch.setattr(checkup_machine, "holder_of", lambda port: f"{name} (pid 812)")
        found = checkup_machine._can_bind(Listener(listen=f"{HOST}:{taken.getsockname()[1]}"))
    assert (found.message, found.remedy) == (f"in use by {name} (pid 812)", f"{stop}, or choose another address")


def test_a_paused_lane_and_held_mail_are_told() -> None:
    pause = {
        "transport": "main",
        "nexthop": "us-east-1",
        "domain": None,
        "reason": "credentials",
        "since": "x",
        "remedy": "new key",
    }
    summary = {"paused": [pause], "by_state": {"held": 2}, "oldest_seconds": 7200.0, "messages": 3}
    checks = list(checkup_machine.queue(summary))
    assert Check("paused", "main us-east-1", "fail", "credentials, since x", "new key") in checks
    assert {(one.check, one.status) for one in checks} == {("paused", "fail"), ("held", "warn"), ("queue", "warn")}


def test_a_cap_that_its_owner_set_is_a_warning() -> None:
    cap = {
        "transport": "main",
        "nexthop": None,
        "domain": "example.com",
        "reason": "quota",
        "since": "x",
        "remedy": "wait",
        "cap": "daily_cap",
    }
    theirs = {**cap, "domain": None, "cap": None}
    checks = checkup_machine.queue({"paused": [cap, theirs], "by_state": {}, "oldest_seconds": None, "messages": 0})
    assert [(one.subject, one.status, one.message) for one in checks if one.check == "paused"] == [
        ("main example.com", "warn", "daily_cap, since x"),
        ("main", "fail", "quota, since x"),
    ]


def test_a_relay_that_does_not_answer_and_a_key_for_a_password(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as sock:
        closed = sock.getsockname()[1]
    config = tmp_path / "config.yaml"
    config.write_text(
        f"state_dir: {tmp_path}/state\nlisteners: [{{listen: '127.0.0.1:0'}}]\ntransports:\n"
        f"  r: {{type: smtp, host: 127.0.0.1, port: {closed}, username: u, password: s}}\n"
        "default_route: {transport: r}\n"
    )
    config.chmod(0o640)
    told = found(sesrelay("doctor", "--json", "--config", config), "relay host")
    assert told == [f"fail: cannot connect to 127.0.0.1 port {closed}: Connection refused"]


def test_senders_that_nobody_is_bound_to_are_told(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"state_dir: {tmp_path}/state\nlisteners: [{{listen: '127.0.0.1:0'}}]\ntransports: {{park: {{type: hold}}}}\n"
        "routes: [{sender: a.example, transport: park}, {sender: b.example, transport: park}]\n"
        "access: {local_users: {nobody: [a.example]}}\ndefault_route: {reject: true}\n"
    )
    said = sesrelay("doctor", "--json", "--config", config)
    (one,) = (one for one in said.json["checks"] if one["check"] == "senders")
    assert (one["status"], one["subject"]) == ("warn", "b.example")
    assert json.loads(said.out)["ok"] is True


def test_no_secret_is_in_what_is_said(world: AwsWorld) -> None:
    said = examined(world)
    assert "wJalrXUtnFEMI" not in said.out + said.err
