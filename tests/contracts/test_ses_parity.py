"""What SES says means the same by its API and by its SMTP endpoint: the outcome and whom it is for, over real connections."""

from __future__ import annotations

from typing import Any

import pytest

from batches import Bytes, batch
from fakes import FakeClock
from scripted_host import ScriptedHost
from ses_world import world
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.testing.ses import Fault, SesStandIn
from sesrelay.transport.ses.account import Accounts
from sesrelay.transport.smtp.paced import PacedSmtp
from sesrelay.transport.smtp.ses_answers import unverified_senders
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport

REJECTED, INVALID, DENIED, THROTTLED = "MessageRejected", "InvalidParameterValue", "AccessDenied", "Throttling"
KINDS = {
    REJECTED: "554 Message rejected",
    INVALID: "554 Transaction failed",
    DENIED: "554 Access denied",
    THROTTLED: "454 Throttling failure",
}
CHECKED = "Email address is not verified. The following identities failed the check in region US-EAST-1: "
MAY_NOT = "User `arn:aws:iam::1:user/u' is not authorized to perform `ses:SendRawEmail'"
IDENTITY = "arn:aws:ses:us-east-1:1:identity/example.com"
NEXTHOP, TRANSPORT, SENDER, MESSAGE, RECIPIENT = (
    Scope.NEXTHOP, Scope.TRANSPORT, Scope.SENDER_DOMAIN, Scope.MESSAGE, Scope.RECIPIENT,
)  # fmt: skip

WAITS = [
    # the account's trouble, and the sender's
    (THROTTLED, "Maximum sending rate exceeded.", NEXTHOP, PauseReason.THROTTLED),
    (REJECTED, "Maximum sending rate exceeded.", NEXTHOP, PauseReason.THROTTLED),
    (THROTTLED, "Daily message quota exceeded.", NEXTHOP, PauseReason.QUOTA),
    (REJECTED, "Sending quota exceeded for the last 24-hour period.", NEXTHOP, PauseReason.QUOTA),
    (REJECTED, "Your account is under review.", NEXTHOP, PauseReason.SUSPENDED),
    (REJECTED, "Sending from this account is locked.", NEXTHOP, PauseReason.SUSPENDED),
    (REJECTED, "Sending suspended for this account.", NEXTHOP, PauseReason.SUSPENDED),
    (REJECTED, "Suspended account.", NEXTHOP, PauseReason.SUSPENDED),
    (DENIED, "Your account has been shut down.", NEXTHOP, PauseReason.SUSPENDED),
    (REJECTED, "Email sending for the configuration set <main> is paused.", TRANSPORT, PauseReason.SUSPENDED),
    (REJECTED, "Sending is disabled for tenant t1.", TRANSPORT, PauseReason.SUSPENDED),
    (INVALID, "Configuration set <main> does not exist.", TRANSPORT, PauseReason.CONFIGURATION),
    (REJECTED, "Configuration set does not exist: main", TRANSPORT, PauseReason.CONFIGURATION),
    (REJECTED, "Configuration set `main` does not exist.", TRANSPORT, PauseReason.CONFIGURATION),
    (REJECTED, 'Configuration set "main" doesn\'t exist.', TRANSPORT, PauseReason.CONFIGURATION),
    (DENIED, "Tenant not associated with resources [arn:aws:ses:us-east-1:1:configuration-set/main].", TRANSPORT, PauseReason.CONFIGURATION),
    (DENIED, f"Tenant not associated with resources [{IDENTITY}].", SENDER, PauseReason.CONFIGURATION),
    (REJECTED, "The custom MAIL FROM domain is not verified.", SENDER, PauseReason.CONFIGURATION),
    (REJECTED, CHECKED + "a@example.com", SENDER, PauseReason.CONFIGURATION),
    (REJECTED, CHECKED + "a@example.com, b@example.org", SENDER, PauseReason.CONFIGURATION),
    (REJECTED, "Email address is not verified.", SENDER, PauseReason.CONFIGURATION),
    (INVALID, "Email address is not verified: a@example.com", SENDER, PauseReason.CONFIGURATION),
    (REJECTED, "User does not have authority to send from this address", SENDER, PauseReason.CONFIGURATION),
    (DENIED, MAY_NOT, NEXTHOP, PauseReason.CREDENTIALS),
    (DENIED, f"{MAY_NOT} on resource `{IDENTITY}'", SENDER, PauseReason.CREDENTIALS),
    (REJECTED, "Temporary service failure", NEXTHOP, PauseReason.UNAVAILABLE),
]  # fmt: skip
ENDS = [
    # the message's, and its recipients': what becomes of b@example.org, and of c@example.org beside it
    (REJECTED, "Bad content", (Failed, MESSAGE), (Failed, MESSAGE)),
    (INVALID, "Missing required header 'To'.", (Failed, MESSAGE), (Failed, MESSAGE)),
    (INVALID, "Message length is more than 10485760 bytes long: '10485761'.", (Failed, MESSAGE), (Failed, MESSAGE)),
    (INVALID, "Transaction failed: something new", (Failed, MESSAGE), (Failed, MESSAGE)),
    (INVALID, "Illegal address: b@example.org", (Failed, RECIPIENT), (Delivered, MESSAGE)),
    (INVALID, "Illegal address: B@EXAMPLE.ORG.", (Failed, RECIPIENT), (Delivered, MESSAGE)),
    (REJECTED, "Address blacklisted: b@example.org", (Failed, RECIPIENT), (Delivered, MESSAGE)),
    (REJECTED, CHECKED + "B@example.org", (Failed, RECIPIENT), (Delivered, MESSAGE)),
    (INVALID, "Address blacklisted: b@example.org", (Failed, RECIPIENT), (Delivered, MESSAGE)),
    (INVALID, "Invalid domain name: b@example.org", (Failed, RECIPIENT), (Delivered, MESSAGE)),
    # what SES repeats of a message says nothing of the account
    (INVALID, "Duplicate header 'Dogs' 24 hour sale'.", (Failed, MESSAGE), (Failed, MESSAGE)),
    (INVALID, "Invalid header: 24 hour sale, quota exceeded", (Failed, MESSAGE), (Failed, MESSAGE)),
    (REJECTED, "Address on suppression list: b@example.org; see the 24 hour report", (Failed, RECIPIENT), (Delivered, MESSAGE)),
]  # fmt: skip


