"""An SES account as the whole process meets it: both APIs, its rate, its 24 hours, its reputation, and another region."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for


def metrics(relay: Relay) -> dict[str, float]:
    lines = (line for line in relay.get("/metrics").decode().splitlines() if line.startswith("sesrelay_ses_"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def transport(url: str, **more: Any) -> str:
    return f"transports:\n{ses_transport('ses-main', url, **more)}"


def test_large_mail_takes_the_other_api_and_what_it_costs_is_counted(tmp_path: Path) -> None:
    account = {"keys": {KEY: SECRET}, "statistics": {"DeliveryAttempts": 1_000, "Bounces": 60, "Complaints": 0, "Rejects": 2}}
    with StandIn(account) as ses:
        ways = transport(ses.url, tariff={"per_1000": 100.0, "per_gb": 0.0}, tags={"site": "blog"})
        with Relay(tmp_path, f"{ways}\ndefault_route: {{transport: ses-main}}\n") as relay:
            wait_for("the account has told", lambda: "sesrelay_ses_quota_24h" in relay.get("/metrics").decode())
            small = relay.submit("a@example.com", ["b@example.org", "c@example.org"])
            large = relay.submit(
                "a@example.com", "b@example.org", b"From: a@example.com\r\n\r\n" + b"0123456789abcdef\r\n" * 640_000
            )
            for queue_id in (small, large):
                assert {one["state"] for one in relay.ended(queue_id)} == {"delivered"}
            told = metrics(relay)
            page, (shown,) = relay.get("/").decode(), json.loads(relay.get("/api/v1/accounts"))
        by_api = {one["api"]: one for one in ses.journal()}
    assert set(by_api) == {"v1", "v2"}
    assert by_api["v2"]["tags"] == {"sesrelay-id": large, "site": "blog"}
    assert by_api["v2"]["raw"].endswith(b"0123456789abcdef\r\n")
    assert told['sesrelay_ses_recipients_total{transport="ses-main"}'] == 3
    assert round(told['sesrelay_ses_price_estimate_total{transport="ses-main"}'], 6) == 0.3
    assert told['sesrelay_ses_bounces_24h{transport="ses-main"}'] == 60
    assert told['sesrelay_ses_rejects_24h{transport="ses-main"}'] == 2
    assert (shown["transport"], shown["region"], shown["bounces_24h"], shown["sandbox"]) == ("ses-main", "us-east-1", 60, False)
    assert "6.00 %" in page
    assert any("bounce rate" in event["what"] for event in relay.events("notice"))


def test_the_rate_is_kept_without_a_refusal(tmp_path: Path) -> None:
    with StandIn({"keys": {KEY: SECRET}, "rate": 40}) as ses:
        more = f"{transport(ses.url)}\ndefault_route: {{transport: ses-main}}\n"
        with Relay(tmp_path, more) as relay:
            began = time.monotonic()
            sent = [relay.submit("a@example.com", [f"r{n}@example.org" for n in range(10)]) for _ in range(12)]
            for queue_id in sent:
                assert {one["state"] for one in relay.ended(queue_id)} == {"delivered"}
            took = time.monotonic() - began
            told = metrics(relay)
    assert told['sesrelay_ses_throttled_total{transport="ses-main"}'] == 0
    assert took > (120 - 40 - 10) / 40  # a bucket of one second, and a debt of one message


def test_near_the_end_of_the_24_hours_urgent_mail_goes_and_the_rest_waits(tmp_path: Path) -> None:
    routes = (
        "routes:\n  - {sender: alerts.example.com, transport: ses-main, priority: high}\n"
        "  - {sender: example.com, transport: ses-main}\n"
    )
    with StandIn({"keys": {KEY: SECRET}, "quota": 1_000, "sent": 950, "sandbox": True, "verified": ["example.com"]}) as ses:
        with Relay(tmp_path, f"{transport(ses.url)}\n{routes}") as relay:
            wait_for("the account has told", lambda: "sesrelay_ses_quota_24h{" in relay.get("/metrics").decode())
            waiting = relay.submit("news@example.com", "b@example.com")
            urgent = relay.submit("a@alerts.example.com", "b@example.com")
            assert relay.ended(urgent)[0]["state"] == "delivered"
            (why,) = relay.json("queue", "list")
            (paused,) = relay.json("queue", "summary")["paused"]
            ends = datetime.fromisoformat(paused["until"]), datetime.fromisoformat(why["next_attempt"])
            said = wait_for(
                "both are told",
                lambda: [e for e in relay.events("notice") if "SES account" in e["what"]][1:] and relay.events("notice"),
            )
            page = relay.get("/").decode()
            assert metrics(relay)['sesrelay_ses_sandbox{transport="ses-main"}'] == 1
        (taken,) = ses.journal()
    assert taken["source"] == "a@alerts.example.com"
    texts = " ".join(event["what"] for event in said)
    assert "reserved for mail of priority high" in texts
    assert "in the sandbox" in texts
    assert "in the sandbox" in page
    assert (why["id"], why["state"], why["reason"]) == (waiting, "queued", "daily_reserve")
    assert (paused["transport"], paused["reason"], paused["route"], paused["cap"]) == ("ses-main", "quota", None, "daily_reserve")
    assert "reserved for mail of priority high" in paused["remedy"]
    since = datetime.fromisoformat(paused["since"])
    assert all(since < at <= since + timedelta(seconds=61) for at in ends), "when it is looked at again"
    assert 'waits: <span class="reason">daily_reserve' in page
    assert "<h1>Part of the mail waits</h1>" in page


def test_another_region_takes_over_only_what_was_certainly_not_taken(tmp_path: Path) -> None:
    with StandIn({"keys": {KEY: SECRET}}) as first, StandIn({"keys": {KEY: SECRET}, "region": "eu-west-1"}) as second:
        more = (
            "transports:\n"
            f"{ses_transport('ses-one', first.url, failover_after='1s')}\n"
            f"{ses_transport('ses-two', second.url, region='eu-west-1')}\n"
            "routes:\n  - {sender: example.com, transport: [ses-one, ses-two]}\n"
        )
        with Relay(tmp_path, more) as relay:
            first.tell(script=["reset_after"])
            doubtful = relay.submit("a@example.com", "b@example.org")
            wait_for("the doubt is stored", lambda: relay.ask("show", id=doubtful)["deliveries"][0]["reason"] == "in_doubt")
            first.tell(suspended=True)
            moved = relay.submit("a@example.com", "c@example.org")
            (delivery,) = relay.ended(moved)
            summary = relay.ask("summary")
            doubt = relay.ask("show", id=doubtful)["deliveries"][0]
        taken = [one["destinations"] for one in second.journal()]
    assert delivery["transport"] == "ses-two"
    assert taken == [["c@example.org"]]
    assert (doubt["state"], doubt["transport"], doubt["reason"]) == ("queued", "ses-one", "in_doubt")
    (pause,) = summary["paused"]
    assert (pause["transport"], pause["reason"]) == ("ses-one", "suspended")
    assert "put-account-sending-attributes" in pause["remedy"]


def test_a_domain_that_is_verified_in_another_region_goes_there_alone(tmp_path: Path) -> None:
    here = {"keys": {KEY: SECRET}, "verified": ["example.com"]}
    there = {"keys": {KEY: SECRET}, "verified": ["example.net"], "region": "eu-west-1"}
    with StandIn(here) as first, StandIn(there) as second:
        more = (
            "transports:\n"
            f"{ses_transport('ses-one', first.url, failover_after='1s')}\n"
            f"{ses_transport('ses-two', second.url, region='eu-west-1')}\n"
            "default_route: {transport: [ses-one, ses-two]}\n"
        )
        with Relay(tmp_path, more) as relay:
            moved = relay.submit("a@example.net", "b@example.org", b"From: a@example.net\r\n\r\nx\r\n")
            assert relay.ended(moved)[0]["transport"] == "ses-two"
            stays = relay.submit("a@example.com", "b@example.org")
            assert relay.ended(stays)[0]["transport"] == "ses-one"
            (pause,) = relay.ask("summary")["paused"]
        assert [one["source"] for one in second.journal()] == ["a@example.net"]
    assert pause["transport"] == "ses-one"
    assert "example.net" in pause["remedy"]
