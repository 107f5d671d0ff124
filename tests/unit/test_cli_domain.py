"""`sesrelay domain` against a strict stand-in for SES and a real name server: from nothing to a domain that may send."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aws_world import AwsWorld, aws_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AwsWorld]:
    yield from aws_world(tmp_path)


def states(document: dict) -> dict[tuple[str, str], str]:
    return {(one["name"], one["type"]): one["state"] for one in document["records"]}


def test_from_nothing_to_verified(world: AwsWorld) -> None:
    added = world.domain("add", "--json")
    assert added.code == 0, added.err
    told = added.json
    assert (told["verified"], told["ready"], told["dkim"]["status"], told["dkim"]["zone"]) == (
        False,
        False,
        "pending",
        "dkim.amazonses.com",
    )
    assert told["mail_from"] == {"domain": "bounce.example.com", "status": "pending", "on_mx_failure": "use_default_value"}
    assert set(states(told).values()) == {"missing"}
    assert sorted(one["type"] for one in told["records"]) == ["CNAME", "CNAME", "CNAME", "MX", "TXT", "TXT"]
    assert world.domain("verify").code == 1
    world.publish(told["records"])
    verified = world.domain("verify", "--json")
    assert verified.code == 0
    assert set(states(verified.json).values()) == {"ok"}
    assert "example.com" in (world.ses.account.verified or ())


def test_the_zone_is_that_of_the_answer(world: AwsWorld) -> None:
    world.ses.account.region = "eu-central-2"
    records = world.domain("add", "--region", "eu-central-2", "--json").json["records"]
    assert all(one["value"].endswith(".dkim.eu-central-2.amazonses.com") for one in records if one["purpose"] == "dkim")
    assert any(one["value"] == "10 feedback-smtp.eu-central-2.amazonses.com" for one in records)


def at_the_second_look(world: AwsWorld, then: Callable[[], None]) -> None:
    looked = len(world.dns.asked)

    def wait() -> None:
        while [(name, kind) for name, kind, _ in world.dns.asked[looked:]].count(("bounce.example.com", "MX")) < 2:
            time.sleep(0.01)
        then()

    threading.Thread(target=wait, daemon=True).start()


def test_waiting_tells_record_by_record(world: AwsWorld) -> None:
    records = world.domain("add", "--json").json["records"]
    at_the_second_look(world, lambda: world.publish(records))
    done = world.domain("verify", "--wait", "--every", "0.2s", "--timeout", "60s")
    assert done.code == 0, done.err
    assert "waiting for CNAME" in done.err
    assert "MX bounce.example.com (missing)" in done.err
    assert "may send" in done.out


def test_waiting_ends(world: AwsWorld) -> None:
    world.domain("add")
    done = world.domain("verify", "--wait", "--every", "0.05s", "--timeout", "0.2s")
    assert done.code == 75
    assert "domain verify example.com --wait" in done.err


def test_what_ses_does_not_look_for_is_not_what_it_waits_for(world: AwsWorld) -> None:
    """A domain is verified without its DMARC record, which is told of as missing all the same."""
    records = world.domain("add", "--json").json["records"]
    world.publish(one for one in records if one["purpose"] != "dmarc")
    seeing, world.ses.identities.look_up = world.ses.identities.look_up, lambda name, kind: ()
    at_the_second_look(world, lambda: setattr(world.ses.identities, "look_up", seeing))
    done = world.domain("verify", "--wait", "--every", "0.2s", "--timeout", "60s")
    assert done.code == 0, done.err
    assert "the DNS records are correct; waiting for SES to see them (DKIM pending, MAIL FROM pending)" in done.err
    assert "missing   TXT   _dmarc.example.com" in done.out


def test_what_is_wrong_is_named(world: AwsWorld) -> None:
    records = world.domain("add", "--json").json["records"]
    world.publish(records)
    world.dns.records["bounce.example.com", "MX"].append("20 mx.elsewhere.example.")
    world.dns.records["bounce.example.com", "TXT"] = ['"v=spf1 include:_spf.google.com -all"']
    del world.dns.records[records[0]["name"], "CNAME"]
    world.dns.silent.add(records[1]["name"])
    told = {(one["name"], one["type"]): one for one in world.domain("show", "--json").json["records"]}
    assert told["bounce.example.com", "MX"]["state"] == "different"
    assert "exactly one MX" in told["bounce.example.com", "MX"]["note"]
    assert told["bounce.example.com", "TXT"]["note"] == "it lacks include:amazonses.com"
    assert told[records[0]["name"], "CNAME"]["state"] == "missing"
    assert told[records[1]["name"], "CNAME"]["state"] == "unknown"


def test_a_second_add_changes_nothing_that_was_chosen(world: AwsWorld) -> None:
    world.domain("add", "--mail-from", "mail.example.com")
    again = world.domain("add", "--json")
    assert again.code == 0
    assert "exists already" in again.err
    assert again.json["mail_from"]["domain"] == "mail.example.com"
    assert world.domain("add", "--mail-from", "other.example.com", "--json").json["mail_from"]["domain"] == "other.example.com"


def test_a_configuration_set(world: AwsWorld) -> None:
    refused = world.domain("add", "--configuration-set", "events")
    assert refused.code == 1
    assert "events" in refused.err
    world.ses.account.configuration_sets = frozenset({"events"})
    assert world.domain("add", "--configuration-set", "events", "--json").json["configuration_set"] == "events"


def test_a_key_of_ones_own(world: AwsWorld, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = tmp_path / "dkim.pem"
    key.write_bytes(pem)
    key.chmod(0o644)
    assert world.domain("add", "--dkim-selector", "s1", "--dkim-key", key).code == 64  # others could read it
    key.chmod(0o600)
    added = world.domain("add", "--dkim-selector", "s1", "--dkim-key", key, "--json")
    assert added.code == 0, added.err
    record = next(one for one in added.json["records"] if one["purpose"] == "dkim")
    assert (record["name"], record["type"]) == ("s1._domainkey.example.com", "TXT")
    assert record["value"].startswith("v=DKIM1; k=rsa; p=MIIB")
    body = "".join(pem.decode().splitlines()[1:-1])
    assert body not in added.out + added.err
    zone = world.domain("dns", "--format", "bind", "--dkim-key", key).out
    line = next(line for line in zone.splitlines() if line.startswith("s1._domainkey"))
    assert all(len(piece) <= 257 for piece in line.split("\t")[-1].split(" ") if piece.startswith('"M'))
    assert world.domain("dns", "--format", "bind").code == 64  # the public half is not known
    key.write_bytes(b"no key")
    assert world.domain("add", "--dkim-selector", "s1", "--dkim-key", key).code == 64


def test_remove_wants_a_yes(world: AwsWorld) -> None:
    world.domain("add")
    assert world.run("domain", "remove", "example.com").code == 64
    done = world.run("domain", "remove", "example.com", "--yes")
    assert done.code == 0
    assert "still routes example.com to SES" in done.err
    assert world.run("domain", "remove", "example.com", "--yes").code == 1
    assert "domain add example.com" in world.domain("show").err


def test_what_is_no_domain_is_a_wrong_command_line(world: AwsWorld) -> None:
    for name in ("a@example.com", "com", "exa mple.com", "[127.0.0.1]"):
        assert world.domain("show", name=name).code == 64
    assert world.domain("add", "--mail-from", "bounce.example.org").code == 64
    assert world.domain("add", "--dkim-selector", "s1").code == 64
    assert world.domain("add", "--nameserver", "nowhere").code == 64


def test_a_refusal_names_its_remedy(world: AwsWorld) -> None:
    world.ses.keys = {"AKIAOTHER": "x"}
    refused = world.domain("add")
    assert refused.code == 1
    assert "InvalidClientTokenId" in refused.err
    assert "the keys are not valid" in refused.err
    portal = world.config.read_text()
    world.config.write_text(portal.replace(world.ses.url, f"{world.ses.url}/journal/"))
    assert world.domain("show").code == 1
    world.config.write_text(portal)
    world.ses.keys = None
    refused = world.domain("show", "--profile", "nobody")
    assert refused.code == 1
    assert "nobody" in refused.err


def test_without_a_configuration(tmp_path: Path, world: AwsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from aws_world import sesrelay
    from ses_world import KEY, SECRET

    for name, value in {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL_SESV2": world.ses.url}.items():
        monkeypatch.setenv(name, value)
    told = sesrelay("domain", "add", "example.net", "--region", "us-east-1", "--nameserver", world.dns.nameserver, "--json")
    assert told.code == 0, told.err
    assert "region" in sesrelay("domain", "show", "example.net").err


def test_a_root_spf_only_where_a_route_leads_directly(tmp_path: Path) -> None:
    for world in aws_world(tmp_path, "  - {sender: both.example, transport: [main, direct]}\n"):
        world.dns.records["both.example", "TXT"] = ['"v=spf1 include:_spf.example.net -all"', '"site=1"']
        assert not [one for one in world.domain("add", "--json").json["records"] if one["purpose"] == "spf"]
        records = world.domain("add", "--json", name="both.example").json["records"]
        (root,) = [one for one in records if one["purpose"] == "spf"]
        assert (root["name"], root["value"], root["state"]) == ("both.example", "v=spf1 a:relay.example.net ~all", "different")
        zone = world.domain("dns", "--format", "bind", name="both.example").out
        assert '"v=spf1 include:_spf.example.net a:relay.example.net -all"' in zone
        batch = json.loads(world.domain("dns", "--format", "route53", name="both.example").out)
        (step,) = [s for s in batch["Changes"] if s["ResourceRecordSet"]["Name"] == "both.example."]
        assert [one["Value"] for one in step["ResourceRecordSet"]["ResourceRecords"]] == [
            '"site=1"',
            '"v=spf1 include:_spf.example.net a:relay.example.net -all"',
        ]
        assert step["Action"] == "UPSERT"
        world.dns.rcodes["both.example TXT"] = "SERVFAIL"
        assert "TXT at both.example" in world.domain("dns", "--format", "bind", name="both.example").err


def test_a_batch_for_route53_has_octets_as_it_wants_them(world: AwsWorld) -> None:
    world.dns.records["both.example", "TXT"] = [r'"owner=M\195\188ller"']
    world.domain("add", name="both.example")
    batch = json.loads(world.domain("dns", "--format", "route53", name="both.example").out)
    (step,) = [s for s in batch["Changes"] if s["ResourceRecordSet"]["Name"] == "both.example."]
    assert step["ResourceRecordSet"]["ResourceRecords"][0] == {"Value": r'"owner=M\303\274ller"'}


def test_a_dmarc_record_of_the_domain_above_speaks_for_it(world: AwsWorld) -> None:
    world.dns.records["_dmarc.example.com", "TXT"] = ['"v=DMARC1; p=reject"']
    records = world.domain("add", "--json", name="shop.example.com").json["records"]
    (dmarc,) = [one for one in records if one["purpose"] == "dmarc"]
    assert (dmarc["state"], dmarc["note"]) == ("ok", "_dmarc.example.com applies to it")
    assert "_dmarc" not in world.domain("dns", "--format", "bind", name="shop.example.com").out


def test_formats(world: AwsWorld) -> None:
    import dns.zone

    world.domain("add")
    text = world.domain("dns", "--format", "bind").out
    zone = dns.zone.from_text(
        "@ 1 IN SOA a. b. 1 1 1 1 1\n@ 1 IN NS ns.example.com.\n" + text, origin="example.com", relativize=False
    )
    assert sum(len(node.rdatasets) for node in zone.nodes.values()) == 6 + 2
    document = world.domain("dns", "--format", "json").json
    assert document == world.domain("dns", "--json").json
    assert {one["purpose"] for one in document["records"]} == {"dkim", "mail_from", "dmarc"}
    table = world.domain("dns").out
    assert "bounce.example.com" in table
    batch = json.loads(world.domain("dns", "--format", "route53").out)
    assert {step["Action"] for step in batch["Changes"]} == {"CREATE"}
    assert len(batch["Changes"]) == 6
