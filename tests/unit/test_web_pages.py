"""The pages for people as the server sends them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from browser.paper_desk import HOSTILE, LONG, REVERSED, delivery, message
from browser.paper_relay import ID, Relay
from sesrelay.policy.reputation import AccountStanding
from sesrelay.web.guard import HEADERS
from sesrelay.web.options import WebOptions


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay(WebOptions(port=0, hostname="mail.example.com", smtp="127.0.0.1:2525")) as made:
        yield made


async def test_an_empty_relay_tells_what_to_do(relay: Relay) -> None:
    relay.desk.messages = []
    status, text, headers = await relay.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "No mail yet" in text
    assert "swaks --server 127.0.0.1:2525" in text


async def test_the_hint_knows_sockets() -> None:
    async with Relay(WebOptions(port=0, smtp="unix:/run/sesrelay/submit.sock")) as relay:
        relay.desk.messages = []
        assert "swaks --socket /run/sesrelay/submit.sock --from" in (await relay.get("/"))[1]


async def test_accounts_are_shown_beside_awss_thresholds(relay: Relay) -> None:
    assert "Amazon SES" not in (await relay.get("/"))[1]
    relay.standings["ses-main"] = AccountStanding(
        "us-east-1", "AKIAX", "123456789012", 14.0, 50_000.0, 49_000.0, sandbox=True, reserving=True, seconds_left=5_400.0,
        attempts_24h=1_000, bounces_24h=60, complaints_24h=0, rejects_24h=3,
    )  # fmt: skip
    relay.standings[HOSTILE] = AccountStanding(HOSTILE, HOSTILE)
    text = (await relay.get("/"))[1]
    shown = ("Amazon SES", "us-east-1 · 123456789012", "14/s", "49\u202f000", "50\u202f000", "used up in 1 h", "6.00 %", "AWS acts at 5 %",
             "0.00 %", "AWS acts at 0.1 %", "in the sandbox", "<code>sesrelay account request-production</code>", "reserved for priority high", "the bounce rate is above")  # fmt: skip
    for part in shown:
        assert part in text, part
    assert '<span class="fame bad">6.00 %</span>' in text
    assert HOSTILE not in text
    status, text, _ = await relay.get("/api/v1/accounts")
    documents = {one["transport"]: one for one in json.loads(text)}
    assert status == 200
    assert documents["ses-main"] == {
        "transport": "ses-main", "region": "us-east-1", "credentials": "AKIAX", "account": "123456789012", "rate": 14.0,
        "quota_24h": 50_000.0, "sent_24h": 49_000.0, "quota_seconds_left": 5_400.0, "sandbox": True, "reserve_in_force": True,
        "attempts_24h": 1_000, "bounces_24h": 60, "complaints_24h": 0, "rejects_24h": 3,
    }  # fmt: skip
    assert documents[HOSTILE]["quota_seconds_left"] is None


@pytest.mark.parametrize("path", ["/", f"/messages/{ID}"])
async def test_hostile_texts_stay_text(relay: Relay, path: str) -> None:
    event = {
        "time": "2027-01-15T07:59:31Z", "event": "attempt", "recipient": HOSTILE, "transport": HOSTILE, "nexthop": HOSTILE,
        "outcome": "deferred", "reply": HOSTILE, "remote_id": HOSTILE, "duration": 0.1, "tls": HOSTILE, "changes": [HOSTILE],
    }  # fmt: skip
    bad = delivery(recipient=HOSTILE, reply=HOSTILE, reason=HOSTILE, route=HOSTILE, transport=HOSTILE, remote_id=HOSTILE)
    relay.desk.messages = [
        message(
            ID, HOSTILE, bad, sender=HOSTILE, header_from=HOSTILE, message_id=HOSTILE, client=HOSTILE, user=HOSTILE, events=[event]
        )
    ]
    relay.desk.figures["by_transport"] = {HOSTILE: {"queued": 1}}
    relay.desk.figures["paused"] = [
        {
            "transport": HOSTILE,
            "nexthop": HOSTILE,
            "reason": HOSTILE,
            "since": HOSTILE,
            "remedy": HOSTILE + "`x`",
            "domain": HOSTILE,
            "route": HOSTILE,
            "cap": HOSTILE,
        }
    ]
    relay.missing = [HOSTILE]
    status, text, _ = await relay.get(path)
    assert status == 200
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "<img" not in text
    assert ' style="' not in text


async def test_long_and_reversed_subjects_are_tamed(relay: Relay) -> None:
    relay.desk.messages = [message(ID, LONG), message("0h2k3j4l5m6n8", REVERSED)]
    text = (await relay.get("/"))[1]
    assert LONG not in text
    assert "\u202e" not in text
    assert "invoice \ufffdgpj.exe\ufffd paid" in text


async def test_pauses_stand_out_with_their_remedy(relay: Relay) -> None:
    relay.desk.figures["paused"] = [
        {
            "transport": "ses-main",
            "nexthop": None,
            "reason": "credentials",
            "since": "2027-01-15T07:00:00Z",
            "remedy": "Run `fix it` now.",
        }
    ]
    text = (await relay.get("/"))[1]
    assert "Part of the mail waits" in text
    assert "<code>fix it</code>" in text


async def test_many_pauses_do_not_bury_the_page(relay: Relay) -> None:
    relay.desk.figures["paused"] = [
        {
            "transport": "direct",
            "nexthop": f"d{n}.example",
            "reason": "unavailable",
            "since": "2027-01-15T07:00:00Z",
            "remedy": "wait",
        }
        for n in range(500)
    ]
    text = (await relay.get("/"))[1]
    assert "d7.example" in text
    assert "d8.example" not in text
    assert "And 492 more" in text


async def test_what_is_missing_is_on_the_page(relay: Relay) -> None:
    relay.missing = ["no listener on 127.0.0.1:25"]
    text = (await relay.get("/"))[1]
    assert "Not ready" in text
    assert "no listener on 127.0.0.1:25" in text


async def test_an_unknown_message_has_a_page_that_says_so(relay: Relay) -> None:
    status, text, _ = await relay.get("/messages/nothing")
    assert status == 404
    assert "No such message" in text


@pytest.mark.parametrize("path", ["/", f"/messages/{ID}", "/api/v1/summary", "/api/v1/recent", f"/api/v1/messages/{ID}"])
async def test_a_store_that_does_not_answer_is_503_without_its_inside(relay: Relay, path: str) -> None:
    relay.desk.broken = True
    status, text, headers = await relay.get(path)
    assert status == 503
    assert "/secret/path" not in text
    assert headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


async def test_a_fault_of_ours_is_500_without_its_inside(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.desk, "figures", {"paused": 7, "secret": "inside"})
    status, text, _ = await relay.get("/")
    assert status == 500
    assert "inside" not in text
    assert "Traceback" not in text
