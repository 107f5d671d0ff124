"""The main job, whole: the real process, mail from real programs, the strict stand-in for SES on the other side."""

from __future__ import annotations

import smtplib
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from peers import require
from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for

OTHER_KEY, OTHER_SECRET = "AKIAI44QH8DHBEXAMPLE", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY"


@pytest.fixture
def ses() -> Iterator[StandIn]:
    with StandIn({"keys": {KEY: SECRET, OTHER_KEY: OTHER_SECRET}}) as made:
        yield made


@pytest.fixture
def relay(tmp_path: Path, ses: StandIn) -> Iterator[Relay]:
    more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}\nqueue: {{retry: [1s, 2s]}}"
    with Relay(tmp_path, more) as made:
        yield made


@pytest.mark.peer
def test_swaks_with_a_bcc_only_recipient(relay: Relay, ses: StandIn, tmp_path: Path) -> None:
    body = "".join(f"line {n} .with dots.\n.\n..leading\n" for n in range(50)) + "trailing space \n\tta\x62\n"
    mail = tmp_path / "mail.txt"
    mail.write_text(
        "From: Shop <shop@example.com>\nTo: seen@example.org\nBcc: hidden@example.net\nSubject: Order =?utf-8?q?=E2=82=AC?=\n"
        f"Date: Sat, 28 Nov 2026 10:00:00 +0000\nMessage-ID: <one@example.com>\nX-Folded: a\n b\n\n{body}"
    )
    host, port = relay.smtp
    swaks = require("swaks")
    done = subprocess.run(
        swaks.command("--server", host, "--port", str(port), "--from", "shop@example.com", "--to", "seen@example.org,hidden@example.net",
                      "--data", f"@{mail}", "--pipeline"),
        env=dict(swaks.env), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (taken,) = wait_for("SES has it", ses.journal)
    assert taken["source"] == "shop@example.com"
    assert taken["destinations"] == ["seen@example.org", "hidden@example.net"]
    head, _, sent_body = taken["raw"].partition(b"\r\n\r\n")
    # swaks ends the message with a line of its own, as its DATA shows.
    assert sent_body.rstrip(b"\r\n") == body.encode().replace(b"\n", b"\r\n").rstrip(b"\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"Received: from ")
    rest = b"\r\n".join(lines[next(n for n, line in enumerate(lines) if n and not line.startswith(b"\t")) :])
    assert rest == (
        b"From: Shop <shop@example.com>\r\nTo: seen@example.org\r\nSubject: Order =?utf-8?q?=E2=82=AC?=\r\n"
        b"Date: Sat, 28 Nov 2026 10:00:00 +0000\r\nMessage-ID: <one@example.com>\r\nX-Folded: a\r\n b\r\n"
        b"References: <one@example.com>"
    )
    # SES has it before its outcome is on disk.
    wait_for("the outcome is stored", lambda: relay.ask("summary")["messages"] == 0)
    trace = relay.trace("one@example.com")
    assert trace["events"][0]["changes"] == ["removed Bcc"]
    receipts = [event["changes"] for event in trace["events"] if event["event"] == "attempt"]
    assert receipts == [["put Message-ID into References"]] * 2
    assert [one["state"] for one in trace["deliveries"]] == ["delivered", "delivered"]
    for other in ("<one@example.com>", taken["message_id"]):
        assert relay.trace(other)["id"] == trace["id"]


def test_sites_go_where_the_rules_say(tmp_path: Path, ses: StandIn) -> None:
    more = "\n".join(
        (
            "transports:",
            ses_transport("ses-one", ses.url),
            ses_transport("ses-two", ses.url, access_key_id=OTHER_KEY, secret_access_key=OTHER_SECRET, configuration_set="two"),
            "  park: {type: hold}",
            "  nowhere: {type: discard}",
            "routes:",
            "  - {sender: example.com, transport: ses-one}",
            "  - {sender: [shop.example, '*.shop.example'], transport: ses-two, name: shop}",
            "  - {sender: ceo@example.com, transport: park}",
            "default_route: {transport: nowhere}",
        )
    )
    ses.tell(configuration_sets=["two"])
    with Relay(tmp_path, more) as relay:
        cases = {
            "a@example.com": ("example.com", "ses-one"),
            "A@EXAMPLE.COM": ("example.com", "ses-one"),
            "ceo@example.com": (None, "park"),
            "a@shop.example": ("shop", "ses-two"),
            "a@www.shop.example": ("shop", "ses-two"),
            "a@notexample.com": ("default", "nowhere"),
            "a@example.com.evil.org": ("default", "nowhere"),
            "a@www.example.com": ("default", "nowhere"),
            "": ("example.com", "ses-one"),
        }
        for sender, (route, transport) in cases.items():
            header = sender or "bounces@example.com"
            content = f"From: {header}\r\nSubject: {sender or 'null'}\r\n\r\nx\r\n".encode()
            queue_id = relay.submit(sender, "b@example.org", content)
            (one,) = wait_for(
                "an end",
                lambda queue_id=queue_id: [
                    d for d in relay.ask("show", id=queue_id)["deliveries"] if d["state"] not in ("queued", "in_flight")
                ],
            )
            assert one["transport"] == transport, sender
            assert route is None or one["route"] == route
            shown = relay.json("route", sender or "<>", "--header-from", header)
            assert shown["transports"] == [transport], sender
        sources = [(one["source"].lower(), one["configuration_set"]) for one in ses.journal()]
        assert sorted(sources) == sorted(
            [("a@example.com", None), ("a@example.com", None), ("a@shop.example", "two"), ("a@www.shop.example", "two"),
             ("bounces@example.com", None)]
        )  # fmt: skip


def test_a_site_added_by_sighup_without_a_dropped_connection(tmp_path: Path, ses: StandIn) -> None:
    with Relay(
        tmp_path, f"transports:\n{ses_transport('ses-main', ses.url)}\n  park: {{type: hold}}\ndefault_route: {{transport: park}}"
    ) as relay:
        session = smtplib.SMTP(*relay.smtp, timeout=30)
        session.ehlo()
        folder = tmp_path / "sites.d"
        folder.mkdir()
        (folder / "new.yaml").write_text("routes: [{sender: new.example, transport: ses-main}]\n")
        assert relay.process is not None
        before = len(relay.events("reloaded"))
        relay.process.send_signal(1)
        wait_for("the reload", lambda: len(relay.events("reloaded")) > before)
        session.sendmail("a@new.example", ["b@example.org"], "Subject: x\r\n\r\nx\r\n")
        wait_for("SES has it", ses.journal)
        (folder / "new.yaml").write_text("routes: [{sender: new.example, transprt: ses-main}]\n")
        relay.process.send_signal(1)
        wait_for("the refusal", lambda: len(relay.events("reloaded")) > before + 1)
        told = relay.events("reloaded")[-1]
        assert told["ok"] is False
        assert "new.yaml:1:" in told["detail"]
        session.sendmail("a@new.example", ["b@example.org"], "Subject: y\r\n\r\ny\r\n")
        wait_for("the old configuration stays", lambda: len(ses.journal()) == 2)
        session.quit()
        assert b"sesrelay_config_reload_success 0.0" in relay.get("/metrics")


def test_refused_deferred_and_greylisted_end_as_they_must(relay: Relay, ses: StandIn) -> None:
    ses.tell(script=[{"name": "throttle"}])
    assert relay.ended(relay.submit("a@example.com", "late@example.org"))[0]["state"] == "delivered"
    ses.tell(script=[{"name": "error", "code": "MessageRejected", "text": "Transaction failed: Missing start boundary"}])
    queue_id = relay.submit("a@example.com", ["x@example.org", "y@example.org"], options=["RET=HDRS", "ENVID=e1"])
    ended = relay.ended(queue_id)
    assert {(one["state"], one["outcome"]) for one in ended} == {("failed", "failed")}
    bounces = wait_for("the bounce", lambda: [one for one in ses.journal() if one["source"] == "mailer-daemon@example.com"])
    time.sleep(0.3)
    assert len([one for one in ses.journal() if one["source"] == "mailer-daemon@example.com"]) == 1
    parsed = message_from_bytes(bounces[0]["raw"], policy=policy.default)
    assert bounces[0]["destinations"] == ["a@example.com"]
    assert parsed["From"].addresses[0].addr_spec == "mailer-daemon@example.com"
    assert [part.get_content_type() for part in parsed.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]  # type: ignore[attr-defined]
    assert bounces[0]["raw"].count(b"Final-Recipient: rfc822;") == 2
    assert "bounced" in {event["event"] for event in relay.trace(queue_id)["events"]}


def test_an_expired_key_holds_mail_and_says_what_to_do(relay: Relay, ses: StandIn) -> None:
    ses.tell(keys={OTHER_KEY: OTHER_SECRET})
    ids = [relay.submit("a@example.com", f"b{n}@example.org") for n in range(3)]
    paused = wait_for("the pause", lambda: relay.ask("summary")["paused"])
    assert (paused[0]["transport"], paused[0]["reason"]) == ("ses-main", "credentials")
    assert paused[0]["remedy"]
    assert b'sesrelay_transport_paused{reason="credentials",transport="ses-main"} 1.0' in relay.get("/metrics")
    wait_for("all wait", lambda: {relay.ask("show", id=each)["deliveries"][0]["state"] for each in ids} == {"queued"})
    assert {relay.ask("show", id=each)["deliveries"][0]["attempts"] for each in ids} == {0}
    assert SECRET not in relay.log.read_text() + relay.get("/").decode() + relay.get("/metrics").decode()
    ses.tell(keys={KEY: SECRET})
    assert relay.run("queue", "retry", "--transport", "ses-main").stdout == "3 deliveries changed\n"
    for each in ids:
        assert relay.ended(each)[0]["state"] == "delivered"
    assert not relay.ask("summary")["paused"]


def test_the_verbs_with_and_without_the_daemon(relay: Relay, ses: StandIn) -> None:
    done = relay.run("send", "--from", "a@example.com", "--to", "b@example.org", "--to", "c@example.org")
    assert done.returncode == 0, done.stderr
    queue_id = done.stdout.splitlines()[0].removeprefix("queued as ")
    ses.tell(chances={"503": 1.0})
    waiting = relay.submit("a@example.com", "later@example.org")
    wait_for("it waits", lambda: relay.ask("show", id=waiting)["deliveries"][0]["state"] == "queued")
    for daemon in (True, False):
        if not daemon:
            assert relay.stop() == 0
        assert {one["id"] for one in relay.json("queue", "list")} == {waiting}
        assert {one["recipient"] for one in relay.json("queue", "list", "--state", "delivered")} == {
            "b@example.org",
            "c@example.org",
        }
        assert relay.json("queue", "show", queue_id)["sender"] == "a@example.com"
        assert relay.json("queue", "summary")["messages"] == 1
        assert relay.json("trace", queue_id)[0]["events"][-1]["event"] == "delivered"
        assert relay.run("trace", "nothing", "--json").stdout.strip() == "[]"
        assert relay.run("trace", "nothing").returncode == 1
        assert relay.json("queue", "hold", waiting) == {"changed": 1}
        assert relay.json("queue", "list")[0]["reason"] == "operator"
        assert relay.run("queue", "release", "--sender", "*@example.com").stdout == "1 deliveries changed\n"
        assert relay.run("queue", "retry").returncode == 64
        assert relay.run("queue", "hold", "0" * 13).returncode == 1
        assert relay.run("queue", "delete", "--sender", "x@nowhere.example").returncode == 64
        assert relay.run("queue", "delete", "--sender", "x@nowhere.example", "--yes").returncode == 0
    assert relay.run("queue", "delete", waiting).stdout == "1 deliveries changed\n"
    assert relay.json("queue", "list") == []
    assert relay.run("send", "--from", "a@example.com", "--to", "b@example.org").returncode == 69


def test_a_second_daemon_and_a_taken_address(relay: Relay, tmp_path: Path) -> None:
    done = relay.run("run")
    assert done.returncode == 75
    assert str(tmp_path) in done.stderr
    host, port = relay.smtp
    other = tmp_path / "other"
    other.mkdir()
    second = Relay(other, "")
    second.config.write_text(second.config.read_text().replace('"127.0.0.1:0"}]', f'"{host}:{port}"}}]'))
    done = second.run("run")
    assert done.returncode == 1
    assert f"{host}:{port} is taken" in done.stderr


def test_sigterm_finishes_what_is_in_flight_and_loses_nothing(tmp_path: Path, ses: StandIn) -> None:
    more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}"
    ses.tell(script=[{"name": "slow", "seconds": 0.3}] * 60)
    with Relay(tmp_path, more) as relay:
        ids = {relay.submit("a@example.com", f"b{n}@example.org") for n in range(60)}
        assert relay.stop() == 0
        relay.start()
        for each in ids:
            assert relay.ended(each)[0]["state"] == "delivered"
        journal = ses.journal()
        assert len(journal) == len(ids), "each exactly once"


def test_local_mail_arrives_or_waits(tmp_path: Path, ses: StandIn) -> None:
    more = (
        f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}\n"
        "local: {aliases: {root: ops@example.com}}"
    )
    with Relay(tmp_path, more) as relay:
        content = b"From: root (Cron Daemon)\r\nTo: root\r\nSubject: Cron\r\n\r\noutput\r\n"
        with smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
            assert smtp.sendmail("root", ["root", "postmaster", "bob"], content) == {}
        (taken,) = wait_for("cron's mail", ses.journal)
        assert set(taken["destinations"]) == {"ops@example.com"}
        (held,) = relay.json("queue", "list", "--state", "held")
        assert (held["recipient"], held["reason"]) == ("bob@relay.example.net", "no_alias")


