"""What leaves when: urgent mail behind a flood, caps and times named by the sender, in the real process and across its death."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from peers import require
from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for

FLOOD = 700  # more than a lane keeps in memory


@pytest.fixture
def ses() -> Iterator[StandIn]:
    with StandIn({"keys": {KEY: SECRET}}) as made:
        yield made


def sources(ses: StandIn) -> list[str]:
    return [one["source"] for one in ses.journal()]


@pytest.mark.peer
def test_a_password_reset_goes_ahead_of_the_newsletters(tmp_path: Path, ses: StandIn) -> None:
    way = ses_transport("ses-main", ses.url).replace("}", ", rate: 20}")
    more = (
        f"transports:\n{way}\ndefault_route: {{transport: ses-main}}\n"
        "routes:\n- {sender: other.example, transport: ses-main}\n"
        "- {sender: urgent.example, transport: ses-main, priority: high}\n"
    )
    with Relay(tmp_path, more) as relay:
        host, port = relay.smtp
        with smtplib.SMTP(host, port, timeout=60) as smtp:
            for n in range(FLOOD):
                raw = f"From: news@example.com\r\nPrecedence: bulk\r\nSubject: News {n}\r\n\r\nHello\r\n"
                smtp.sendmail("news@example.com", [f"reader{n}@example.org"], raw)
        relay.submit("reset@example.com", "somebody@example.org")  # of the same site, and no newsletter
        relay.submit("a@other.example", "somebody@example.org")
        before = len(ses.journal())
        assert before < FLOOD
        swaks = require("swaks")
        done = subprocess.run(
            swaks.command("--server", host, "--port", str(port), "--from", "alert@urgent.example", "--to", "b@example.org"),
            env=dict(swaks.env), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        wanted = {"reset@example.com", "a@other.example", "alert@urgent.example"}
        wait_for("all three are with SES", lambda: wanted <= set(sources(ses)))
        # What was on its way already, and what the pace let through while the three were handed in.
        assert max(sources(ses).index(one) for one in wanted) < before + 60
        assert {one["priority"] for one in relay.json("queue", "list")} == {"low"}


def test_a_time_that_the_sender_named_is_kept_across_the_death_of_the_process(tmp_path: Path, ses: StandIn) -> None:
    more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}"
    with Relay(tmp_path, more) as relay:
        with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
            smtp.ehlo()
            assert smtp.esmtp_features["futurerelease"].startswith("31536000 20")
        said = datetime.now(UTC)  # the interval begins at MAIL, a little before acceptance (RFC 4865 §5)
        soon = relay.submit("a@example.com", "b@example.org", options=["HOLDFOR=4"])
        late = relay.submit("a@example.com", "c@example.org", options=["HOLDUNTIL=2027-06-01T09:00:00+02:00"])
        relay.kill()
        relay.start()
        (waiting,) = relay.ask("show", id=late)["deliveries"]
        assert (waiting["state"], waiting["reason"], waiting["attempts"]) == ("queued", "scheduled", 0)
        assert waiting["next_attempt"] == "2027-06-01T07:00:00.000Z"
        relay.ended(soon)
        events = {event["event"]: datetime.fromisoformat(event["time"]) for event in relay.trace(soon)["events"]}
        assert (events["attempt"] - said).total_seconds() >= 4.0
        assert len(ses.journal()) == 1


def test_send_at_a_time(tmp_path: Path, ses: StandIn) -> None:
    more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}"
    with Relay(tmp_path, more) as relay:
        done = relay.run("send", "--from", "a@example.com", "--to", "b@example.org", "--at", "+2h")
        assert done.returncode == 0, done.stderr
        queued, leaves = done.stdout.splitlines()
        assert leaves.startswith("will be sent at 20")
        queue_id = queued.removeprefix("queued as ")
        (waiting,) = relay.ask("show", id=queue_id)["deliveries"]
        assert (waiting["state"], waiting["reason"]) == ("queued", "scheduled")
        for some in (("--sender", "*@example.com"), ("--state", "queued")):  # an operator who wants what is stuck to go leaves it
            done = relay.run("queue", "retry", *some)
            assert done.stdout == "0 deliveries changed\n"
            assert "the matching deliveries are scheduled for later: `sesrelay queue retry ID --config" in done.stderr
        assert relay.ask("show", id=queue_id)["deliveries"] == [waiting]
        assert relay.run("queue", "retry", queue_id).stdout == "1 deliveries changed\n"  # sooner, if an operator names it
        assert relay.ended(queue_id)[0]["state"] == "delivered"
        done = relay.run("send", "--from", "a@example.com", "--to", "b@example.org", "--at", "+1s")
        assert done.returncode == 0, done.stderr
        assert "delivered" in done.stdout
        assert relay.run("send", "--from", "a@example.com", "--to", "b@example.org", "--at", "soon").returncode == 64


def test_a_cap_is_kept_across_the_death_of_the_process_and_shown(tmp_path: Path, ses: StandIn) -> None:
    def config(cap: int) -> str:
        return (
            f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}\n"
            f"routes: [{{sender: example.com, transport: ses-main, daily_cap: {cap}}}]"
        )

    with Relay(tmp_path, config(3)) as relay:
        ids = [relay.submit("a@example.com", f"b{n}@example.org") for n in range(5)]
        other = relay.submit("a@example.net", "b@example.org")
        relay.ended(other)
        wait_for("the cap is reached", lambda: len(ses.journal()) == 4)
        relay.kill()
        relay.start()
        ids.append(relay.submit("a@example.com", "last@example.org"))
        (paused,) = wait_for("it is told", lambda: relay.ask("summary")["paused"])
        assert (paused["transport"], paused["reason"], paused["domain"]) == ("ses-main", "quota", None)
        assert "daily_cap" in paused["remedy"]
        assert (paused["route"], paused["cap"]) == ("example.com", "daily_cap")
        assert "\npaused: ses-main route example.com (daily_cap, since " in relay.run("queue", "summary").stdout
        assert b'for route <bdi>example.com</bdi></span> waits: <span class="reason">daily_cap</span>' in relay.get("/")
        waiting = wait_for("they wait", lambda: relay.json("queue", "list", "--state", "queued"))
        assert {(one["id"], one["reason"], one["attempts"]) for one in waiting} == {(each, "daily_cap", 0) for each in ids[3:]}
        assert {one["next_attempt"] for one in waiting} == {paused["until"]}
        assert relay.trace(ids[-1])["deliveries"][0]["reason"] == "daily_cap"
        assert len(ses.journal()) == 4
        relay.write(config(10))
        assert relay.ask("reload")["ok"]
        for each in ids:
            assert relay.ended(each)[0]["state"] == "delivered"
        assert len(ses.journal()) == 7, "each exactly once"


def test_an_operator_sends_what_is_stuck_by_another_way_out(tmp_path: Path, ses: StandIn) -> None:
    more = (
        f"transports:\n{ses_transport('ses-main', ses.url)}\n  park: {{type: hold}}\n  other: {{type: discard}}\n"
        "default_route: {transport: ses-main}\nroutes: [{sender: x.example, transport: [other, park]}]"
    )
    with Relay(tmp_path, more) as relay:
        ses.tell(chances={"quota": 1.0})  # which is asked again once a minute
        ids = [relay.submit("a@example.com", f"b{n}@example.org") for n in range(3)]
        wait_for("they wait", lambda: relay.ask("summary")["paused"])
        assert relay.run("queue", "retry", ids[0], "--transport", "elsewhere").returncode == 64
        assert relay.run("queue", "retry", ids[0], "--transport", "other").stdout == "1 deliveries changed\n"
        assert relay.ended(ids[0])[0]["transport"] == "other"
        attempts = {each: _attempts(relay, each) for each in ids[1:]}
        done = relay.run("queue", "retry", "--transport", "other", "--sender", "a@example.com")
        assert done.stdout == "0 deliveries changed\n", "without IDs it chooses what waits for it"
        assert relay.run("queue", "retry", "--sender", "a@example.com", "--via", "other").stdout == "2 deliveries changed\n"
        for each in ids[1:]:
            assert relay.ended(each)[0]["transport"] == "other"
            assert _attempts(relay, each) == [*attempts[each], "other"], "not once more by the way that it was taken from"
        assert ses.journal() == []


def _attempts(relay: Relay, queue_id: str) -> list[str]:
    """Return by which transports a message was tried, in order."""
    return [event["transport"] for event in relay.trace(queue_id)["events"] if event["event"] == "attempt"]
