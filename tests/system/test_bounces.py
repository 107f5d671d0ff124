"""Bounces of the real process: each rung of the ladder, DSN between real hosts, and what a sender asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from flufl.bounce import all_failures

from background import serving
from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for
from scripted_host import ScriptedHost
from small_dns import SmallDns

REJECTED = {"name": "error", "code": "MessageRejected", "text": "Transaction failed: Missing start boundary"}
RECORDS = {
    (name, kind): [value]
    for name in ("example.com", "gone.example", "local.example", "plain.example", "dsn.example")
    for kind, value in (("MX", f"10 mx.{name}."),)
}


@dataclass
class World:
    """A relay between a stand-in for SES that knows two identities, and the mail hosts of a few domains."""

    relay: Relay
    ses: StandIn
    host: ScriptedHost
    folder: Path

    def bounced(self, queue_id: str) -> list[dict[str, Any]]:
        """Return the reports that follow from a message, each as `trace` has it, once the last one has ended."""

        def look() -> tuple[list[dict[str, Any]]] | None:
            found, wanted = [], queue_id
            while True:
                trace = self.relay.trace(wanted)
                if any(one["state"] in ("queued", "in_flight") for one in trace["deliveries"]):
                    return None
                found += [trace] if found or wanted != queue_id else []
                told = [event["reply"] for event in trace["events"] if event["event"] == "bounced"]
                if not told:
                    return (found,)
                (wanted,) = set(told)

        return list(wait_for("the bounce has come to its end", look)[0])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    dns, host = SmallDns({**RECORDS, **{(f"mx.{name}", "A"): ["127.0.0.1"] for name, _ in RECORDS}}), ScriptedHost()
    control = {"keys": {KEY: SECRET}, "verified": ["shop.example", "app@example.com", "app@gone.example"]}
    with serving(dns, host), StandIn(control) as ses:
        more = (
            f"transports:\n{ses_transport('ses-main', ses.url)}\n"
            f"  direct: {{type: direct, port: {host.port}, nameservers: ['{dns.nameserver}'], allow_private_addresses: true, tls: none}}\n"
            "routes: [{sender: local.example, transport: direct}]\n"
            "default_route: {transport: ses-main}\nqueue: {retry: [1s]}\n"
            "local: {aliases: {www-data: ops@example.org}}\n"
        )
        with Relay(tmp_path, more) as relay:
            yield World(relay, ses, host, tmp_path / "state" / "undeliverable")


def test_on_the_first_rung_by_the_route_of_its_header_from(world: World) -> None:
    world.ses.tell(script=[REJECTED])
    (bounce,) = world.bounced(world.relay.submit("a@shop.example", "x@example.org"))
    (taken,) = world.ses.journal()
    assert taken["source"] == "mailer-daemon@shop.example"
    assert taken["destinations"] == ["a@shop.example"]
    assert bounce["header_from"] == "mailer-daemon@shop.example"
    assert all_failures(message_from_bytes(taken["raw"]))[1] == {b"x@example.org"}


def test_on_the_second_through_ses_as_the_domain_that_is_verified(world: World) -> None:
    world.ses.tell(script=[REJECTED])
    content = b"From: blog@shop.example\r\nSubject: PHP\r\n\r\nx\r\n"
    found = world.bounced(world.relay.submit("www-data@relay.example.net", "x@example.org", content))
    assert [one["header_from"] for one in found] == ["mailer-daemon@relay.example.net", "mailer-daemon@shop.example"]
    (taken,) = world.ses.journal()
    assert (taken["source"], taken["destinations"]) == ("mailer-daemon@shop.example", ["ops@example.org"])
    parsed = message_from_bytes(taken["raw"], policy=policy.default)
    assert parsed["From"].addresses[0].addr_spec == "mailer-daemon@shop.example"
    assert world.relay.ask("summary")["paused"] == []


def test_on_the_third_straight_to_the_senders_host_with_the_null_sender(world: World) -> None:
    world.ses.tell(script=[REJECTED])
    world.bounced(world.relay.submit("app@example.com", "x@example.org"))
    assert world.ses.journal() == []
    (taken,) = world.host.messages
    assert taken.mail == "MAIL FROM:<>"
    assert taken.rcpt == ["RCPT TO:<app@example.com>"]
    assert world.relay.ask("summary")["paused"] == [], "app@ may go on sending"
    assert not world.folder.exists()


def test_on_the_last_in_a_folder_that_the_summary_shows(world: World) -> None:
    world.ses.tell(script=[REJECTED])
    world.host.replies["RCPT app@gone.example"] = "550 5.1.1 No such user"
    found = world.bounced(world.relay.submit("app@gone.example", "x@example.org"))
    assert found[-1]["deliveries"][0]["transport"] == "undeliverable"
    (kept,) = (world.folder / "new").iterdir()
    parsed = message_from_bytes(kept.read_bytes(), policy=policy.default)
    assert parsed["To"].addresses[0].addr_spec == "app@gone.example"
    assert [part.get_content_type() for part in parsed.iter_parts()] == [  # type: ignore[attr-defined]
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]
    assert any("undeliverable" in one.get("folder", "") for one in world.relay.events("trouble"))


def test_success_is_the_next_hosts_to_tell_where_it_offers_dsn_and_ours_elsewhere(world: World) -> None:
    world.host.offers = ("PIPELINING", "8BITMIME", "DSN")
    options = ["RET=HDRS", "ENVID=e1"]
    first = world.relay.submit("a@local.example", "x@dsn.example", options=options, notify="SUCCESS,FAILURE")
    assert world.bounced(first) == []
    (taken,) = world.host.messages
    assert taken.mail.endswith(" RET=HDRS ENVID=e1")
    assert taken.rcpt == ["RCPT TO:<x@dsn.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x@dsn.example"]
    world.host.offers = ("PIPELINING", "8BITMIME")
    second = world.relay.submit("a@local.example", "x@plain.example", options=options, notify="SUCCESS")
    (bounce,) = world.bounced(second)
    assert bounce["subject"] == f"Report on {second}: relayed"
    report = message_from_bytes(world.host.messages[-1].content, policy=policy.default)
    per_message, recipient = report.get_payload(1).get_payload()  # type: ignore[union-attr]
    assert per_message["Original-Envelope-Id"] == "e1"
    assert (recipient["Action"], recipient["Status"]) == ("relayed", "2.0.0")
    assert recipient["Remote-MTA"] == "dns; mx.plain.example"
    (attempt,) = [event for event in world.relay.trace(second)["events"] if event["event"] == "attempt"]
    assert (attempt["nexthop"], attempt["host"]) == ("plain.example", "mx.plain.example")
