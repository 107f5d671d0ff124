"""`domain dns --apply`: Route 53 as moto has it, Cloudflare by a stand-in; what is in the zone stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from aws_world import AwsWorld, Said, aws_world
from cloudflare import Cloudflare, cloudflare

MORE = "  - {sender: both.example.com, transport: [main, direct]}\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AwsWorld]:
    yield from aws_world(tmp_path, MORE)


# --- Route 53 ---


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def route53(moto: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_ROUTE_53", moto)
    client = boto3.client("route53", aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1", endpoint_url=moto)
    for zone in client.list_hosted_zones()["HostedZones"]:
        for one in client.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]:
            if one["Type"] not in ("NS", "SOA"):
                change(client, zone["Id"], "DELETE", one)
        client.delete_hosted_zone(Id=zone["Id"])
    client.create_hosted_zone(Name="com", CallerReference="0")
    client.create_hosted_zone(
        Name="example.com",
        CallerReference="1",
        HostedZoneConfig={"PrivateZone": True, "Comment": ""},
        VPC={"VPCId": "v", "VPCRegion": "us-east-1"},
    )
    client.zone = client.create_hosted_zone(Name="example.com", CallerReference="2")["HostedZone"]["Id"]
    return client


def change(client: Any, zone: str, action: str, one: dict[str, Any]) -> None:
    client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": one}]})


def put(client: Any, name: str, kind: str, *values: str) -> None:
    change(
        client, client.zone, "UPSERT", {"Name": name, "Type": kind, "TTL": 77, "ResourceRecords": [{"Value": v} for v in values]}
    )


def sets(client: Any) -> dict[tuple[str, str], dict[str, Any]]:
    found = client.list_resource_record_sets(HostedZoneId=client.zone)["ResourceRecordSets"]
    return {(one["Name"].rstrip("."), one["Type"]): one for one in found}


def values(one: dict[str, Any]) -> list[str]:
    return [record["Value"] for record in one["ResourceRecords"]]


def apply(world: AwsWorld, *args: str, name: str = "example.com") -> Said:
    return world.domain("dns", "--apply", "route53", *args, name=name)


def test_route53_has_all_records_and_a_second_time_nothing_to_do(world: AwsWorld, route53: Any) -> None:
    wanted = world.domain("add", "--json").json["records"]
    done = apply(world, "--yes")
    assert done.code == 0, done.err
    there = sets(route53)
    for one in wanted:
        (value,) = values(there[one["name"], one["type"]])
        assert value == ('"' + one["value"] + '"' if one["type"] == "TXT" else one["value"] + ".")
    assert done.out.index("create") < done.out.index("changed")  # the plan comes first
    again = apply(world, "--json")
    assert (again.code, again.json["applied"]) == (0, False)
    assert {one["action"] for one in again.json["changes"]} == {"keep"}


def test_route53_merges_spf_and_keeps_the_rest(world: AwsWorld, route53: Any) -> None:
    world.domain("add", name="both.example.com")
    put(route53, "both.example.com", "TXT", '"v=spf1 include:_spf.example.net -all"', '"site-verification=1"')
    put(route53, "both.example.com", "A", "192.0.2.1")
    put(route53, "_dmarc.both.example.com", "TXT", '"v=DMARC1; p=reject"')
    plan = apply(world, "--dry-run", "--json", name="both.example.com")
    before = sets(route53)
    assert plan.json["applied"] is False
    assert apply(world, "--yes", name="both.example.com").code == 0
    there = sets(route53)
    assert ("both.example.com", "TXT") in before
    assert sorted(values(there["both.example.com", "TXT"])) == [
        '"site-verification=1"',
        '"v=spf1 include:_spf.example.net a:relay.example.net -all"',
    ]
    assert there["both.example.com", "TXT"]["TTL"] == 77
    assert values(there["both.example.com", "A"]) == ["192.0.2.1"]
    assert values(there["_dmarc.both.example.com", "TXT"]) == ['"v=DMARC1; p=reject"']


def test_route53_keeps_foreign_values_to_the_octet(world: AwsWorld, route53: Any) -> None:
    foreign = [r'"owner=M\303\274ller"', r'"latin1=\374"', r'"latin1=\344"', '"txtvers=1" "path=/"', r'"\"a\\b\""']
    world.domain("add", name="both.example.com")
    put(route53, "both.example.com", "TXT", *foreign)
    assert apply(world, "--yes", name="both.example.com").code == 0
    assert values(sets(route53)["both.example.com", "TXT"])[:-1] == foreign


def test_route53_leaves_what_is_in_the_way(world: AwsWorld, route53: Any) -> None:
    wanted = world.domain("add", "--json").json["records"]
    put(route53, "bounce.example.com", "MX", "5 mail.elsewhere.example.")
    put(route53, wanted[0]["name"], "TXT", '"old"')
    done = apply(world, "--yes", "--json")
    assert done.code == 1
    assert "--replace" in done.err
    actions = {(one["name"], one["type"]): one["action"] for one in done.json["changes"]}
    assert actions["bounce.example.com", "MX"] == actions[wanted[0]["name"], "CNAME"] == "conflict"
    there = sets(route53)
    assert values(there["bounce.example.com", "MX"]) == ["5 mail.elsewhere.example."]
    assert (wanted[1]["name"], "CNAME") in there  # the others are put there
    assert apply(world, "--yes", "--replace").code == 0
    there = sets(route53)
    assert values(there["bounce.example.com", "MX"]) == ["10 feedback-smtp.us-east-1.amazonses.com."]
    assert (wanted[0]["name"], "TXT") not in there
    assert (wanted[0]["name"], "CNAME") in there


def test_route53_wants_a_yes_and_the_right_zone(world: AwsWorld, route53: Any) -> None:
    world.domain("add")
    refused = apply(world)
    assert refused.code == 64
    assert "create" in refused.out
    assert ("bounce.example.com", "MX") not in sets(route53)
    other = route53.create_hosted_zone(Name="example.com", CallerReference="3")["HostedZone"]["Id"]
    several = apply(world, "--yes")
    assert several.code == 1
    assert "--zone-id" in several.err
    assert apply(world, "--yes", "--zone-id", other.rpartition("/")[2]).code == 0
    world.domain("add", name="example.org")
    assert "no public hosted zone" in apply(world, "--yes", name="example.org").err


# --- Cloudflare ---


@pytest.fixture
def cf() -> Iterator[Cloudflare]:
    with cloudflare() as service:
        yield service


@pytest.fixture
def token(tmp_path: Path, cf: Cloudflare) -> Path:
    file = tmp_path / "cf.token"
    file.write_text(cf.token + "\n")
    file.chmod(0o640)
    return file


def test_cloudflare(world: AwsWorld, cf: Cloudflare, token: Path) -> None:
    def put_there(*args: str, name: str = "both.example.com") -> Said:
        return world.domain("dns", "--apply", "cloudflare", "--token-file", token, "--api-url", cf.url, *args, name=name)

    wanted = world.domain("add", "--json", name="both.example.com").json["records"]
    cf.add("TXT", "both.example.com", "v=spf1 mx -all")  # as older records come back: without quotes
    kept = cf.add("TXT", "both.example.com", '"site=1"')
    cf.add("A", "both.example.com", "192.0.2.1", proxied=True)
    assert put_there("--dry-run").code == 0
    assert len(cf.records) == 3
    done = put_there("--yes")
    assert done.code == 0, done.err
    assert [call for call in cf.calls if call.startswith("POST")] == ["POST /zones/z1/dns_records/batch"]
    assert kept in cf.records
    assert sorted(cf.has("TXT", "both.example.com")) == ['"site=1"', '"v=spf1 mx a:relay.example.net -all"']
    for one in wanted:
        if one["purpose"] == "dkim":
            assert cf.has("CNAME", one["name"]) == [one["value"]]
    assert cf.has("MX", "bounce.both.example.com") == ["feedback-smtp.us-east-1.amazonses.com"]
    assert "nothing to change" in put_there("--yes").out
    cf.records = {}
    in_the_way = cf.add("CNAME", wanted[0]["name"], "elsewhere.example", proxied=False)
    assert put_there("--yes").code == 1
    assert in_the_way in cf.records
    assert put_there("--yes", "--replace").code == 0
    assert cf.has("CNAME", wanted[0]["name"]) == [wanted[0]["value"]]


def test_cloudflare_refuses(world: AwsWorld, cf: Cloudflare, token: Path) -> None:
    def put_there(*args: str | Path, name: str = "example.com") -> Said:
        return world.domain("dns", "--apply", "cloudflare", "--yes", *args, name=name)

    world.domain("add")
    url = ("--api-url", cf.url)
    assert put_there(*url).code == 64
    assert "--token-file" in world.domain("dns", "--token-file", token).err
    token.chmod(0o644)
    assert "other users can access" in put_there("--token-file", token, *url).err
    token.chmod(0o600)
    clear = put_there("--token-file", token, "--api-url", "http://api.example/v4")
    assert "clear text" in clear.err
    cf.redirect = "http://127.0.0.1:1/"
    assert "302" in put_there("--token-file", token, *url).err
    cf.redirect = None
    world.domain("add", name="example.org")
    assert "no zone that contains example.org" in put_there("--token-file", token, *url, name="example.org").err
    token.write_text("another-canary")
    refused = put_there("--token-file", token, *url)
    assert refused.code == 1
    assert "Invalid access token (9109)" in refused.err
    assert "canary" not in refused.out + refused.err
