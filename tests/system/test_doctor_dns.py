"""doctor before real name servers: Knot has the zones, each with a fault of its own, and Unbound answers for them and validates."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aws_world import AwsWorld, Said, aws_world, sesrelay
from dnssec import SignedDns
from iam_world import moto_server
from sesrelay.config.dkim_keys import generate
from sesrelay.mail.dkim import record
from sesrelay.setup.dkim_key import write_key
from sesrelay.setup.zones.formats import quoted
from small_dns import SmallDns

SPF, MX, DMARC = '@ TXT "v=spf1 a:mail.host.test -all"\n', "@ MX 10 mx.host.test.\n", '_dmarc TXT "v=DMARC1; p=none"\n'
FAULTS = {
    "sound.test": ("", ""),
    "nospf.test": ("spf", "fail: no SPF record"),
    "otherspf.test": ("spf", "fail: does not cover 127.0.0.1"),
    "twospf.test": ("spf", "fail: several SPF records"),
    "badspf.test": ("spf", "fail: not valid"),
    "nodkim.test": ("dkim", "fail: missing"),
    "otherdkim.test": ("dkim", "fail: has another key than the signing key"),
    "nodmarc.test": ("dmarc", "warn: no policy"),
    "forged.test": ("spf", "warn: could not be looked up"),
}


def checks(said: Said) -> list[tuple[str, str, str]]:
    return [(one["check"], one["subject"], f"{one['status']}: {one['message']}") for one in said.json["checks"]]


@pytest.fixture
def exchanger() -> Iterator[int]:
    """Yield the port of a host that greets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"220 mail.host.test ESMTP\r\n")

        threading.Thread(target=greet, daemon=True).start()
        yield int(server.getsockname()[1])


def test_each_fault_of_a_direct_domain_is_found(tmp_path: Path, exchanger: int) -> None:
    pem, key = generate("rsa")
    write_key(tmp_path / "k.pem", pem, tmp_path / "config.yaml")
    dkim = "s1._domainkey TXT " + quoted(record(key.algorithm, key.public)) + "\n"
    zones = dict.fromkeys(FAULTS, SPF + MX + DMARC + dkim)
    zones["nospf.test"] = MX + DMARC + dkim
    zones["otherspf.test"] = '@ TXT "v=spf1 ip4:192.0.2.0/24 -all"\n' + MX + DMARC + dkim
    zones["twospf.test"] += '@ TXT "v=spf1 -all"\n'
    zones["badspf.test"] = '@ TXT "v=spf1 ip4:banana -all"\n' + MX + DMARC + dkim
    zones["nodkim.test"] = SPF + MX + DMARC
    zones["otherdkim.test"] = SPF + MX + DMARC + 's1._domainkey TXT "v=DKIM1; k=rsa; p=AAAA"\n'
    zones["nodmarc.test"] = SPF + MX + dkim
    zones["host.test"] = "mail A 127.0.0.1\nmx A 127.0.0.1\n"
    with SignedDns(tmp_path, zones, forged=frozenset({"forged.test"})) as dns:
        config = tmp_path / "config.yaml"
        keys = ", ".join(f"{name}: {{selector: s1, key_file: k.pem}}" for name in FAULTS)
        config.write_text(
            f"hostname: mail.host.test\nstate_dir: {tmp_path}/state\n"
            'listeners: [{listen: "127.0.0.1:0"}]\nhttp: {listen: "127.0.0.1:0"}\nlimits: {min_free_disk: 1MiB}\n'
            "transports:\n  direct:\n    type: direct\n    allow_private_addresses: true\n    source_address: 127.0.0.1\n"
            f"    port: {exchanger}\n    nameservers: ['{dns.nameserver}']\n    dkim: {{{keys}}}\n"
            f"routes: [{{sender: [{', '.join(FAULTS)}], transport: direct}}]\ndefault_route: {{reject: true}}\n"
        )
        said = sesrelay("doctor", "--json", "--config", config)
    found = checks(said)
    for name, (check, message) in FAULTS.items():
        about = [(kind, text) for kind, subject, text in found if subject == name or subject.endswith(f".{name}")]
        wrong = [(kind, text) for kind, text in about if not text.startswith("ok")]
        if name == "forged.test":
            assert wrong, "nothing of a zone that does not validate counts"
            assert all(text.startswith("warn") for _, text in wrong)
        elif check:
            assert len(wrong) == 1, (name, wrong)
            assert wrong[0][0] == check
            assert wrong[0][1].startswith(message)
        else:
            assert wrong == [], (name, wrong)
    assert ("port 25", "mx.host.test", "ok: answers: 220 mail.host.test ESMTP") in found
    assert any(kind == "reverse dns" and "says localhost" in text for kind, _, text in found), "Unbound's own name for 127.0.0.1"
    assert said.code == 1


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsWorld]:
    (tmp_path / "world").mkdir()
    with moto_server() as moto:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
        yield from aws_world(tmp_path / "world", 'listeners: [{listen: "127.0.0.1:0"}]\ndefault_route: {transport: main}\n')


def test_each_fault_of_a_domain_of_ses_is_found(world: AwsWorld, tmp_path: Path) -> None:
    assert world.domain("add").code == 0
    records = world.domain("dns", "--format", "json").json["records"]
    first, second, third = (one for one in records if one["purpose"] == "dkim")
    text = f"{first['name']}. CNAME {first['value']}.\n{second['name']}. CNAME elsewhere.example.\n"
    text += "bounce MX 10 feedback-smtp.us-east-1.amazonses.com.\nbounce MX 20 mx.example.\n"
    with SignedDns(tmp_path, {"example.com": text}) as dns:
        said = world.run("doctor", "--json", "--nameserver", dns.nameserver)
    found = {(kind, subject): message for kind, subject, message in checks(said)}
    assert found["dkim", f"{first['name']} CNAME"].startswith("ok")
    assert found["dkim", f"{second['name']} CNAME"] == "fail: different: elsewhere.example (it points elsewhere)"
    assert found["dkim", f"{third['name']} CNAME"] == "fail: missing"
    assert found["mail-from", "bounce.example.com MX"].startswith("fail: different")
    assert found["mail-from", "bounce.example.com TXT"] == "fail: missing"
    assert found["dmarc", "_dmarc.example.com TXT"] == "warn: missing"
    assert said.code == 1


async def test_domains_that_get_no_answer_are_waited_for_together(tmp_path: Path) -> None:
    names = [f"d{number}.test" for number in range(10)]
    async with SmallDns(silent={"mail.host.test", "host.test", *names}) as dns:
        config = tmp_path / "config.yaml"
        config.write_text(
            f"hostname: mail.host.test\nstate_dir: {tmp_path}/state\nlimits: {{min_free_disk: 1MiB}}\n"
            'listeners: [{listen: "127.0.0.1:0"}]\nhttp: {listen: "127.0.0.1:0"}\n'
            f"transports: {{direct: {{type: direct, source_address: 127.0.0.1, nameservers: ['{dns.nameserver}']}}}}\n"
            f"routes: [{', '.join(f'{{sender: {name}, transport: direct}}' for name in names)}]\n"
        )
        said = await asyncio.to_thread(sesrelay, "doctor", "--json", "--config", config)
    assert [subject for check, subject, _ in checks(said) if check == "spf"] == names, "in the order of the routes"
    asked = [question for question in dns.asked if question[:2] in {(name, "TXT") for name in names}]
    assert set(asked[: len(names)]) == {(name, "TXT", "udp") for name in names}, "each once, before any is asked again"
