"""SesTransport keeps the promises of `seams.Transport`, against the strict stand-in and moto, over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from batches import HELLO, Bytes, Unreadable, batch, eventually
from engine_rig import Rig
from fakes import FakeClock
from ses_world import KEY, SECRET, Figures, Keys, PaperSession, Standing, addresses, message, world
from sesrelay.mail.delivery import Priority, State
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, PauseReason, Scope
from sesrelay.policy.stopping import CUT
from sesrelay.testing.ses import Fault, SesStandIn
from sesrelay.testing.ses_rules import Account
from sesrelay.transport.ses.pool import Pool
from sesrelay.transport.ses.seam import SesOptions
from sesrelay.transport.ses.transport import SesTransport


def error(code: str, text: str = "", status: int = 400) -> Fault:
    return Fault("error", code=code, text=text, status=status)


NOT_VERIFIED = "Email address is not verified. The following identities failed the check in region US-EAST-1: "
DENIED = "User `arn:aws:iam::1:user/u' is not authorized to perform `{}' on resource `arn:aws:ses:us-east-1:1:identity/example.com'"

DEFERRED = [
    # the fault, the scope, the reason, whether it is ambiguous, a word of the remedy
    (Fault("throttle"), Scope.NEXTHOP, PauseReason.THROTTLED, False, "rate"),
    (error("TooManyRequestsException", "Too many requests", 429), Scope.NEXTHOP, PauseReason.THROTTLED, False, "rate"),
    (error("ThrottlingException", "Rate exceeded"), Scope.NEXTHOP, PauseReason.THROTTLED, False, "rate"),
    (Fault("quota"), Scope.NEXTHOP, PauseReason.QUOTA, False, "24 hour quota in us-east-1"),
    (error("TooManyRequestsException", "Daily message quota exceeded.", 429), Scope.NEXTHOP, PauseReason.QUOTA, False, "quota"),
    (error("LimitExceededException", "whatever"), Scope.NEXTHOP, PauseReason.QUOTA, False, "quota"),
    (error("AccountSendingPausedException", "x"), Scope.NEXTHOP, PauseReason.SUSPENDED, False, "put-account-sending-attributes"),
    (error("SendingPausedException", "Sending is paused"), Scope.NEXTHOP, PauseReason.SUSPENDED, False, "console"),
    (error("AccountSuspendedException", "x"), Scope.NEXTHOP, PauseReason.SUSPENDED, False, "console"),
    (error("MessageRejected", "Sending suspended for this account."), Scope.NEXTHOP, PauseReason.SUSPENDED, False, "console"),
    (error("ConfigurationSetSendingPausedException", "x"), Scope.TRANSPORT, PauseReason.SUSPENDED, False, "configuration-set"),
    (error("ConfigurationSetDoesNotExist", "x"), Scope.TRANSPORT, PauseReason.CONFIGURATION, False, "configuration_set"),
    (error("NotFoundException", "x", 404), Scope.TRANSPORT, PauseReason.CONFIGURATION, False, "configuration_set"),
    (error("BadRequestException", "Tenant x is not associated"), Scope.TRANSPORT, PauseReason.CONFIGURATION, False, "tenant"),
    (error("InvalidParameterValue", "Invalid tag value"), Scope.TRANSPORT, PauseReason.CONFIGURATION, False, "tags"),
    (
        error("MailFromDomainNotVerifiedException", "x"),
        Scope.SENDER_DOMAIN,
        PauseReason.CONFIGURATION,
        False,
        "feedback-smtp.us-east-1",
    ),
    (
        error("MessageRejected", NOT_VERIFIED + "a@example.com"),
        Scope.SENDER_DOMAIN,
        PauseReason.CONFIGURATION,
        False,
        "domain add example.com",
    ),
    (
        error("MessageRejected", NOT_VERIFIED + "Me <A@Example.com>"),
        Scope.SENDER_DOMAIN,
        PauseReason.CONFIGURATION,
        False,
        "domain add example.com",
    ),
    (
        error("MessageRejected", "Email address is not verified."),
        Scope.SENDER_DOMAIN,
        PauseReason.CONFIGURATION,
        False,
        "example.com",
    ),
    (error("InvalidClientTokenId", "x", 403), Scope.NEXTHOP, PauseReason.CREDENTIALS, False, KEY),
    (
        error("SignatureDoesNotMatch", "The request signature we calculated", 403),
        Scope.NEXTHOP,
        PauseReason.CREDENTIALS,
        False,
        "secret",
    ),
    (error("AccessDeniedException", "no"), Scope.NEXTHOP, PauseReason.CREDENTIALS, False, "ses:SendRawEmail"),
    (error("ExpiredTokenException", "x", 403), Scope.NEXTHOP, PauseReason.CREDENTIALS, False, KEY),
    (error("UnrecognizedClientException", "x", 403), Scope.NEXTHOP, PauseReason.CREDENTIALS, False, KEY),
    (error("OptInRequired", "x", 403), Scope.NEXTHOP, PauseReason.CREDENTIALS, False, KEY),
    (
        error("AccessDenied", DENIED.format("ses:SendRawEmail"), 403),
        Scope.SENDER_DOMAIN,
        PauseReason.CREDENTIALS,
        False,
        "example.com",
    ),
    (error("RequestExpired", "x"), Scope.NEXTHOP, PauseReason.CLOCK, False, "time"),
    (error("RequestTimeTooSkewed", "x", 403), Scope.NEXTHOP, PauseReason.CLOCK, False, "time"),
    (error("SignatureDoesNotMatch", "Signature not yet current: 2 is later", 403), Scope.NEXTHOP, PauseReason.CLOCK, False, "time"),
    (error("SignatureDoesNotMatch", "Signature expired: 1 is now earlier", 403), Scope.NEXTHOP, PauseReason.CLOCK, False, "time"),
    (Fault("500"), Scope.NEXTHOP, PauseReason.UNAVAILABLE, False, "us-east-1"),
    (Fault("503"), Scope.NEXTHOP, PauseReason.UNAVAILABLE, False, "us-east-1"),
    (error("InternalFailure", "x", 400), Scope.NEXTHOP, PauseReason.UNAVAILABLE, False, ""),
    (error("ServiceUnavailable", "x", 503), Scope.NEXTHOP, PauseReason.UNAVAILABLE, False, ""),
    (error("MessageRejected", "a rejection that comes with a fault", 500), Scope.NEXTHOP, PauseReason.UNAVAILABLE, False, ""),
    (error("RequestTimeout", "x", 408), Scope.NEXTHOP, PauseReason.UNAVAILABLE, False, ""),
    (error("BrandNewException", "never heard of"), Scope.MESSAGE, None, False, ""),
    (error("InvalidParameterValue", "something else"), Scope.MESSAGE, None, False, ""),
    (Fault("reset_before"), Scope.MESSAGE, None, True, ""),
    (Fault("reset_after"), Scope.MESSAGE, None, True, ""),
    (Fault("no_message_id"), Scope.MESSAGE, None, True, ""),
    (Fault("garbage"), Scope.MESSAGE, None, True, ""),
    (Fault("garbage_after"), Scope.MESSAGE, None, True, ""),
    (Fault("truncated"), Scope.MESSAGE, None, True, ""),
    (Fault("portal"), Scope.MESSAGE, None, True, ""),
]


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize(
    ("fault", "scope", "reason", "ambiguous", "word"), DEFERRED, ids=lambda value: getattr(value, "code", None)
)
async def test_answers_that_defer(
    fault: Fault, scope: Scope, reason: PauseReason | None, ambiguous: bool, word: str, api: str
) -> None:
    async with SesStandIn() as ses, world(ses.url, api=api) as w:
        ses.fail(fault, fault)  # twice: credentials are read anew and tried once more
        outcomes = await w.send("b@example.org", "c@example.org")
    assert outcomes[0] == outcomes[1]
    outcome = outcomes[0]
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (scope, reason, ambiguous)
    assert word in outcome.remedy
    assert "{" not in outcome.remedy
    assert "?" not in outcome.remedy
    assert outcome.reply.code == 454
    assert outcome.reply.enhanced.startswith("4.")
    if fault.name == "error":
        assert fault.text in outcome.reply.text


FAILED = [
    (error("MessageRejected", "Bad content"), Scope.MESSAGE, "5.7.1"),
    (error("InvalidParameterValue", "Missing required header 'From'."), Scope.MESSAGE, "5.6.0"),
    (error("InvalidParameterValue", "Transaction failed: Expected MIME type, got null"), Scope.MESSAGE, "5.6.0"),
    (error("InvalidParameterValue", "Duplicate header 'X-Unseen'."), Scope.MESSAGE, "5.6.0"),
    (error("BadRequestException", "Invalid header name"), Scope.MESSAGE, "5.6.0"),
    (error("InvalidParameterValue", "Message length is more than 10485760 bytes long: '10485761'."), Scope.MESSAGE, "5.3.4"),
]


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize(("fault", "scope", "enhanced"), FAILED)
async def test_answers_that_fail(fault: Fault, scope: Scope, enhanced: str, api: str) -> None:
    async with SesStandIn() as ses, world(ses.url, api=api) as w:
        ses.fail(fault)
        outcomes = await w.send("b@example.org", "c@example.org")
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert (outcome.scope, outcome.reply.code, outcome.reply.enhanced) == (scope, 554, enhanced)
        assert outcome.reply.text.endswith(f": {fault.text}")
    assert ses.requests == {"SendRawEmail" if api == "v1" else "SendEmail": 1}


# --- what is sent ---


@pytest.mark.parametrize("api", ["v1", "v2"])
async def test_a_message_arrives_byte_for_byte_with_its_envelope(api: str) -> None:
    raw = b"Received: by x\r\nFROM : a@example.com\r\nX-Odd:\r\n\tfolded\r\nDATE: now\r\ncontent-transfer-encoding: 8BIT\r\n\r\n.\r\n\xff\r\n\r\n"
    everything = bytes(b for b in range(256) if b not in b"\r\n\0") * 3
    raw += everything + b"\r\n"
    async with SesStandIn(keys={KEY: SECRET}) as ses:
        ses.account.configuration_sets = frozenset({"set one"})
        async with world(ses.url, api=api, configuration_set="set one", tags={"site": "blog"}) as w:
            outcomes = await w.send("b@example.org", "c+tag=x&y%@bücher.example", "b@example.org", content=raw)
    (taken,) = ses.journal
    assert taken.raw == raw
    assert taken.source == "a@example.com"
    assert taken.destinations == ("b@example.org", "c+tag=x&y%@xn--bcher-kva.example")
    assert taken.tags == {"sesrelay-id": "0123456789abc", "site": "blog"}
    assert taken.configuration_set == "set one"
    assert taken.api == api
    for outcome in outcomes:
        assert isinstance(outcome, Delivered)
        assert outcome.remote_id == taken.message_id
        assert str(outcome.reply) == f"250 2.0.0 Ok {taken.message_id}"
        assert outcome.trail.changes == ()


@pytest.mark.parametrize(
    ("size", "options", "api"),
    [(200_000, {}, "v1"), (2_000_000, {}, "v1"), (2_000_000, {"api": "v2"}, "v2"), (11_000_000, {}, "v2")],
)
async def test_a_big_message_arrives_byte_for_byte(size: int, options: dict[str, Any], api: str) -> None:
    raw = b"Content-Transfer-Encoding: 8bit\r\n" + HELLO + (b"\xfb\xff?+/= line\r\n" * (size // 13))
    async with SesStandIn(keys={KEY: SECRET}) as ses, world(ses.url, **options) as w:
        (outcome,) = await w.send("b@example.org", content=raw)
    assert isinstance(outcome, Delivered)
    (taken,) = ses.journal
    assert taken.raw == raw
    assert taken.api == api


async def test_what_v2_alone_can_say_is_said() -> None:
    async with SesStandIn() as ses, world(ses.url, tenant="t", contact_list="l", topic="news", feedback_forwarding="f@b") as w:
        await w.send("b@example.org")
    assert ses.journal[0].named == {
        "TenantName": "t", "ListManagementOptions": {"ContactListName": "l", "TopicName": "news"},
        "FeedbackForwardingEmailAddress": "f@b",
    }  # fmt: skip


async def test_a_message_that_v1_finds_too_large_is_given_to_v2() -> None:
    text = "Message length is more than 10485760 bytes long: '11534336'."
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail(error("InvalidParameterValue", text))
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Delivered)
    assert ses.requests == {"SendRawEmail": 1, "SendEmail": 1}


async def test_a_large_message_whose_policy_lacks_v2_is_held_and_a_transport_of_v2_pauses() -> None:
    denied = error("AccessDeniedException", DENIED.format("ses:SendEmail"), 403)
    async with SesStandIn() as ses:
        async with world(ses.url) as w:
            ses.fail(denied)
            (held,) = await w.send("b@example.org", content=HELLO + b"x\r\n" * 3_500_000)
            (small,) = await w.send("b@example.org")
        async with world(ses.url, api="v2") as w:
            ses.fail(error("AccessDeniedException", "User is not authorized to perform: ses:SendEmail", 403), denied)
            (paused,) = await w.send("b@example.org")
            (identity,) = await w.send("b@example.org")
    assert isinstance(held, Held)
    assert (held.reason, "ses:SendEmail" in held.remedy) == ("permission", True)
    assert isinstance(small, Delivered)
    assert isinstance(paused, Deferred)
    assert (paused.scope, paused.reason) == (Scope.NEXTHOP, PauseReason.CREDENTIALS)
    assert "ses:SendEmail" in paused.remedy
    assert isinstance(identity, Deferred)
    assert (identity.scope, identity.reason) == (Scope.SENDER_DOMAIN, PauseReason.CREDENTIALS)
    assert "ses:SendEmail for example.com" in identity.remedy


async def test_the_null_sender_leaves_as_the_header_from() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        await w.send("b@example.org", sender="", header_from=["mailer-daemon@example.com", "x@example.com"])
        (nobody,) = await w.send("b@example.org", sender="", header_from=[])
    assert ses.journal[0].source == "mailer-daemon@example.com"
    assert isinstance(nobody, Held)
    assert len(ses.journal) == 1


async def test_an_address_with_a_local_part_that_is_not_ascii_fails_alone() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        outcomes = await w.send("jürgen@example.org", "b@example.org")
        (by_sender,) = await w.send("b@example.org", sender="jürgen@example.com")
        (alone,) = await w.send("jürgen@example.org")
    assert isinstance(outcomes[0], Failed)
    assert outcomes[0].reply.enhanced == "5.6.7"
    assert isinstance(outcomes[1], Delivered)
    assert isinstance(by_sender, Failed)
    assert (by_sender.scope, by_sender.reply.enhanced) == (Scope.MESSAGE, "5.6.7")
    assert isinstance(alone, Failed)
    assert ses.requests["SendRawEmail"] == 1


async def test_what_ses_would_refuse_in_a_header_is_mended_with_receipts() -> None:
    raw = message(
        "From: a@example.com", "Subject: one", "X-SES-CONFIGURATION-SET: theirs", "x-ses-message-tags: a=b, c=d",
        "subject: two", "Bcc: secret@example.org", "Return-Path: <x@example.com>",
    )  # fmt: skip
    async with SesStandIn() as ses, world(ses.url, trusted_headers=("X-SES-Message-Tags",)) as w:
        (outcome,) = await w.send("b@example.org", content=raw)
    assert isinstance(outcome, Delivered)
    assert ses.journal[0].raw == message("From: a@example.com", "Subject: one", "x-ses-message-tags: a=b, c=d")
    assert ses.journal[0].tags == {"sesrelay-id": "0123456789abc", "a": "b", "c": "d"}
    assert outcome.trail.changes == (
        "removed X-SES-CONFIGURATION-SET",
        "removed another subject, different from the first",
        "removed Bcc",
        "removed Return-Path",
    )


async def test_a_message_cannot_name_another_queue_id() -> None:
    raw = message("From: a@example.com", "X-SES-MESSAGE-TAGS: sesrelay-id=forged, a=b")
    async with SesStandIn() as ses, world(ses.url, trusted_headers=("X-SES-Message-Tags",)) as w:
        (outcome,) = await w.send("b@example.org", content=raw)
    assert isinstance(outcome, Delivered)
    assert ses.journal[0].tags == {"sesrelay-id": "0123456789abc", "a": "b"}
    assert outcome.trail.changes == ("left out the tag sesrelay-id, which is reserved for the relay",)


@pytest.mark.parametrize(("api", "size"), [("v1", 10_485_760), ("auto", 41_943_040)])
async def test_a_message_too_big_for_the_api_fails_without_a_call(api: str, size: int) -> None:
    async with SesStandIn() as ses, world(ses.url, api=api) as w:
        (outcome,) = await w.send("b@example.org", content=HELLO + b"x" * size)
    assert isinstance(outcome, Failed)
    assert (outcome.scope, outcome.reply.enhanced) == (Scope.MESSAGE, "5.3.4")
    assert not ses.requests["SendRawEmail"]


async def test_content_that_cannot_be_read_defers() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        made = batch("b@example.org")
        outcomes = await w.transport.deliver(made, Unreadable(OSError("disk")))
        assert not ses.requests["SendRawEmail"]
    (outcome,) = outcomes.values()
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reply.code, outcome.ambiguous) == (Scope.MESSAGE, 451, False)
    assert len(w.observer.troubles) == 1


# --- what a refusal lets us do within one attempt ---


@pytest.mark.parametrize("n", [1, 2, 7, 50])
async def test_one_bad_address_fails_and_the_others_go(n: int) -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        to = [*addresses(n - 1), "a..b@example.org"]
        outcomes = await w.send(*to[n // 2 :], *to[: n // 2])
    outcomes = outcomes[n - n // 2 :] + outcomes[: n - n // 2]
    assert all(isinstance(outcome, Delivered) for outcome in outcomes[:-1])
    assert isinstance(outcomes[-1], Failed)
    assert (outcomes[-1].scope, outcomes[-1].reply.enhanced) == (Scope.RECIPIENT, "5.1.3")
    sent = [address for taken in ses.journal for address in taken.destinations]
    assert sorted(sent) == sorted(addresses(n - 1))
    assert ses.requests["SendRawEmail"] <= 13


async def test_a_bad_address_that_the_answer_names_costs_one_call_more() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail(error("InvalidParameterValue", "Illegal address: r3@example.org."))
        outcomes = await w.send("3@example.org", *addresses(20))
    assert [isinstance(outcome, Failed) for outcome in outcomes] == [n == 4 for n in range(21)]
    assert ses.requests["SendRawEmail"] == 2


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ('"re:ceiver"@example.net', "Address contains illegal characters in user name: '<\"re:ceiver\"@example.net>'."),
        ('"r3@example.org"@example.net', "Address contains illegal characters in user name: '<\"r3@example.org\"@example.net>'."),
        ("o'brien@example.net", "Illegal address 'O'Brien@Example.net'"),
        ("r3@example.org.uk", "Illegal address: r3@example.org.uk."),
    ],
)
async def test_only_the_address_that_the_answer_names_fails(bad: str, text: str) -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail(error("InvalidParameterValue", text))
        outcomes = await w.send(bad, *addresses(20))
    assert [isinstance(outcome, Failed) for outcome in outcomes] == [True] + [False] * 20
    assert ses.requests["SendRawEmail"] == 2


@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("api", ["v1", "v2"])
async def test_an_address_in_the_header_is_no_recipients_fault_and_costs_few_calls(n: int, api: str) -> None:
    raw = message("From: a@example.com", "To: root", "Cc: b@example.org")
    async with SesStandIn() as ses, world(ses.url, api=api) as w:
        outcomes = await w.send(*addresses(n), content=raw)
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert (outcome.scope, outcome.reply.enhanced) == (Scope.MESSAGE, "5.6.0")
        assert outcome.reply.text.endswith(": Missing final '@domain'")
        assert "From, Sender, Reply-To, To or Cc" in outcome.remedy
    assert sum(ses.requests.values()) <= min(n + 1, 5)


async def test_an_address_in_the_header_beside_a_bad_recipient_ends_all_of_them() -> None:
    raw = message("From: a@example.com", "To: root")
    async with SesStandIn() as ses, world(ses.url) as w:
        outcomes = await w.send(*addresses(49), "a..b@example.org", content=raw)
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    assert ses.requests["SendRawEmail"] <= 5


async def test_what_stops_a_search_stops_those_who_were_refused_together() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        refusal = error("InvalidParameterValue", "Domain contains dot-dot")
        ses.fail(refusal, refusal, Fault("throttle"))
        outcomes = await w.send(*addresses(8))
    for outcome in outcomes:
        assert isinstance(outcome, Deferred)
        assert (outcome.reason, outcome.ambiguous) == (PauseReason.THROTTLED, False)


async def test_a_recipient_that_ses_has_on_a_list_of_its_own_fails_alone() -> None:
    refusal = error("MessageRejected", "Address blacklisted.")
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail(refusal, refusal, "ok", refusal)
        outcomes = await w.send(*addresses(4))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered, Delivered]
    assert isinstance(outcomes[1], Failed)
    assert (outcomes[1].scope, outcomes[1].reply.enhanced) == (Scope.RECIPIENT, "5.7.1")


@pytest.mark.parametrize(("calls", "ended"), [(3, [Delivered]), (4, [Delivered, Failed])])
async def test_what_is_cut_between_two_calls_keeps_what_the_former_ones_told(
    calls: int, ended: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = error("MessageRejected", "Address blacklisted.")
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail(refusal, refusal, "ok", refusal)
        asked, credentials = asyncio.Event(), w.session.credentials

        async def silent() -> Keys | None:
            if sum(ses.requests.values()) < calls:
                return await credentials()
            asked.set()
            return await asyncio.Event().wait()  # type: ignore[return-value]

        monkeypatch.setattr(w.session, "credentials", silent)
        sending = asyncio.create_task(w.send(*addresses(4)))
        await asyncio.wait_for(asked.wait(), 10.0)
        sending.cancel()
        outcomes = await sending
    assert [type(outcome) for outcome in outcomes[: len(ended)]] == ended
    assert set(outcomes[len(ended) :]) == {CUT}


async def test_an_answer_that_names_the_source_fails_the_message() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail(error("InvalidParameterValue", "Illegal address: a@example.com"))
        outcomes = await w.send(*addresses(20))
    assert all(isinstance(outcome, Failed) and outcome.scope is Scope.MESSAGE for outcome in outcomes)
    assert ses.requests["SendRawEmail"] == 1


async def test_an_answer_lost_while_splitting_ends_the_attempt() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail("ok", "ok", "ok", "reset_after")
        outcomes = await w.send("r0@example.org", "r1@example.org", "r2@example.org", "a..b@example.org")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, Deferred, Deferred]
    lost, untried = outcomes[2:]
    assert isinstance(lost, Deferred)
    assert lost.ambiguous
    assert isinstance(untried, Deferred)
    assert (untried.scope, untried.ambiguous) == (Scope.MESSAGE, False)
    assert [taken.destinations for taken in ses.journal] == [("r0@example.org", "r1@example.org"), ("r2@example.org",)]


async def test_in_the_sandbox_unverified_recipients_fail_and_the_others_go() -> None:
    account = Account(sandbox=True, verified=frozenset({"example.com", "b@example.org"}))
    async with SesStandIn(account=account) as ses, world(ses.url) as w:
        outcomes = await w.send("b@example.org", "C@example.net", "success@simulator.amazonses.com", "x@sub.example.com")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered, Delivered]
    refused = outcomes[1]
    assert isinstance(refused, Failed)
    assert (refused.scope, refused.reply.enhanced) == (Scope.RECIPIENT, "5.7.1")
    assert "account request-production" in refused.remedy


@pytest.mark.parametrize("odd", ['"a: b"@example.net', "tenant@example.net", "account@disabled.example"])
async def test_in_the_sandbox_an_odd_recipient_fails_alone(odd: str) -> None:
    account = Account(sandbox=True, verified=frozenset({"example.com"}))
    async with SesStandIn(account=account) as ses, world(ses.url) as w:
        outcomes = await w.send(odd, "b@example.com")
    assert [type(outcome) for outcome in outcomes] == [Failed, Delivered]


async def test_in_the_sandbox_fifty_long_addresses_are_all_named() -> None:
    account = Account(sandbox=True, verified=frozenset({"example.com"}))
    to = [f"somebody-with-a-long-name-{n}@a-long-sub-domain.example.org" for n in range(49)]
    async with SesStandIn(account=account) as ses, world(ses.url) as w:
        outcomes = await w.send(*to, "b@example.com")
    assert [type(outcome) for outcome in outcomes] == [Failed] * 49 + [Delivered]
    assert ses.requests["SendRawEmail"] == 2
    assert all(len(outcome.reply.text) < 600 for outcome in outcomes)


async def test_an_unverified_sender_waits_even_where_it_is_a_recipient_too() -> None:
    account = Account(sandbox=True, verified=frozenset({"b@example.org"}))
    async with SesStandIn(account=account) as ses, world(ses.url) as w:
        outcomes = await w.send("b@example.org", "a@example.com", "c@example.net")
    for outcome in outcomes:
        assert isinstance(outcome, Deferred)
        assert outcome.scope is Scope.SENDER_DOMAIN
    assert not ses.journal


async def test_a_header_of_somebody_elses_domain_is_that_messages_fault() -> None:
    raw = message("From: a@example.com", "Sender: B@example.net")
    async with SesStandIn(account=Account(verified=frozenset({"example.com"}))) as ses, world(ses.url) as w:
        (outcome,) = await w.send("b@example.net", content=raw)
    assert isinstance(outcome, Deferred)
    assert outcome.scope is Scope.MESSAGE
    assert "example.net" in outcome.remedy


async def test_a_duplicate_that_only_ses_minds_is_repaired_once() -> None:
    raw = message("From: a@example.com", "X-Campaign: 1", "X-Campaign: 2")
    async with SesStandIn() as ses, world(ses.url) as w:
        refusal = error("InvalidParameterValue", "Duplicate header 'X-Campaign'.")
        ses.fail(refusal)
        (repaired,) = await w.send("b@example.org", content=raw)
        ses.fail(refusal, refusal)
        (failed,) = await w.send("b@example.org", content=raw)
    assert isinstance(repaired, Delivered)
    assert repaired.trail.changes == ("removed another X-Campaign, different from the first",)
    assert ses.journal[0].raw == message("From: a@example.com", "X-Campaign: 1")
    assert isinstance(failed, Failed)
    assert len(ses.journal) == 1


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize(
    "text", ["Duplicate header 'X-A' in the message.", "The message contains more than one X-A header", "Duplicate header found."]
)
async def test_a_duplicate_is_repaired_however_ses_words_it(text: str, api: str) -> None:
    raw = message("From: a@example.com", "X-A: 1", "x-a: 2", "Received: by x", "Received: by y")
    async with SesStandIn() as ses, world(ses.url, api=api) as w:
        ses.fail(error("InvalidParameterValue" if api == "v1" else "BadRequestException", text))
        (outcome,) = await w.send("b@example.org", content=raw)
    assert isinstance(outcome, Delivered)
    assert ses.journal[0].raw == message("From: a@example.com", "X-A: 1", "Received: by x", "Received: by y")


async def test_one_repair_is_all_there_is() -> None:
    raw = message("From: a@example.com", "X-A: 1", "X-A: 2", "X-B: 1", "X-B: 2")
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail(
            error("InvalidParameterValue", "Duplicate header 'X-A'."), error("InvalidParameterValue", "Duplicate header 'X-B'.")
        )
        (outcome,) = await w.send("b@example.org", content=raw)
    assert isinstance(outcome, Failed)
    assert outcome.scope is Scope.MESSAGE
    assert not ses.journal


async def test_refused_credentials_are_read_anew_once() -> None:
    async with SesStandIn(keys={KEY: SECRET}) as ses:
        rotated = PaperSession(ses.url, keys=Keys(secret_key="old"), after_reload=Keys())
        async with world(ses.url, session=rotated) as w:
            (outcome,) = await w.send("b@example.org")
        wrong = PaperSession(ses.url, keys=Keys(secret_key="old"))
        async with world(ses.url, session=wrong) as w:
            (refused,) = await w.send("b@example.org")
    assert isinstance(outcome, Delivered)
    assert rotated.reloads == wrong.reloads == 1
    assert isinstance(refused, Deferred)
    assert (refused.scope, refused.reason) == (Scope.NEXTHOP, PauseReason.CREDENTIALS)
    assert refused.reply.text.startswith("SignatureDoesNotMatch")


@pytest.mark.parametrize("keys", [None, RuntimeError("the metadata service is away")])
async def test_without_credentials_mail_waits(keys: Exception | None) -> None:
    async with SesStandIn() as ses, world(ses.url, session=PaperSession(ses.url, keys=keys)) as w:
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.CREDENTIALS, False)
    assert not ses.requests["SendRawEmail"]


async def test_a_wrong_clock_is_told_from_a_wrong_key() -> None:
    there, here = 1_800_000_000.0, FakeClock(now=1_800_000_000.0 + 3600)
    async with SesStandIn(keys={KEY: SECRET}, wall=lambda: there) as ses, world(ses.url, clock=here) as w:
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert outcome.reason is PauseReason.CLOCK


async def test_so_is_one_that_keeps_a_role_from_being_assumed() -> None:
    said = "An error occurred (SignatureDoesNotMatch) when calling the AssumeRole operation: Signature expired: 1 is now earlier than 2"
    session = PaperSession("http://127.0.0.1:9", keys=RuntimeError(said))
    async with world(session.url, session=session) as here:
        (outcome,) = await here.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.CLOCK)
    assert "timedatectl" in outcome.remedy


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Error when retrieving token from sso: Token has expired and refresh failed", "`aws sso login`"),
        ("The SSO session associated with this profile has expired or is otherwise invalid.", "`aws sso login`"),
        ("Error loading SSO Token: Token for ours does not exist", "`aws sso login`"),
        (
            "An error occurred (AccessDenied) when calling the AssumeRole operation: User: u is not authorized",
            "the role's trust policy",
        ),
        ("An error occurred (InvalidClientTokenId) when calling the AssumeRole operation: invalid", "the role's trust policy"),
        ("An error occurred (InternalFailure) when calling the AssumeRole operation: later", "could not be loaded"),
    ],
)
async def test_who_hands_out_no_credentials_is_told_of(said: str, remedy: str) -> None:
    session = PaperSession("http://127.0.0.1:9", keys=RuntimeError(said))
    async with world(session.url, session=session) as here:
        (outcome,) = await here.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.CREDENTIALS)
    assert remedy in outcome.remedy


async def test_a_set_that_the_message_names_pauses_the_message_alone() -> None:
    raw = message("From: a@example.com", "X-SES-CONFIGURATION-SET: nowhere")
    async with SesStandIn() as ses, world(ses.url, trusted_headers=("X-SES-CONFIGURATION-SET",)) as w:
        (outcome,) = await w.send("b@example.org", content=raw)
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason) == (Scope.MESSAGE, None)


@pytest.mark.parametrize(
    ("field", "text", "own"),
    [
        ("X-SES-MESSAGE-TAGS: event=a.b", "Invalid tag value <a.b>: only alphanumeric ASCII characters, '_', and '-' are allowed.", True),
        ("X-SES-SOURCE-ARN: arn:x", "Invalid ARN.", True),
        ("X-SES-MESSAGE-TAGS: event=a.b", "Configuration set <main> does not exist.", False),
        ("X-SES-MESSAGE-TAGS: event=a.b", "Configuration set <tag> does not exist.", False),
        ("X-Other: tag", "Invalid tag value <a.b>: only alphanumeric ASCII characters, '_', and '-' are allowed.", False),
    ],
)  # fmt: skip
async def test_a_tag_or_an_arn_that_the_message_names_stops_no_other_mail(field: str, text: str, own: bool) -> None:
    raw = message("From: a@example.com", field)
    async with SesStandIn() as ses, world(ses.url, trusted_headers=("X-SES-MESSAGE-TAGS", "X-SES-SOURCE-ARN")) as w:
        ses.fail(error("InvalidParameterValue", text))
        (outcome,) = await w.send("b@example.org", content=raw)
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason) == ((Scope.MESSAGE, None) if own else (Scope.TRANSPORT, PauseReason.CONFIGURATION))
    assert not ses.journal


# --- connections ---


async def test_a_refused_connection_is_certainly_not_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with world(f"http://127.0.0.1:{taken.getsockname()[1]}") as w:
            (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False)


async def test_a_tls_failure_is_certainly_not_sent() -> None:
    async with SesStandIn() as ses, world(ses.url.replace("http:", "https:")) as w:
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False)


async def test_the_service_is_verified_and_the_ca_bundle_is_honoured(tmp_path: Path) -> None:
    served, other = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.issue_cert("127.0.0.1").configure_cert(context)
    found = []
    async with SesStandIn(tls=context) as ses:
        for name, ca in (("right", served), ("wrong", other)):
            ca.cert_pem.write_to_path(str(tmp_path / name))
            async with world(ses.url, session=PaperSession(ses.url, ca_bundle=str(tmp_path / name))) as w:
                found += await w.send("b@example.org")
    right, wrong = found
    assert isinstance(right, Delivered)
    assert right.trail.tls == "TLSv1.3"
    assert isinstance(wrong, Deferred)
    assert (wrong.scope, wrong.reason, wrong.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False)
    assert "certificate" in wrong.reply.text.lower()
    assert len(ses.journal) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://127.0.0.1:x", "http://", "ftp://127.0.0.1"])
async def test_an_endpoint_that_is_none_sends_nothing(url: str) -> None:
    async with world(url) as w:
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False)
    assert "the endpoint is not a URL" in outcome.reply.text


async def test_a_ca_bundle_that_is_not_there_sends_nothing() -> None:
    async with world("https://127.0.0.1:1", session=PaperSession("https://127.0.0.1:1", ca_bundle="/nonexistent.pem")) as w:
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False)


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SesStandIn() as ses:
        monkeypatch.setenv("http_proxy", ses.url)
        monkeypatch.setenv("https_proxy", ses.url)
        async with world("http://ses.invalid") as w:
            (plain,) = await w.send("b@example.org")
        async with world("https://ses.invalid") as w:
            (tunnelled,) = await w.send("b@example.org")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        async with world(ses.url) as w:
            (direct,) = await w.send("b@example.org")
    assert isinstance(plain, Delivered)
    assert isinstance(tunnelled, Deferred)  # the stand-in is no CONNECT proxy
    assert (tunnelled.scope, tunnelled.ambiguous) == (Scope.NEXTHOP, False)
    assert isinstance(direct, Delivered)


async def test_a_name_that_cannot_be_looked_up_is_certainly_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with world("http://ses.invalid") as w:
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False)


async def test_a_connect_that_times_out_is_certainly_not_sent() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        held = [socket.socket() for _ in range(3)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        async with world(f"http://127.0.0.1:{full.getsockname()[1]}", pool=Pool(connect_timeout=0.2)) as w:
            (outcome,) = await w.send("b@example.org")
        for one in held:
            one.close()
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False)


async def test_no_answer_in_time_is_ambiguous() -> None:
    async with SesStandIn() as ses, world(ses.url, pool=Pool(read_timeout=0.2)) as w:
        ses.fail("hang")
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.ambiguous) == (Scope.MESSAGE, True)


async def test_a_connection_is_kept_and_neither_redirect_nor_cookie_is_taken() -> None:
    from aiohttp import web

    seen: list[tuple[object, str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        seen.append((request.transport.get_extra_info("peername"), request.path, request.headers.get("Cookie")))
        return web.Response(status=302, headers={"Location": "/elsewhere", "Set-Cookie": "a=b; Path=/"})

    app = web.Application()
    app.router.add_route("*", "/{anywhere:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with world(f"http://localhost:{runner.addresses[0][1]}") as w:
        outcomes = [(await w.send("b@example.org"))[0] for _ in range(3)]
    await runner.cleanup()
    assert seen == [(seen[0][0], "/", None)] * 3
    for outcome in outcomes:
        assert isinstance(outcome, Deferred)
        assert outcome.ambiguous


async def test_a_connection_in_use_is_given_up_in_time_so_that_the_name_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiohttp import web

    seen: list[object] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        seen.append(request.transport.get_extra_info("peername"))
        return web.json_response({"MessageId": "0100-1"})

    app = web.Application()
    app.router.add_route("*", "/{anywhere:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with world(f"http://localhost:{runner.addresses[0][1]}", api="v2") as w:
        for old in (300.0, 300.0, -1.0, 300.0):
            monkeypatch.setattr("sesrelay.transport.ses.pool.OLDEST", old)
            (outcome,) = await w.send("b@example.org")
            assert isinstance(outcome, Delivered)
    await runner.cleanup()
    assert seen[0] == seen[1] == seen[2] != seen[3]


async def test_cancelling_is_passed_on() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        ses.fail("hang")
        task = asyncio.ensure_future(w.transport.deliver(batch("b@example.org"), Bytes()))
        while not ses.requests["SendRawEmail"]:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_mistake_of_ours_before_the_call_defers_and_is_said() -> None:
    async with SesStandIn() as ses, world(ses.url) as w:
        w.transport._line.clock = None  # type: ignore[assignment]
        (outcome,) = await w.send("b@example.org")
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reply.code, outcome.ambiguous) == (Scope.MESSAGE, 451, False)
    assert len(w.observer.troubles) == 1


@dataclass
class Breaks(Pool):
    """Posts, and then breaks from the call on that `breaks_at` counts."""

    breaks_at: int = 0

    async def post(self, *args: Any, **kwargs: Any) -> Any:
        self.breaks_at -= 1
        answer = await super().post(*args, **kwargs)
        if self.breaks_at < 0:
            raise RuntimeError("a mistake of ours")
        return answer


async def test_a_mistake_of_ours_after_the_call_is_ambiguous_for_whom_it_was_about() -> None:
    async with SesStandIn() as ses, world(ses.url, pool=Breaks(breaks_at=2)) as w:
        outcomes = await w.send("r0@example.org", "r1@example.org", "r2@example.org", "a..b@example.org", "jürgen@example.org")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, Deferred, Deferred, Failed]
    assert all(isinstance(outcome, Deferred) and outcome.ambiguous for outcome in outcomes[2:4])
    assert len(w.observer.troubles) == 1


# --- pace, quota, names ---


async def test_the_pace_starts_slow_and_follows_the_account() -> None:
    async with SesStandIn() as ses:
        clock = FakeClock()
        async with world(ses.url, clock=clock, session=PaperSession(ses.url, figures=Figures(10.0, 200.0, 7.0))) as w:
            assert w.transport.pace(1, clock.monotonic()) == 0.0
            assert w.transport.pace(1, clock.monotonic()) == pytest.approx(1.0)
            while not w.observer.quotas:
                await asyncio.sleep(0.01)
            assert w.observer.quotas == [("ses-main", 10.0, 200.0, 7.0)]
            assert w.transport.pace(1, clock.monotonic()) == pytest.approx(1 / 9.9)
            clock.advance(0.102)
            assert w.transport.pace(50, clock.monotonic()) == 0.0
            assert w.transport.pace(1, clock.monotonic()) == pytest.approx(50 / 9.9, rel=0.01)
            w.transport.give_back(50)
            assert w.transport.pace(1, clock.monotonic()) == 0.0


async def test_a_throttled_call_lowers_the_pace_and_it_comes_back() -> None:
    async with SesStandIn() as ses:
        clock = FakeClock()
        async with world(ses.url, clock=clock, rate=10) as w:
            ses.fail("throttle", "throttle")
            await asyncio.gather(w.send("b@example.org"), w.send("b@example.org"))
            assert w.transport.pace(1, clock.monotonic()) == pytest.approx(1 / 6.93)
            clock.advance(1.0)
            assert w.transport.pace(1, clock.monotonic()) == 0.0
            for _ in range(60):
                clock.advance(1.0)
                w.transport.pace(1, clock.monotonic())
            clock.advance(10.0)
            taken = 0
            while w.transport.pace(1, clock.monotonic()) == 0.0:
                taken += 1
            assert taken == 9


async def test_a_share_is_a_part_of_the_accounts_rate_and_the_reserve_is_for_urgent_mail() -> None:
    async with SesStandIn() as ses:
        clock = FakeClock()
        session = PaperSession(ses.url, figures=Figures(100.0, 200.0, 175.0))
        async with world(ses.url, clock=clock, session=session, share=0.5, daily_reserve=0.1) as w:
            w.transport.start()
            while not w.observer.quotas:
                await asyncio.sleep(0.01)
            clock.advance(5.0)
            taken = 0
            while w.transport.pace(1, clock.monotonic(), Priority.HIGH) == 0.0:
                taken += 1
            assert taken == 45
            w.transport.ended(45)
            clock.advance(5.0)
            assert w.transport.pace(5, clock.monotonic()) == 0.0
            assert w.transport.reserved_since() is None
            since = clock.wall()
            for _ in range(2):
                assert w.transport.pace(6, clock.monotonic()) == 60.0
                clock.advance(1.0)
            assert w.transport.reserved_since() == since
            assert w.transport.pace(6, clock.monotonic(), Priority.HIGH) == 0.0
            ((what, facts),) = w.observer.notices
            assert "reserved for mail of priority high" in what
            assert "daily_reserve" in str(facts["remedy"])
            assert w.observer.standings[-1][1].reserving, "the page and the metrics know as soon as the log does"
            await w.send("b@example.org", "c@example.org", "d@example.org")
            assert w.transport.pace(3, clock.monotonic(), Priority.LOW) == 60.0
            session.figures = Figures(100.0, 200.0, 20.0)
            await w.transport._account.refresh(0.0)
            assert w.transport.reserved_since() is None
            assert w.transport.pace(3, clock.monotonic(), Priority.LOW) == 0.0


async def test_a_message_to_more_than_the_reserve_leaves_goes_to_as_many_as_it_leaves() -> None:
    async with SesStandIn() as ses:
        clock = FakeClock()
        session = PaperSession(ses.url, figures=Figures(100.0, 200.0, 150.0))
        async with world(ses.url, clock=clock, session=session, daily_reserve=0.1) as w:
            w.transport.start()
            await eventually(lambda: bool(w.observer.quotas))
            clock.advance(5.0)
            rig = Rig(w.transport, clock=clock)
            large = await rig.submit(*addresses(40))
            await eventually(lambda: sum(len(taken.destinations) for taken in ses.journal) == 30)
            await rig.quiet()
            assert (await rig.states(large)).count(State.DELIVERED) == 30
            assert w.transport.reserved_since() is not None
            session.figures = Figures(100.0, 200.0, 179.0)
            await w.transport._account.refresh(0.0)
            await rig.pass_time(60.0)
            await eventually(lambda: sum(len(taken.destinations) for taken in ses.journal) > 30)
            await rig.quiet()
            assert (await rig.states(large)).count(State.DELIVERED) == 31
            await rig.die()


async def test_the_sandbox_and_a_bad_reputation_are_told_once() -> None:
    async with SesStandIn() as ses:
        session = PaperSession(ses.url, figures=Figures(1.0, 200.0, 7.0, sandbox=True), standing=Standing(1_000, 60, 1, 0))
        clock = FakeClock()
        async with world(ses.url, clock=clock, session=session) as w:
            for _ in range(3):
                clock.advance(120.0)
                await w.transport._account.refresh(0.0)
            said = [what for what, _ in w.observer.notices]
            assert said == [
                "the SES account is in the sandbox", "the bounce rate of the SES account is above AWS's threshold",
                "the complaint rate of the SES account is above AWS's threshold",
            ]  # fmt: skip
            assert all(facts["remedy"] and facts["region"] == "us-east-1" for _, facts in w.observer.notices)
            assert "`sesrelay account request-production`" in str(w.observer.notices[0][1]["remedy"])
            name, standing = w.observer.standings[-1]
            assert (name, standing.sandbox, standing.bounces_24h, standing.max_24h) == ("ses-main", True, 60, 200.0)
            session.figures, session.standing = Figures(14.0, 50_000.0), PermissionError("not allowed")
            clock.advance(901.0)
            await w.transport._account.refresh(0.0)
            assert w.observer.notices[-1][0] == "the statistics of the SES account cannot be read"
            session.figures = Figures(14.0, 50_000.0, sandbox=True)
            clock.advance(120.0)
            await w.transport._account.refresh(0.0)
            assert w.observer.notices[-1][0] == "the SES account is in the sandbox"


async def test_keys_of_one_account_share_its_pace_once_they_are_known_to() -> None:
    clock = FakeClock()
    async with SesStandIn() as ses:
        first = PaperSession(ses.url, account_number="123456789012", figures=Figures(10.0))
        async with world(ses.url, clock=clock, session=first) as w:
            second = PaperSession(ses.url, account_number="123456789012", credential_id="AKIAOTHER", figures=Figures(10.0))
            elsewhere = PaperSession(ses.url, account_number="210987654321", credential_id="AKIATHIRD", figures=Figures(10.0))
            observer: Any = w.observer
            ways = [
                SesTransport(name, SesOptions("us-east-1", endpoint_url=ses.url), session, w.accounts, clock, observer)
                for name, session in (("other", second), ("elsewhere", elsewhere))
            ]
            for way in (w.transport, *ways):
                way.start()
            while {name for name, *_ in w.observer.quotas} != {"ses-main", "other", "elsewhere"}:
                await asyncio.sleep(0.01)
            clock.advance(5.0)
            taken = 0
            while w.transport.pace(1, clock.monotonic()) == 0.0:
                taken += 1
            assert taken == 9
            assert ways[0].pace(1, clock.monotonic()) > 0.0
            assert ways[1].pace(1, clock.monotonic()) == 0.0
            by_smtp = w.accounts.ledger("us-east-1", "123456789012")
            assert by_smtp.governor("auto", 1.0).take(1, clock.monotonic()) > 0.0
            for way in ways:
                await way.close()


async def test_a_key_that_may_not_read_the_quota_keeps_no_other_from_it() -> None:
    clock, number = FakeClock(), "123456789012"
    async with SesStandIn() as ses:
        barred = PaperSession(ses.url, account_number=number, figures=PermissionError("not allowed"))
        async with world(ses.url, clock=clock, session=barred) as w:
            w.transport.start()
            while not w.observer.troubles:
                await asyncio.sleep(0.01)
            session = PaperSession(ses.url, account_number=number, credential_id="AKIAOTHER", figures=Figures(100.0))
            observer: Any = w.observer
            way = SesTransport("other", SesOptions("us-east-1", endpoint_url=ses.url), session, w.accounts, clock, observer)
            way.start()
            while way._account.number is None:
                await asyncio.sleep(0.01)
            await way._account.refresh(10.0)
            assert w.accounts.ledger("us-east-1", number).figures == Figures(100.0)
            assert [(name, rate) for name, rate, *_ in w.observer.quotas] == [("other", 100.0)]
            assert (barred.asked, session.asked) == (1, 1)
            await w.transport._account.refresh(10.0)
            assert barred.asked == 1
            await way.close()


async def test_a_used_up_quota_defers_without_a_call_and_is_looked_at_once_a_minute() -> None:
    async with SesStandIn() as ses:
        clock = FakeClock()
        async with world(ses.url, clock=clock, session=PaperSession(ses.url, figures=Figures(10.0, 200.0, 200.0))) as w:
            w.transport.start()
            while not w.observer.quotas:
                await asyncio.sleep(0.01)
            for _ in range(3):
                clock.advance(1.0)
                assert w.transport.pace(1, clock.monotonic()) == 0.0, (
                    "not kept for urgent mail: an attempt finds out, and that pauses"
                )
                (outcome,) = await w.send("b@example.org")
                assert isinstance(outcome, Deferred)
                assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.QUOTA)
                assert outcome.retry_after is not None
                assert outcome.retry_after >= 60
            assert w.session.asked == 1
            assert not ses.requests["SendRawEmail"]
            w.session.figures = Figures(10.0, 200.0, 150.0)
            clock.advance(61)
            (outcome,) = await w.send("b@example.org")
            assert isinstance(outcome, Delivered)
            assert w.session.asked == 2


async def test_a_used_up_quota_of_which_nothing_more_is_heard_is_tried() -> None:
    async with SesStandIn() as ses:
        clock = FakeClock()
        async with world(ses.url, clock=clock, session=PaperSession(ses.url, figures=Figures(10.0, 200.0, 200.0))) as w:
            await w.transport._account.refresh(0.0)
            w.session.figures = PermissionError("not any more")
            clock.advance(600.0)
            assert isinstance((await w.send("b@example.org"))[0], Deferred)
            clock.advance(600.0)
            assert isinstance((await w.send("b@example.org"))[0], Delivered)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "An error occurred (AccessDenied) when calling the GetSendQuota operation: User is not authorized",
            "allow ses:GetAccount",
        ),
        ("An error occurred (Throttling) when calling the GetSendQuota operation: Rate exceeded", "asks again"),
        ("An error occurred (SignatureDoesNotMatch) when calling the GetSendQuota operation: Signature expired: 1", "timedatectl"),
        ('Could not connect to the endpoint URL: "https://email.us-east-1.amazonaws.com/"', "asks again"),
    ],
)
async def test_a_quota_that_cannot_be_read_is_said_once(said: str, remedy: str) -> None:
    async with SesStandIn() as ses:
        clock = FakeClock()
        async with world(ses.url, clock=clock, session=PaperSession(ses.url, figures=OSError(said))) as w:
            w.transport.start()
            while not w.observer.troubles:
                await asyncio.sleep(0.01)
            await w.transport._account.refresh(0.0)
            ((_, _, facts),) = w.observer.troubles
            assert remedy in str(facts["remedy"])
            w.transport.pace(1, clock.monotonic())
            assert w.transport.pace(1, clock.monotonic()) == pytest.approx(1 / 13.86)


async def test_transports_of_one_account_share_its_pace_also_across_a_reload() -> None:
    clock = FakeClock()
    async with world("http://127.0.0.1:1", clock=clock) as w:
        options = SesOptions("us-east-1", endpoint_url="http://127.0.0.1:1")
        again = SesTransport("ses-main", options, w.session, w.accounts, clock, w.observer)  # type: ignore[arg-type]
        other = SesTransport("other", options, w.session, w.accounts, clock, w.observer)  # type: ignore[arg-type]
        assert w.transport.pace(1, clock.monotonic()) == 0.0
        await w.transport.close()
        assert again.pace(1, clock.monotonic()) > 0.0
        assert other.pace(1, clock.monotonic()) > 0.0
        await again.close()
        await other.close()
        assert not w.accounts._accounts


def test_names_carry_no_secret() -> None:
    async def run() -> tuple[str, str]:
        async with world("http://127.0.0.1:1") as w:
            return w.transport.nexthop("b@example.org"), w.transport.name

    assert asyncio.run(run()) == (f"ses/us-east-1/{KEY}", "ses-main")


async def test_no_secret_is_in_a_log_or_an_outcome(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with SesStandIn(keys={KEY: "another"}) as ses, world(ses.url) as w:
        (refused,) = await w.send("b@example.org")
        ses.keys = {KEY: SECRET}
        (sent,) = await w.send("b@example.org")
    assert isinstance(sent, Delivered)
    for text in (repr(refused), repr(sent), repr(w.transport), caplog.text, repr(w.observer.troubles)):
        assert SECRET not in text