async def by_api(code: str, text: str, times: int) -> list[Outcome]:
    fault = Fault("error", code=code, text=text, status=400)
    async with SesStandIn() as ses, world(ses.url, api="v1") as there:
        ses.fail(*[fault] * times)
        return await there.send("b@example.org", "c@example.org")


async def by_smtp(reply: str, times: int) -> list[Outcome]:
    async with ScriptedHost({".": [*[reply] * times, "250 Ok 0100018f5a5f2f2e-1c1c1c1c-0000"]}) as host:
        relay = SmtpTransport("out", SmtpOptions(["127.0.0.1"], "relay.example.com", host.port, ses=True), FakeClock())
        way = PacedSmtp(relay, Accounts(FakeClock()).ledger("us-east-1", "KEY"), "auto", "us-east-1")
        message = batch("b@example.org", "c@example.org")
        found = await way.deliver(message, Bytes())
        await way.close()
        return [found[delivery.id] for delivery in message.deliveries]


def kind(outcome: Outcome) -> tuple[Any, ...]:
    return type(outcome), getattr(outcome, "scope", MESSAGE)


@pytest.mark.parametrize(("code", "text", "scope", "reason"), WAITS)
async def test_an_accounts_trouble_waits_either_way(code: str, text: str, scope: Scope, reason: PauseReason) -> None:
    api, smtp = await by_api(code, text, 2), await by_smtp(f"{KINDS[code]}: {text}", 9)
    for outcome in (*api, *smtp):
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason, outcome.ambiguous) == (scope, reason, False)
        assert outcome.remedy
        assert "{" not in outcome.remedy
    one, other = api[0], smtp[0]
    assert isinstance(one, Deferred)
    assert isinstance(other, Deferred)
    assert (one.retry_after, one.tolerance) == (other.retry_after, other.tolerance)


