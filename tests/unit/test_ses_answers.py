"""Reading answers: an acceptance is whole or it is none, and no row of the table is dead."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail.outcome import Scope
from sesrelay.policy import ses_meaning as meaning
from sesrelay.policy.ses_meaning import TABLE, Action, Refused
from sesrelay.transport.ses.answers import Accepted, Unreadable, read

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
    assert read(400, {"x-amzn-errortype": "com.amazonaws.ses#BadRequestException:http://x/"}, b'{"message":"m"}') == Refused(
        400, "BadRequest", "m"
    )
    assert read(429, {}, json.dumps({"__type": "TooManyRequestsException", "Message": "m"}).encode()).code == "TooManyRequests"
    assert read(400, {}, ERROR.replace(b"Code>", b"Kode>")) == Refused(400, "", "a <b> c")
    assert read(400, {}, ERROR.replace(b"Message>", b"Text>")) == Refused(400, "MessageRejected", "")


def test_an_error_that_the_header_alone_names_is_read() -> None:
    named = {"x-amzn-errortype": "AccountSuspendedException:http://x/"}
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


@pytest.mark.parametrize(("code", "text"), [("Throttling", "Rate exceeded"), ("SlowDown", "")])
@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_throttle_is_one_under_every_status(status: int, code: str, text: str) -> None:
    assert meaning.meaning(Refused(status, code, text)) is meaning.THROTTLED


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


IDENTITY = "arn:aws:ses:us-east-1:123456789012:identity/{}"
DENIED = "User `arn:aws:iam::123456789012:user/u' is not authorized to perform `{}' on resource `" + IDENTITY + "'"
REAL = [
    # what people report that SES said
    ("Throttling", "Maximum sending rate exceeded.", meaning.THROTTLED),
    ("Throttling", "Daily message quota exceeded.", meaning.QUOTA),
    ("TooManyRequests", "Maximum sending rate exceeded.", meaning.THROTTLED),
    ("TooManyRequests", "Daily message quota exceeded", meaning.QUOTA),
    ("Throttling", "Rate exceeded", meaning.THROTTLED),
    ("LimitExceeded", "Sending quota exceeded.", meaning.QUOTA),
    ("MessageRejected", "Sending paused for this account. For more information, please check the inbox of the email address "
                        "associated with your AWS account.", meaning.SUSPENDED),
    ("MessageRejected", "Sending suspended for this account.For more information, please check the inbox of the email address "
                        "associated with your AWS account.", meaning.SUSPENDED),
    ("SendingPaused", "Sending paused for this account.", meaning.SUSPENDED),
    ("AccountSendingPaused", "Email sending for the account is paused.", meaning.SUSPENDED),
    ("MessageRejected", "Email sending for the account is paused.", meaning.SUSPENDED),
    ("ConfigurationSetSendingPaused", "Email sending for the configuration set <main> is paused.", meaning.SET_PAUSED),
    ("MessageRejected", "Email sending for the configuration set <main> is paused.", meaning.SET_PAUSED),
    ("MessageRejected", "Sending paused for configuration set main.", meaning.SET_PAUSED),
    ("ConfigurationSetDoesNotExist", "Configuration set <main> does not exist.", meaning.MISCONFIGURED),
    ("NotFound", "Configuration set <main> does not exist.", meaning.MISCONFIGURED),
    ("InvalidParameterValue", "Invalid tag value <event:id:abc1234>: only alphanumeric ASCII characters, '_', and '-' are allowed.",
                              meaning.MISCONFIGURED),
    ("AccessDenied", "Tenant not associated with resources [arn:aws:ses:us-east-1:123456789012:configuration-set/main].",
                     meaning.MISCONFIGURED),
    ("AccessDenied", f"Tenant not associated with resources [{IDENTITY.format('example.com')}].", meaning.NOT_OF_TENANT),
    ("AccessDenied", f"Tenant not associated with resources [{IDENTITY.format('a@example.com')}].", meaning.NOT_OF_TENANT),
    ("AccessDenied", f"Tenant not associated with resources [{IDENTITY.format('example.com')}, "
                     "arn:aws:ses:us-east-1:123456789012:configuration-set/main].", meaning.MISCONFIGURED),
    ("MessageRejected", "Email address is not verified. The following identities failed the check in region US-EAST-1: a@example.com",
                        meaning.UNVERIFIED),
    ("MessageRejected", "Email address is not verified. The following identities failed the check in region EU-WEST-1: a@example.com, "
                        "Me <b@example.org>...", meaning.UNVERIFIED),
    ("MailFromDomainNotVerified", "The custom MAIL FROM domain is not verified.", meaning.MAIL_FROM),
    ("MessageRejected", "Address blacklisted.", meaning.UNWANTED),
    ("MessageRejected", "Address is on the suppression list", meaning.UNWANTED),
    ("MessageRejected", "Bad content", meaning.REJECTED),
    ("InvalidParameterValue", "Duplicate header 'DKIM-Signature'.", meaning.DUPLICATE),
    ("InvalidParameterValue", "Message length is more than 10485760 bytes long: '12078147'.", meaning.TOO_LARGE),
    # the header and what is within
    ("InvalidParameterValue", "Missing required header 'To'.", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Empty header names are illegal.", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Header section too long.", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Illegal header '<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\" \"http'.",
                              meaning.BAD_HEADER),
    ("InvalidParameterValue", "Header name contains a domain.", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Nonstandard or malformed headers", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Unable to build the message", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Illegal content.", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Illegal content type 'text/csv'.", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Invalid message subject", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Expected MIME type, got null", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Expected '=', got 'null'", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Expected '/', got ;", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Expected disposition, got =", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Expected ';', got \"domain\"", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Transaction failed: Expected '/', got ;", meaning.BAD_HEADER),
    ("InvalidParameterValue", "Transaction failed: something new", meaning.BAD_HEADER),
    # an address
    ("InvalidParameterValue", "Missing final '@domain'", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Transaction failed: Missing final '@domain'", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Missing domain", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Missing local name", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Extra route-addr", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Illegal address", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Invalid email address", meaning.BAD_ADDRESS),
    ("BadRequest", "Invalid email address .", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Local address contains control or whitespace", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Local address contains illegal character", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Domain contains control or whitespace", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Domain contains illegal character", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Domain ends with dot", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Domain contains dot-dot", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "User name is missing: 'AKIAIOSFODNN7EXAMPLE'.", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Address contains illegal characters in user name: '<\"re:ceiver\"@example.org>'.", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Invalid domain name: 'header..example'.", meaning.BAD_ADDRESS),
    ("InvalidParameterValue", "Recipient count exceeds 50.", meaning.BAD_ADDRESS),
    # keys, clock, service
    ("AccessDenied", DENIED.format("ses:SendRawEmail", "a@example.com"), meaning.DENIED_IDENTITY),
    ("AccessDenied", "User: arn:aws:sts::123456789012:assumed-role/task/s is not authorized to perform: ses:SendRawEmail on resource: "
                     f"{IDENTITY.format('example.com')} because no identity-based policy allows the ses:SendRawEmail action",
                     meaning.DENIED_IDENTITY),
    ("AccessDenied", "User: arn:aws:iam::123456789012:user/u is not authorized to perform: ses:SendRawEmail", meaning.BAD_CREDENTIALS),
    ("InvalidClientTokenId", "The security token included in the request is invalid.", meaning.BAD_CREDENTIALS),
    ("OptInRequired", "The AWS Access Key Id needs a subscription for the service", meaning.BAD_CREDENTIALS),
    ("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                              "Access Key and signing method.", meaning.BAD_CREDENTIALS),
    ("SignatureDoesNotMatch", "Signature expired: 20261128T100000Z is now earlier than 20261128T101500Z (20261128T102000Z - 5 min.)",
                              meaning.CLOCK),
    ("InvalidSignature", "Signature not yet current: 20261128T102000Z is still later than 20261128T101500Z", meaning.CLOCK),
    ("InternalFailure", "The request processing has failed because of an unknown error, exception or failure.", meaning.UNAVAILABLE),
    ("ServiceUnavailable", "The request has failed due to a temporary failure of the server.", meaning.UNAVAILABLE),
    ("InvalidParameterValue", "never heard of", meaning.UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("code", "text", "means"), REAL)
def test_what_people_report_is_understood(code: str, text: str, means: meaning.Meaning) -> None:
    assert meaning.meaning(Refused(400, code, text)) is means
    if code == "InvalidParameterValue":
        assert meaning.meaning(Refused(400, "BadRequest", text), "v2") is means


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
