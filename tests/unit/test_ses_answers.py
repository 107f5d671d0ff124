"""Reading answers: an acceptance is whole or it is none, and no row of the table is dead."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail.outcome import Scope
from sesrelay.transport.ses import meaning
from sesrelay.transport.ses.answers import Accepted, Refused, Unreadable, read
from sesrelay.transport.ses.meaning import TABLE, Action

OK = (
    b'<?xml version="1.0"?>\n<SendRawEmailResponse xmlns="http://ses.amazonaws.com/doc/2010-12-01/"><SendRawEmailResult>'
    b"<MessageId>0100-abc-000000</MessageId></SendRawEmailResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>"
    b"</SendRawEmailResponse>"
)
ERROR = (
    b"<ErrorResponse><Error><Type>Sender</Type><Code>MessageRejected</Code><Message>a &lt;b&gt;\n c</Message></Error>"
    b"<RequestId>r</RequestId></ErrorResponse>"
)


def test_an_acceptance_wherever_it_is_cut_is_none() -> None:
    assert read(200, {}, OK) == Accepted("0100-abc-000000")
    assert read(200, {}, OK + b"\n") == Accepted("0100-abc-000000")
    for end in range(len(OK)):
        assert isinstance(read(200, {}, OK[:end]), Unreadable)


@pytest.mark.parametrize("status", [201, 204, 302, 400, 404])
def test_an_acceptance_has_status_200(status: int) -> None:
    assert isinstance(read(status, {}, OK), Unreadable)


def test_errors_are_read_in_both_protocols() -> None:
    assert read(400, {}, ERROR) == Refused(400, "MessageRejected", "a <b> c")
    assert read(400, {"x-amzn-ErrorType": "com.amazonaws.ses#BadRequestException:http://x/"}, b'{"message":"m"}') == Refused(
        400, "BadRequest", "m"
    )
    assert read(429, {}, json.dumps({"__type": "TooManyRequestsException", "Message": "m"}).encode()).code == "TooManyRequests"


def test_an_error_that_the_header_alone_names_is_read() -> None:
    named = {"x-amzn-ErrorType": "AccountSuspendedException:http://x/"}
    assert read(400, named, b"", "v2") == Refused(400, "AccountSuspended", "")
    assert isinstance(read(400, {}, b"", "v2"), Unreadable)
    assert isinstance(read(400, named, b"<html>", "v2"), Unreadable)
    assert isinstance(read(200, named, b"", "v2"), Unreadable)


def test_a_rejection_without_a_reason_ends_no_delivery() -> None:
    assert meaning.meaning(Refused(400, "MessageRejected", "")) is meaning.UNKNOWN
    assert meaning.meaning(Refused(400, "MessageRejected", "Bad content")) is meaning.REJECTED


@pytest.mark.parametrize(("status", "body"), [(503, b"<html>"), (408, b""), (429, b"slow down"), (500, ERROR[:50])])
def test_a_status_that_speaks_for_itself_needs_no_body(status: int, body: bytes) -> None:
    assert read(status, {}, body) == Refused(status, "", "")


@given(st.integers(100, 599), st.binary(max_size=200))
def test_nothing_unknown_is_an_acceptance_or_ends_a_delivery(status: int, body: bytes) -> None:
    answer = read(status, {}, body)
    assert not isinstance(answer, Accepted)
    if isinstance(answer, Refused):
        assert meaning.meaning(answer).action is Action.DEFER


@given(st.text(max_size=30), st.text(max_size=60))
def test_an_unknown_code_is_temporary(code: str, text: str) -> None:
    known = {name for row in TABLE for name in row.codes}
    if code.lower() not in known and not any(name[-1] == "*" and code.lower().startswith(name[:-1]) for name in known):
        assert meaning.meaning(Refused(400, code, text)) is meaning.UNKNOWN


def test_a_fault_of_the_service_never_ends_a_delivery() -> None:
    for row in TABLE:
        for code in row.codes:
            means = meaning.meaning(Refused(500, code, "address header quota"))
            assert means.action in (Action.DEFER, Action.RELOAD, Action.UNVERIFIED, Action.HOLD)


@pytest.mark.parametrize(
    "text",
    [
        "Missing final '@domain'", "Domain contains dot-dot", "Domain ends with dot", "Local address contains control or whitespace",
        "Illegal address", "Invalid domain name: 'x'.", "User name is missing: '@x'.", "Local address starts with dot",
        "Illegal semicolon, not in group", "Missing '>'", "Recipient count exceeds 50.",
    ],
)  # fmt: skip
def test_texts_about_addresses_split(text: str) -> None:
    assert meaning.meaning(Refused(400, "InvalidParameterValue", text)).action is Action.SPLIT


NOT_VERIFIED = "Email address is not verified. The following identities failed the check in region US-EAST-1: "
ODD = ("tenant@x.example", "account@suspended.example", "sending-paused@x.example", "24-hour@x.example", '"tag: tenant"@x.example')


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize("address", ODD)
def test_an_address_that_is_not_verified_chooses_no_row(address: str, api: str) -> None:
    assert meaning.meaning(Refused(400, "MessageRejected", NOT_VERIFIED + address), api) is meaning.UNVERIFIED
    assert meaning.meaning(Refused(400, "BadRequest", NOT_VERIFIED + address), api) is meaning.UNVERIFIED


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("Illegal address 'tag@foo..bar'", meaning.BAD_ADDRESS),
        ("Illegal address 'header@foo..bar'", meaning.BAD_ADDRESS),
        ("Illegal address: tenant@", meaning.BAD_ADDRESS),
        ("Invalid domain name: 'content-x.example'.", meaning.BAD_ADDRESS),
        ("Invalid domain name: configuration-set.example", meaning.BAD_ADDRESS),
        ("Invalid header name 'X-Tag'.", meaning.BAD_HEADER),
        ("Value 'tenant@x' at 'tags.1.member.value' failed to satisfy constraint", meaning.MISCONFIGURED),
    ],
)  # fmt: skip
def test_what_is_repeated_chooses_no_row(text: str, means: meaning.Meaning) -> None:
    assert meaning.meaning(Refused(400, "InvalidParameterValue", text)) is means


@pytest.mark.parametrize(("user", "identity"), [("tenant-mailer", "b.example"), ("relay", "tenant.example")])
def test_names_in_a_denial_choose_no_row(user: str, identity: str) -> None:
    text = f"User `arn:aws:iam::1:user/{user}' is not authorized to perform `ses:SendRawEmail' on resource `arn:aws:ses:x:1:identity/{identity}'"
    assert meaning.meaning(Refused(403, "AccessDenied", text)) is meaning.DENIED_IDENTITY


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("MessageRejected", "Sending is disabled for tenant t1."),
        ("SendingPaused", "Sending is paused for tenant t1"),
        ("AccessDenied", "Tenant t1 sending is paused"),
        ("BadRequest", "Tenant t1 is suspended"),
    ],
)
def test_a_paused_tenant_stops_the_transport_that_names_it(code: str, text: str) -> None:
    assert meaning.meaning(Refused(400, code, text), "v2") is meaning.TENANT_PAUSED
    assert meaning.TENANT_PAUSED.scope is Scope.TRANSPORT


def test_what_v2_alone_may_not_do_holds_the_message() -> None:
    refused = Refused(403, "AccessDenied", "User: x is not authorized to perform: ses:SendEmail on resource: arn:y:identity/z")
    assert meaning.meaning(refused, "v2").action is Action.HOLD
    assert meaning.meaning(refused, "v1").scope is Scope.SENDER_DOMAIN


@pytest.mark.parametrize("code", ["InvalidParameterValue", "BadRequest", "MessageRejected"])
@pytest.mark.parametrize(
    "text", ["Duplicate header 'Message-ID'.", "Duplicate header: X-A", "The message contains more than one Reply-To header"]
)
def test_a_header_that_stands_twice_is_repaired(code: str, text: str) -> None:
    assert meaning.meaning(Refused(400, code, text)) is meaning.DUPLICATE


def test_every_remedy_can_be_filled_in() -> None:
    facts = dict.fromkeys(("region", "endpoint", "credential_id", "configuration_set", "sender_domain"), "x")
    for row in TABLE:
        filled = meaning.remedy(row.meaning, facts)
        assert filled
        assert "{" not in filled
        assert "?" not in filled
