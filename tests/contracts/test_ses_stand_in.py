"""The stand-in behaves as SES does to boto3 itself, and can be driven from another process; moto takes our calls too."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from fakes import FakeClock
from ses_world import KEY, SECRET, addresses, message, world
from sesrelay.aws.session import Sessions, Source
from sesrelay.mail.outcome import Deferred, Delivered
from sesrelay.testing.ses import SesStandIn
from sesrelay.testing.ses_rules import Account, Bucket, Refusal, check_form

RAW = message("From: a@example.com", "Subject: s")


@pytest.fixture(scope="module")
def process() -> Iterator[str]:
    """Yield the URL of a stand-in in a process of its own."""
    wishes = json.dumps({"keys": {KEY: SECRET}})
    with subprocess.Popen(
        [sys.executable, "-m", "sesrelay.testing.ses", "--rate", "100", "--control", wishes], stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        word, url = started.stdout.readline().split()
        assert word == "ses"
        yield url
        started.terminate()


def client(url: str, secret: str = SECRET, region: str = "us-east-1") -> Any:
    config = Config(retries={"total_max_attempts": 1})
    return boto3.client("ses", region, endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=secret, config=config)


def ask(url: str, wishes: dict[str, Any] | None = None) -> Any:
    data = None if wishes is None else json.dumps(wishes).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data)) as answer:
        return json.load(answer)


def send(ses: Any, *to: str, raw: bytes = RAW, source: str = "a@example.com", **more: Any) -> str:
    return str(ses.send_raw_email(Source=source, Destinations=list(to), RawMessage={"Data": raw}, **more)["MessageId"])


def test_boto3_sends_and_another_process_reads_the_journal(process: str) -> None:
    ask(f"{process}/control", {"clear": True, "configuration_sets": ["c"]})
    sent = send(client(process), "b@example.org", Tags=[{"Name": "n", "Value": "v"}], ConfigurationSetName="c")
    journal = ask(f"{process}/journal")
    assert journal["total"] == 1
    (taken,) = journal["taken"]
    assert base64.b64decode(taken.pop("raw")) == RAW
    assert taken.pop("at") > 1_700_000_000
    assert taken == {
        "message_id": sent, "source": "a@example.com", "destinations": ["b@example.org"], "tags": {"n": "v"},
        "configuration_set": "c", "fault": None, "suppressed": [], "api": "v1", "named": {},
    }  # fmt: skip
    assert client(process).get_send_quota()["MaxSendRate"] == 100.0


REFUSED = [
    ({}, {"secret": "wrong"}, {}, "SignatureDoesNotMatch", "calculated"),
    ({}, {"region": "eu-west-1"}, {}, "SignatureDoesNotMatch", "scoped to a valid region, not 'eu-west-1'."),
    ({}, {}, {"source": "a"}, "InvalidParameterValue", "Missing final"),
    ({}, {}, {"raw": b"Subject: s\r\n\r\n"}, "InvalidParameterValue", "Missing required header 'From'"),
    ({}, {}, {"raw": b"Subject: s\r\nSUBJECT: t\r\n" + RAW}, "InvalidParameterValue", "Duplicate header 'SUBJECT'."),
    ({}, {}, {"raw": b"To: root\r\n" + RAW}, "InvalidParameterValue", "Missing final '@domain'"),
    ({}, {}, {"raw": RAW + b"x" * 999 + b"\r\n"}, "InvalidParameterValue", "line is longer"),
    ({}, {}, {"ConfigurationSetName": "none"}, "ConfigurationSetDoesNotExist", "none"),
    (
        {"configuration_sets": ["p"], "paused_sets": ["p"]},
        {},
        {"ConfigurationSetName": "p"},
        "ConfigurationSetSendingPausedException",
        "p",
    ),
    ({"suspended": True}, {}, {}, "MessageRejected", "Sending suspended"),
    ({"verified": ["notexample.com"]}, {}, {}, "MessageRejected", "US-EAST-1: a@example.com"),
    ({"sandbox": True, "verified": ["example.com"]}, {}, {}, "MessageRejected", "US-EAST-1: b@example.org"),
    ({"quota": 0}, {}, {}, "Throttling", "Daily message quota exceeded."),
    ({"script": ["throttle"]}, {}, {}, "Throttling", "Maximum sending rate exceeded."),
    ({"script": [{"name": "error", "code": "Odd", "text": "<&>"}]}, {}, {}, "Odd", "<&>"),
]
USUAL = {
    "clear": True, "suspended": False, "sandbox": False, "verified": None, "quota": 1e6, "rate": 1e6, "sent": 0, "script": [],
    "chances": {}, "configuration_sets": [], "paused_sets": [],
}  # fmt: skip


def test_boto3_sends_by_v2(process: str) -> None:
    ask(f"{process}/control", {"clear": True, "configuration_sets": ["c"]})
    v2 = boto3.client("sesv2", "us-east-1", endpoint_url=process, aws_access_key_id=KEY, aws_secret_access_key=SECRET)
    call: dict[str, Any] = {
        "FromEmailAddress": "a@example.com", "Destination": {"ToAddresses": ["b@example.org"]}, "Content": {"Raw": {"Data": RAW}},
        "EmailTags": [{"Name": "n", "Value": "v"}], "TenantName": "t",
    }  # fmt: skip
    sent = v2.send_email(**call, ConfigurationSetName="c")["MessageId"]
    (taken,) = ask(f"{process}/journal")["taken"]
    assert base64.b64decode(taken.pop("raw")) == RAW
    assert taken.pop("at") > 1_700_000_000
    assert taken == {
        "message_id": sent, "source": "a@example.com", "destinations": ["b@example.org"], "tags": {"n": "v"},
        "configuration_set": "c", "fault": None, "suppressed": [], "api": "v2", "named": {"TenantName": "t"},
    }  # fmt: skip
    with pytest.raises(v2.exceptions.NotFoundException):
        v2.send_email(**call, ConfigurationSetName="unknown")
    ask(f"{process}/control", {"script": ["throttle"] * 3})  # boto3 tries three times
    with pytest.raises(v2.exceptions.TooManyRequestsException):
        v2.send_email(**call)


@pytest.mark.parametrize(("wishes", "who", "what", "code", "text"), REFUSED)
def test_boto3_is_refused(
    process: str, wishes: dict[str, Any], who: dict[str, Any], what: dict[str, Any], code: str, text: str
) -> None:
    ask(f"{process}/control", USUAL | wishes)
    with pytest.raises(ClientError) as caught:
        send(client(process, **who), "b@example.org", **what)
    assert caught.value.response["Error"]["Code"] == code
    assert text in caught.value.response["Error"]["Message"]
    assert ask(f"{process}/journal")["total"] == 0
    ask(f"{process}/control", USUAL)
    assert send(client(process), "b@example.org")


def test_a_wish_that_is_none_is_refused(process: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask(f"{process}/control", {"sripts": []})


def test_a_verified_domain_covers_its_sub_domains_and_an_address_its_labels_but_no_look_alike() -> None:
    account = Account(verified=frozenset({"example.com", "one@example.net"}))
    for address in ("a@example.com", "a@b.c.EXAMPLE.com", "One@example.net", "one+1+2@example.net"):
        assert account._is_verified(address), address
    for address in ("a@notexample.com", "a@example.com.evil.org", "two@example.net", "a@com", "two+one@example.net"):
        assert not account._is_verified(address), address


def test_a_message_over_ten_megabytes_is_refused() -> None:
    with pytest.raises(Refusal, match="Message length is more than 10485760"):
        check_form("a@example.com", ["b@example.org"], RAW + b"x\r\n" * 3_500_000, RAW)


def test_the_rate_counts_recipients_and_goes_into_debt() -> None:
    at = 0.0
    bucket = Bucket(10.0, now=lambda: at)
    assert bucket.take(30)
    assert not bucket.take(1)
    at = 2.0
    assert not bucket.take(1)
    at = 2.2
    assert bucket.take(1)


async def test_chances_draw_faults_and_the_journal_keeps_what_was_taken() -> None:
    async with SesStandIn(chances={"reset_after": 0.2, "throttle": 0.2}, seed=7) as ses, world(ses.url) as w:
        outcomes = [(await w.send("b@example.org"))[0] for _ in range(60)]
    delivered = [outcome for outcome in outcomes if isinstance(outcome, Delivered)]
    doubtful = [outcome for outcome in outcomes if isinstance(outcome, Deferred) and outcome.ambiguous]
    assert [taken.fault for taken in ses.journal].count(None) == len(delivered)
    assert len(ses.journal) == len(delivered) + len(doubtful)
    assert delivered
    assert doubtful
    assert len(delivered) + len(doubtful) < 60


async def test_moto_takes_our_calls_and_tells_its_quota() -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    sessions = Sessions(FakeClock())
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        await asyncio.to_thread(lambda: client(url).verify_domain_identity(Domain="example.com"))
        session: Any = sessions.get(Source("us-east-1", KEY, SECRET, endpoint_url=url))
        async with world(url, session=session) as w:
            w.transport.start()
            first, second = await w.send("b@example.org", "c@example.org")
            (stranger,) = await w.send("b@example.org", sender="a@example.net")
            (bad, good) = await w.send("a..b@example.org@", *addresses(1))
            await w.transport._account.refresh(0.0)
        sent = await asyncio.to_thread(lambda: client(url).get_send_quota()["SentLast24Hours"])
    finally:
        server.stop()
    assert isinstance(first, Delivered)
    assert first == second
    assert isinstance(stranger, Deferred)
    assert stranger.scope == "sender_domain"
    assert isinstance(good, Delivered)
    assert not isinstance(bad, Delivered)
    assert w.observer.quotas[-1] == ("ses-main", 1.0, 200.0, float(sent))
