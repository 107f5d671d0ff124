"""`sesrelay account` against the stand-in: how the account stands, and the request for production access."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aws_world import AwsWorld, aws_world

ANSWERS = (
    "--mail-type", "transactional", "--website", "https://example.com", "--sends", "receipts", "--recipients", "customers",
    "--daily", "5000", "--contact", "ops@example.com",
)  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AwsWorld]:
    yield from aws_world(tmp_path)


def point(age: float, **counts: int) -> dict[str, object]:
    at = datetime.fromtimestamp(time.time() - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"Timestamp": at, "DeliveryAttempts": 0, "Bounces": 0, "Complaints": 0, "Rejects": 0, **counts}


def test_how_the_account_stands(world: AwsWorld) -> None:
    world.ses.account.rate, world.ses.account.quota = 14.0, 50_000.0
    world.ses.account.tell_sent(1_234.0)
    world.ses.account.statistics = [
        point(3600, DeliveryAttempts=100, Bounces=6),
        point(3 * 86400, DeliveryAttempts=900, Complaints=1, Rejects=2),
    ]
    told = world.run("account", "--json").json
    assert told["transport"] == "main"
    assert (told["region"], told["sandbox"], told["sending_enabled"], told["enforcement"]) == ("us-east-1", False, True, "healthy")
    assert (told["max_send_rate"], told["max_24h_send"], told["sent_last_24h"], told["remaining_24h"]) == (
        14.0,
        50_000.0,
        1_234.0,
        48_766.0,
    )
    assert (told["last_24h"]["bounce_rate"], told["last_24h"]["delivery_attempts"]) == (0.06, 100)
    assert (told["bounce_rate"], told["complaint_rate"], told["last_14d"]["rejects"]) == (0.006, 0.001, 2)
    assert told["suppression"] == ["bounce", "complaint"]
    text = world.run("account").out
    assert "1,234 of 50,000" in text
    assert "6.00% bounced" in text


def test_what_ses_does_not_tell_is_null(world: AwsWorld) -> None:
    world.ses.v2 = False
    world.ses.account.quota = -1.0
    told = world.run("account", "--json")
    assert told.code == 0, told.err
    assert (told.json["sandbox"], told.json["sending_enabled"], told.json["suppression"]) == (None, None, None)
    assert (told.json["max_24h_send"], told.json["remaining_24h"], told.json["bounce_rate"]) == (None, None, None)
    assert "no limit" in world.run("account").out


def test_the_sandbox_is_told_by_its_figures_where_v1_alone_answers(world: AwsWorld) -> None:
    world.ses.v2 = False
    world.ses.account.rate, world.ses.account.quota = 1.0, 200.0
    assert world.run("account", "--json").json["sandbox"] is True


def test_out_of_the_sandbox(world: AwsWorld) -> None:
    world.ses.account.sandbox = True
    assert "request-production" in world.run("account").out
    asked = world.run("account", "request-production", *ANSWERS)
    assert asked.code == 64  # nobody said --yes
    assert "receipts" in asked.out  # and yet it was shown
    assert not world.ses.identities.details
    sent = world.run("account", "request-production", *ANSWERS, "--yes", "--json")
    assert sent.code == 0, sent.err
    assert world.ses.identities.details == sent.json["request"]
    assert sent.json["request"]["MailType"] == "TRANSACTIONAL"
    text = sent.json["request"]["UseCaseDescription"]
    for said in ("receipts", "customers", "5,000 recipients a day", "example.com", "suppression list"):
        assert said in text
    again = world.run("account", "request-production", *ANSWERS, "--yes")
    assert again.code == 1
    assert "under review" in again.err
    assert world.run("account", "--json").json["review"] == {"status": "pending", "case": "1"}
    world.ses.identities.grant("DENIED")
    assert world.run("account", "request-production", *ANSWERS, "--yes").code == 0
    world.ses.identities.grant("GRANTED")
    done = world.run("account", "request-production", *ANSWERS, "--yes")
    assert done.code == 0
    assert "already" in done.err


def test_answers_that_aws_would_not_take(world: AwsWorld) -> None:
    world.ses.account.sandbox = True

    def ask(*changes: str) -> str:
        done = world.run("account", "request-production", *ANSWERS, "--yes", *changes)
        assert done.code == 64
        return done.err

    assert "web site" in ask("--website", "example.com")
    assert "unsubscribe" in ask("--mail-type", "marketing")
    assert "shorten it" in ask("--sends", "x" * 5000)
    assert "at most 4" in ask(*(word for n in range(4) for word in ("--contact", f"c{n}@example.com")))
    missing = world.run("account", "request-production", "--yes")
    assert missing.code == 64
    assert "--mail-type --website --sends --recipients --daily" in missing.err
    assert not world.ses.identities.details


def test_several_accounts_want_a_name(tmp_path: Path) -> None:
    for world in aws_world(tmp_path):
        text = world.config.read_text().replace("routes:", "  far: {type: ses, region: eu-west-1}\nroutes:")
        world.config.write_text(text)
        several = world.run("account")
        assert several.code == 64
        assert "--transport main|far" in several.err
        assert world.run("account", "--transport", "main", "--json").json["transport"] == "main"
        assert world.run("account", "--transport", "fra").code == 64
