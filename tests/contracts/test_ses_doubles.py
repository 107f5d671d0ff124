"""One suite over both doubles of SES, as far as moto goes; and what the stand-in alone holds to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from ses_world import message
from sesrelay.testing import Account, Fault, SesServer
from sesrelay.testing.ses_rules import DAY, Refusal, check_form
from sesrelay.testing.ses_server import KEY, SECRET

RAW = message("From: a@example.com", "To: b@example.org", "Subject: s")


def client(service: str, url: str) -> Any:
    config = Config(retries={"total_max_attempts": 1})
    return boto3.client(service, "us-east-1", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, config=config)


@dataclass
class Double:
    """An SES in which example.com is verified and nothing else is."""

    url: str

    def __post_init__(self) -> None:
        self.v1, self.v2 = client("ses", self.url), client("sesv2", self.url)

    def send(self, *to: str, source: str = "a@example.com", raw: bytes = RAW) -> str:
        return str(self.v1.send_raw_email(Source=source, Destinations=list(to), RawMessage={"Data": raw})["MessageId"])

    def send_by_v2(self, *to: str, source: str = "a@example.com", raw: bytes = RAW) -> str:
        call = {"FromEmailAddress": source, "Destination": {"ToAddresses": list(to)}, "Content": {"Raw": {"Data": raw}}}
        return str(self.v2.send_email(**call)["MessageId"])


@pytest.fixture(scope="module", params=["stand-in", "moto"])
def double(request: pytest.FixtureRequest) -> Iterator[Double]:
    if request.param == "stand-in":
        with SesServer() as server:
            server.control(verified=["example.com"])
            yield Double(server.url)
        return
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    made = Double(f"http://{host}:{port}")
    made.v1.verify_domain_identity(Domain="example.com")
    yield made
    moto.stop()


Send = Callable[..., str]


@pytest.fixture(params=["v1", "v2"])
def send(double: Double, request: pytest.FixtureRequest) -> Send:
    return double.send if request.param == "v1" else double.send_by_v2


def test_a_message_is_taken_and_counted(double: Double, send: Send) -> None:
    before = double.v1.get_send_quota()
    assert before["Max24HourSend"] > 0
    assert before["MaxSendRate"] > 0
    first, second = send("b@example.org"), send("b@example.org", "c@example.org")
    assert first
    assert first != second
    assert double.v1.get_send_quota()["SentLast24Hours"] > before["SentLast24Hours"]


def test_a_source_that_is_not_verified_is_refused(send: Send) -> None:
    with pytest.raises(ClientError) as caught:
        send("b@example.org", source="a@example.net")
    assert caught.value.response["Error"]["Code"] == "MessageRejected"
    text = caught.value.response["Error"]["Message"]
    assert "not verified" in text or "not have authority" in text  # SES has said both in its time


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_an_envelope_that_a_call_leaves_out_is_the_headers(double: Double, api: str) -> None:
    def send(sender: str) -> None:
        raw = message(f"From: A <{sender}>", "To: b@example.org, C <c@example.org>", "Subject: s")
        if api == "v1":
            double.v1.send_raw_email(RawMessage={"Data": raw})
        else:
            double.v2.send_email(Content={"Raw": {"Data": raw}})

    before = double.v1.get_send_quota()["SentLast24Hours"]
    send("a@example.com")
    assert double.v1.get_send_quota()["SentLast24Hours"] == before + 2
    with pytest.raises(ClientError, match=r"not verified|not have authority"):
        send("a@example.net")


def test_more_than_fifty_recipients_are_refused(double: Double) -> None:
    with pytest.raises(ClientError):
        double.send(*(f"r{n}@example.org" for n in range(51)))
    assert double.send(*(f"r{n}@example.org" for n in range(49)))  # moto counts those of the header too


def test_an_address_without_a_domain_is_refused(double: Double) -> None:
    with pytest.raises(ClientError) as caught:
        double.send("nobody")
    assert "omain" in caught.value.response["Error"]["Message"]


def test_identities_are_made_listed_and_removed_by_either_api(double: Double) -> None:
    from sesrelay.aws.verified import fetch_identities

    assert "example.com" in fetch_identities(double.v2, double.v1)
    double.v2.create_email_identity(EmailIdentity="new.example")
    assert "new.example" in double.v1.list_identities(IdentityType="Domain")["Identities"]
    told = double.v2.get_email_identity(EmailIdentity="new.example")
    assert told["IdentityType"] == "DOMAIN"
    double.v2.delete_email_identity(EmailIdentity="new.example")
    assert "new.example" not in double.v1.list_identities()["Identities"]
    double.v1.verify_email_identity(EmailAddress="one@else.example")
    assert "one@else.example" in double.v1.list_identities(IdentityType="EmailAddress")["Identities"]
    double.v1.delete_identity(Identity="one@else.example")


# --- the stand-in alone ---


@pytest.fixture
def server() -> Iterator[SesServer]:
    with SesServer() as made:
        yield made


def test_a_server_can_be_waited_for_told_and_read(server: SesServer) -> None:
    sends = Double(server.url)
    server.fail("503", Fault("error", code="MessageRejected", text="spam"))
    for _ in range(2):
        with pytest.raises(ClientError):
            sends.send("b@example.org")
    with pytest.raises(TimeoutError, match="took 0 messages"):
        server.wait_for(1, timeout=0.05)
    message_id = sends.send("b@example.org")
    (taken,) = server.wait_for(1)
    assert (taken.message_id, taken.message["Subject"]) == (message_id, "s")
    server.control(clear=True, rate=5)
    assert server.taken == []
    assert server.account.rate == 5
    with pytest.raises(ValueError, match="nothing that can be controlled"):
        server.control(sripts=[])


def test_a_pending_identity_is_listed_and_may_not_send(server: SesServer) -> None:
    from sesrelay.aws.verified import fetch_identities

    sends = Double(server.url)
    with pytest.raises(ClientError):
        sends.v1.list_identities()  # where every identity is verified there is no list
    sends.v1.verify_domain_identity(Domain="Pending.example")
    sends.v2.create_email_identity(EmailIdentity="a@one.example")
    server.control(identities={"good.example": "SUCCESS"})
    status = sends.v1.get_identity_verification_attributes(Identities=["pending.example", "good.example", "no.example"])
    found = {name: one["VerificationStatus"] for name, one in status["VerificationAttributes"].items()}
    assert found == {"pending.example": "Pending", "good.example": "Success"}
    assert fetch_identities(sends.v2, sends.v1) == {"good.example"}
    server.control(v2=False)
    assert fetch_identities(sends.v2, sends.v1) == {"good.example"}
    assert sends.send("b@example.org", source="x@elsewhere.example")  # everybody else still is verified
    with pytest.raises(ClientError, match="not verified"):
        sends.send("b@example.org", source="x@sub.pending.example", raw=message("From: x@sub.pending.example"))
    server.control(identities={"pending.example": "SUCCESS"})
    assert sends.send("b@example.org", source="x@sub.pending.example", raw=message("From: x@sub.pending.example"))


def test_a_port_that_is_taken_is_said(server: SesServer) -> None:
    with pytest.raises(OSError, match="in use"):
        SesServer(port=server.ses.port).start()


def test_the_quota_rolls() -> None:
    now = 1_000_000.0
    account = Account(quota=10, sent=4, wall=lambda: now)

    def send(recipients: int) -> None:
        account.admit("a@example.com", [f"r{n}@x.example" for n in range(recipients)], RAW, None)

    now += DAY / 2
    send(6)
    with pytest.raises(Refusal, match="Daily message quota exceeded"):
        send(1)
    now += DAY / 2
    assert account.sent_last_24h == 6
    send(4)
    with pytest.raises(Refusal):
        send(1)
    now += DAY
    assert account.sent_last_24h == 0


def test_the_suppression_list_is_kept_and_counts(server: SesServer) -> None:
    sends = Double(server.url)
    for number in range(3):
        sends.v2.put_suppressed_destination(EmailAddress=f"Gone{number}@example.org", Reason="BOUNCE" if number else "COMPLAINT")
    assert sends.send("gone1@example.org", "b@example.org")
    (taken,) = server.taken
    assert taken.suppressed == ("gone1@example.org",)
    assert sends.v1.get_send_quota()["SentLast24Hours"] == 2
    told = sends.v2.get_suppressed_destination(EmailAddress="gone0@example.org")["SuppressedDestination"]
    assert told["Reason"] == "COMPLAINT"
    page = sends.v2.list_suppressed_destinations(PageSize=1, Reasons=["BOUNCE"])
    assert [one["EmailAddress"] for one in page["SuppressedDestinationSummaries"]] == ["gone1@example.org"]
    rest = sends.v2.list_suppressed_destinations(PageSize=1, Reasons=["BOUNCE"], NextToken=page["NextToken"])
    assert [one["EmailAddress"] for one in rest["SuppressedDestinationSummaries"]] == ["gone2@example.org"]
    assert "NextToken" not in rest
    sends.v2.delete_suppressed_destination(EmailAddress="gone1@example.org")
    for method in (sends.v2.get_suppressed_destination, sends.v2.delete_suppressed_destination):
        with pytest.raises(sends.v2.exceptions.NotFoundException):
            method(EmailAddress="gone1@example.org")


@pytest.mark.parametrize(
    ("line", "says"), [("To: jürgen@x.example", "control or whitespace"), ("Cc: a@bücher.example", "Invalid domain")]
)
def test_header_addresses_are_ascii(line: str, says: str) -> None:
    raw = message("From: a@example.com", line)
    with pytest.raises(Refusal, match=says):
        check_form("a@example.com", ["b@example.org"], raw, raw)