def test_cron_and_php_reach_ses_by_names_that_can_be_verified(tmp_path: Path) -> None:
    more_ses = {"keys": {KEY: SECRET}, "verified": ["loc.example.com", "example.com"]}
    with StandIn(more_ses) as ses:
        more = (
            f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}\n"
            "local: {domain: loc.example.com, aliases: {root: ops@example.com}}"
        )
        with Relay(tmp_path, more) as relay, smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
            smtp.sendmail("root", ["root"], b"From: root (Cron Daemon)\r\nTo: root\r\nSubject: Cron\r\n\r\nx\r\n")
            smtp.sendmail("www-data@relay.example.net", ["b@example.org"], b"From: site@example.com\r\nSubject: PHP\r\n\r\nx\r\n")
            taken = wait_for("both", lambda: ses.journal() if len(ses.journal()) == 2 else None)
            assert sorted(one["source"] for one in taken) == ["root@loc.example.com", "site@example.com"]
            assert any(
                b"\r\nFrom: Cron Daemon <root@loc.example.com>\r\nTo: root@loc.example.com\r\n" in one["raw"] for one in taken
            )


def test_a_foreign_header_from_holds_up_nobody_else(tmp_path: Path) -> None:
    with StandIn({"keys": {KEY: SECRET}, "verified": ["example.com"]}) as ses:
        more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}"
        with Relay(tmp_path, more) as relay:
            bad = relay.submit("a@example.com", "b@example.org", b"From: visitor@elsewhere.example\r\nSubject: form\r\n\r\nx\r\n")
            wait_for("it waits", lambda: relay.ask("show", id=bad)["deliveries"][0]["state"] == "queued")
            assert relay.ended(relay.submit("a@example.com", "b@example.org"))[0]["state"] == "delivered"
            assert relay.ask("summary")["paused"] == []