@pytest.mark.parametrize(("code", "text", "named", "beside"), ENDS)
async def test_whom_a_refusal_ends_is_the_same_either_way(
    code: str, text: str, named: tuple[Any, ...], beside: tuple[Any, ...]
) -> None:
    once = beside[0] is Delivered
    for outcomes in (await by_api(code, text, 1), await by_smtp(f"{KINDS[code]}: {text}", 1 if once else 9)):
        assert [kind(outcome) for outcome in outcomes] == [named, beside]


# The differences. HTTP's 400 says nothing of permanence, so an unknown text waits; a reply code of SMTP does.


async def test_what_no_row_knows_goes_by_the_code_of_smtp() -> None:
    assert [kind(one) for one in await by_api(INVALID, "never heard of", 1)] == [(Deferred, MESSAGE)] * 2
    assert [kind(one) for one in await by_smtp("554 Transaction failed: never heard of", 9)] == [(Failed, MESSAGE)] * 2
    assert [kind(one) for one in await by_smtp("451 Transaction failed: never heard of", 9)] == [(Deferred, MESSAGE)] * 2


async def test_what_ends_a_delivery_by_the_api_waits_where_smtp_says_4xx() -> None:
    assert [kind(one) for one in await by_smtp("451 Message rejected: Bad content", 9)] == [(Deferred, MESSAGE)] * 2


@pytest.mark.parametrize(
    ("text", "scope", "reason"),
    [
        ("Daily sending quota exceeded.", NEXTHOP, PauseReason.QUOTA),
        ("Sending is disabled for this account.", NEXTHOP, PauseReason.SUSPENDED),
    ],
)
async def test_what_fails_by_smtp_may_be_the_account(text: str, scope: Scope, reason: PauseReason) -> None:
    for outcome in await by_smtp(f"554 Transaction failed: {text}", 9):
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (scope, reason)


@pytest.mark.parametrize(
    "text",
    [
        "Local address contains control or whitespace in string ``The Dogs' 24 hour shop''",
        "Missing final '@domain' in string ``The Smiths' account is locked''",
        "Illegal address: sending rate exceeded",
        "Invalid tag value",
        "Unexpected tag in MIME part",
        "Unknown header tag",
    ],
)
async def test_what_fails_by_smtp_and_speaks_of_the_message_is_the_messages(text: str) -> None:
    for outcome in await by_smtp(f"554 Transaction failed: {text}", 9):
        assert isinstance(outcome, Failed), outcome


# Without the region that SES's list names, what follows is a sentence: whom it is about is not known, and the sender's mail waits.


@pytest.mark.parametrize(
    "text",
    [
        "Email address a@example.com is not verified",
        "Sender address not verified: 'a@example.com'",
        "Email address is not verified: b@example.org",
        "Email address is not verified. See https://aws.example: help@amazon.com",
        "Email address a@example.com is not verified; recipients: b@example.org",
    ],
)
async def test_a_sentence_of_its_own_about_verifying_names_nobody_by_smtp(text: str) -> None:
    for outcome in await by_smtp(f"554 Message rejected: {text}", 9):
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (SENDER, PauseReason.CONFIGURATION)
        assert "`sesrelay domain add example.com " in outcome.remedy


async def test_whom_the_sandbox_refuses_waits_where_smtp_says_4xx() -> None:
    outcomes = await by_smtp(f"454 Message rejected: {CHECKED}b@example.org", 9)
    assert [kind(one) for one in outcomes] == [(Deferred, MESSAGE)] * 2
    assert unverified_senders(outcomes) == frozenset(), "no sender is to be rewritten for it"


# By SMTP the header's Sender is not at hand when an answer is read, so a stranger among those named may be one of the sender's.


async def test_a_stranger_named_beside_a_recipient_makes_the_senders_mail_wait_by_smtp() -> None:
    text = CHECKED + "b@example.org, x@example.net"
    assert [kind(one) for one in await by_api(REJECTED, text, 1)] == [(Failed, RECIPIENT), (Delivered, MESSAGE)]
    assert [kind(one) for one in await by_smtp(f"554 Message rejected: {text}", 9)] == [(Deferred, MESSAGE)] * 2
