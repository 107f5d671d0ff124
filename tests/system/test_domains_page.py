"""docs/domains.md is run: every command of its console blocks, in the order of the page, with a relay, SES, IAM, Route 53 and a DNS."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import boto3
import pytest

from aws_world import sesrelay
from iam_world import IamWorld, iam_world, moto_server
from relay_process import Relay

PAGE = Path(__file__).parents[2] / "docs" / "domains.md"


class AsWritten(Relay):
    """The relay with the configuration that is there."""

    def write(self, more: str) -> None:
        """Leave it."""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines]


def publish(here: IamWorld, moto: str) -> None:
    """Let the name server have what Route 53 has."""
    route53 = boto3.client("route53", endpoint_url=moto, region_name="us-east-1")
    (zone,) = route53.list_hosted_zones()["HostedZones"]
    for one in route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]:
        values = [record["Value"] for record in one["ResourceRecords"]]
        here.world.dns.records[one["Name"].rstrip("."), one["Type"]] = values


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = f'listeners: [{{listen: "127.0.0.1:0"}}]\nhttp: {{listen: "127.0.0.1:0"}}\ncontrol: {tmp_path}/control.sock\n'
    with moto_server() as moto:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ROUTE_53", moto)
        profiles = tmp_path / "profiles"
        profiles.write_text("[admin]\naws_access_key_id = AKIAADMINISTRATOR000\naws_secret_access_key = s\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
        for here in iam_world(tmp_path, moto, monkeypatch, more):
            here.world.ses.keys = None  # whose key sends is another test's matter
            boto3.client("route53", endpoint_url=moto, region_name="us-east-1").create_hosted_zone(
                Name="example.com", CallerReference="1"
            )
            seen = set()
            with AsWritten(tmp_path, ""):
                for words in commands():
                    assert words[0] == "sesrelay"
                    args, stdin = words[1:], ""
                    seen.add(" ".join(args[:2]))
                    if "<" in args:
                        args, stdin = args[: args.index("<")], "a-secret-key"
                    if args[0] == "domain":
                        args += ["--nameserver", here.world.dns.nameserver]
                        publish(here, moto)
                    done = sesrelay(*args, *(["--yes"] if "--apply" in args else []), *_config(args, here), stdin=stdin)
                    assert done.code == 0, (words, done.out, done.err)
            assert {"domain add", "domain dns", "domain verify", "credentials create", "credentials rotate"} <= seen
            assert len(here.ids()) == 1


def _config(args: list[str], here: IamWorld) -> list[str]:
    return [] if args[0] == "smtp-password" else ["--config", str(here.world.config)]