def test_too_little_disk_is_452_and_not_ready(tmp_path: Path) -> None:
    with Relay(tmp_path, "limits: {min_free_disk: 900000GB}") as relay, smtplib.SMTP(*relay.smtp, timeout=30) as smtp:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("a@example.com", ["b@example.org"], "Subject: x\r\n\r\nx\r\n")
        assert refused.value.smtp_code == 452
        with pytest.raises(urllib.error.HTTPError) as unready:
            relay.get("/readyz")
        assert unready.value.code == 503


def test_mail_that_no_route_takes_any_more_is_held_and_comes_back(tmp_path: Path, ses: StandIn) -> None:
    frame = f"transports:\n{ses_transport('ses-main', ses.url)}\n"
    with Relay(
        tmp_path, f"{frame}routes: [{{sender: example.com, transport: ses-main}}]\ndefault_route: {{reject: true}}"
    ) as relay:
        ses.tell(chances={"503": 1.0})
        queue_id = relay.submit("a@example.com", "b@example.org")
        relay.write(f"{frame}default_route: {{reject: true}}")
        assert relay.ask("reload")["ok"]
        wait_for("it is held", lambda: relay.ask("show", id=queue_id)["deliveries"][0]["reason"] == "no_route")
        ses.tell(chances={})
        relay.write(f"{frame}default_route: {{transport: ses-main}}")
        assert relay.ask("reload")["ok"]
        assert relay.run("queue", "release", queue_id).returncode == 0
        assert relay.ended(queue_id)[0]["state"] == "delivered"
