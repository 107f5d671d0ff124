"""The smtp transport against a host that answers at each command as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email import message_from_bytes
from typing import Any

import pytest

from batches import HELLO, Bytes, Unreadable, batch, by_address, eventually, unused_port
from fakes import FakeClock
from scripted_host import DROP, RESET, STALL, ScriptedHost
from sesrelay.mail.delivery import Batch, DeliveryId
from sesrelay.mail.envelope import Recipient
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Content, Interrupted, SpoolError
from sesrelay.transport.client.connect import Timeouts
from sesrelay.transport.client.pool import Keeping
from sesrelay.transport.smtp.for_ses import Shaping, shaped_first
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport

MUCH = (b"y" * 78 + b"\r\n") * 375_000


def transport(host: ScriptedHost | int, clock: FakeClock | None = None, **options: Any) -> SmtpTransport:
    options.setdefault("hosts", ["127.0.0.1"])
    port = host if isinstance(host, int) else host.port
    return SmtpTransport("out", SmtpOptions(port=port, local_hostname="relay.example.com", **options), clock or FakeClock())


async def deliver(host: ScriptedHost, *recipients: str, content: bytes = HELLO, **options: Any) -> Any:
    """Send one message over a transport of its own; return the outcome, or one a recipient in their order."""
    out = transport(host, **options)
    message = batch(*recipients)
    found = by_address(message, await out.deliver(message, Bytes(content)))
    await out.close()
    return [found[one] for one in recipients] if recipients else found["b@example.org"]


async def test_a_message_arrives() -> None:
    async with ScriptedHost() as host:
        outcome = await deliver(host)
        assert isinstance(outcome, Delivered)
        assert str(outcome.reply) == "250 2.0.0 Ok: queued as 4XyZ123"
        assert outcome.remote_id == "4XyZ123"
        assert outcome.trail.tls is None
        assert host.commands[0][:2] == ["EHLO relay.example.com", "MAIL FROM:<a@example.com>"]
        assert host.messages[0].content == HELLO


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize(("code", "kind"), [("451 4.3.0 Later", Deferred), ("550 5.7.1 No", Failed)])
async def test_the_first_digit_decides_at_each_command(verb: str, code: str, kind: type) -> None:
    async with ScriptedHost({verb: code}) as host:
        outcome = await deliver(host)
        assert type(outcome) is kind
        assert str(outcome.reply) == code
        assert outcome.scope is (Scope.RECIPIENT if verb == "RCPT" else Scope.MESSAGE)


async def test_each_recipient_has_its_own_answer() -> None:
    async with ScriptedHost({"RCPT b@example.org": "550 5.1.1 Nobody", "RCPT c@example.org": "450 4.2.0 Greylisted"}) as host:
        b, c, d = await deliver(host, "b@example.org", "c@example.org", "d@example.org")
        assert (type(b), b.scope, b.reply.enhanced) == (Failed, Scope.RECIPIENT, "5.1.1")
        assert (type(c), c.scope, c.reply.enhanced) == (Deferred, Scope.RECIPIENT, "4.2.0")
        assert type(d) is Delivered
        assert host.messages[0].rcpt == ["RCPT TO:<d@example.org>"]


async def test_a_refusal_of_the_content_is_for_those_that_were_accepted() -> None:
    async with ScriptedHost({"RCPT b@example.org": "450 4.2.0 Greylisted", ".": "554 5.6.0 Spam"}) as host:
        b, c = await deliver(host, "b@example.org", "c@example.org")
        assert type(b) is Deferred
        assert (type(c), c.scope) == (Failed, Scope.MESSAGE)


async def test_a_greylisted_recipient_gets_through_later() -> None:
    replies: dict[str, Any] = {
        "RCPT": ["451 4.7.1 Greylisted", "250 2.1.5 Ok"],
        "DATA": ["554 5.5.1 No valid recipients", "354 Go on"],
    }
    async with ScriptedHost(replies) as host:
        out = transport(host)
        message = batch()
        first = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
        second = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
        assert (type(first), type(second)) == (Deferred, Delivered)
        assert host.connections == 1
        assert "RSET" in host.commands[0]
        await out.close()


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("how", [DROP, RESET, "421 4.3.2 Shutting down"])
async def test_a_host_that_goes_away_before_the_content_pauses_the_lane(verb: str, how: str) -> None:
    async with ScriptedHost({verb: how}) as host:
        outcome = await deliver(host)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, False) or (
            verb == "DATA" and how.startswith("421") and outcome.scope is Scope.NEXTHOP
        )


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO"])
async def test_a_host_that_says_nothing_is_told_of_in_words(verb: str) -> None:
    async with ScriptedHost({verb: STALL}) as host:
        outcome = await deliver(host, timeouts=Timeouts(command=0.1))
        assert isinstance(outcome, Deferred)
        assert outcome.scope is Scope.NEXTHOP
        assert outcome.reply.text.endswith(": no answer in time")
        assert "cannot connect" not in outcome.reply.text  # it could


@pytest.mark.parametrize("how", [DROP, RESET])
async def test_a_lost_answer_to_the_final_dot_is_in_doubt_for_those_that_were_accepted(how: str) -> None:
    async with ScriptedHost({".": how, "RCPT c@example.org": "550 5.1.1 Nobody"}) as host:
        b, c = await deliver(host, "b@example.org", "c@example.org")
        assert isinstance(b, Deferred)
        assert (b.ambiguous, b.scope) == (True, Scope.MESSAGE)
        assert type(c) is Failed
        assert len(host.messages) == 1


async def test_a_late_answer_to_the_final_dot_is_in_doubt() -> None:
    async with ScriptedHost({".": STALL}) as host:
        outcome = await deliver(host, timeouts=Timeouts(final=0.1))
        assert isinstance(outcome, Deferred)
        assert outcome.ambiguous


@pytest.mark.parametrize("garbage", ["hello", "354 go on", "999 ?", "25"])
async def test_an_answer_to_the_final_dot_that_is_none_is_in_doubt(garbage: str) -> None:
    async with ScriptedHost({".": garbage}) as host:
        outcome = await deliver(host)
        assert isinstance(outcome, Deferred)
        assert outcome.ambiguous


async def test_a_late_answer_before_it_is_not_in_doubt() -> None:
    async with ScriptedHost({"RCPT": STALL}) as host:
        outcome = await deliver(host, timeouts=Timeouts(command=0.1))
        assert isinstance(outcome, Deferred)
        assert (outcome.ambiguous, outcome.scope) == (False, Scope.NEXTHOP)


async def test_a_connection_lost_within_the_content_is_not_in_doubt_and_pauses_nobody_else() -> None:
    async with ScriptedHost({"CONTENT": RESET}, read_content=False) as host:
        outcome = await deliver(host, content=MUCH[:8_000_000])
        assert isinstance(outcome, Deferred)
        assert (outcome.ambiguous, outcome.scope, outcome.reason) == (False, Scope.MESSAGE, None)


async def test_a_refusal_within_the_content_is_read() -> None:
    async with ScriptedHost({"CONTENT": "552 5.3.4 Too big after all"}, read_content=False) as host:
        outcome = await deliver(host, content=MUCH)
        assert isinstance(outcome, Failed)
        assert str(outcome.reply) == "552 5.3.4 Too big after all"


async def test_a_host_that_stops_reading_is_left() -> None:
    async with ScriptedHost({"CONTENT": STALL}, read_content=False) as host:
        outcome = await deliver(host, content=MUCH, timeouts=Timeouts(block=0.1))
        assert isinstance(outcome, Deferred)
        assert not outcome.ambiguous


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO"])
async def test_a_relay_that_refuses_us_bounces_nothing(verb: str) -> None:
    async with ScriptedHost({verb: "554 5.7.1 Not you", "HELO": "554 5.7.1 Not you"}) as host:
        outcome = await deliver(host)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.CONFIGURATION)
        assert outcome.remedy


@pytest.mark.parametrize("reply", ["502 5.5.1 What?", "550 unknown command", "554 no list for you"])
async def test_a_host_that_knows_no_ehlo_gets_helo(reply: str) -> None:
    async with ScriptedHost({"EHLO": reply}) as host:
        assert isinstance(await deliver(host), Delivered)
        assert host.commands[0][1] == "HELO relay.example.com"
        assert host.said("MAIL") == ["MAIL FROM:<a@example.com>"]


async def test_nobody_there() -> None:
    out = transport(unused_port())
    message = batch()
    outcome = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason, outcome.reply.enhanced) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE, "4.4.1")


async def test_a_name_that_does_not_exist_defers() -> None:
    out = transport(25, hosts=["no-such-host.invalid"])
    message = batch()
    outcome = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.reason) == (Scope.NEXTHOP, PauseReason.UNAVAILABLE)


# --- what is said to hosts that offer more ---


async def test_parameters_go_where_they_are_offered() -> None:
    recipient = Recipient("b@example.org", frozenset({"DELAY", "SUCCESS"}), "rfc822;x+2By@example.org")
    message = batch(recipient, "c@example.org", ret="HDRS", envid="QQ+2B1", body="8BITMIME")
    async with ScriptedHost(offers=("SIZE 1000000", "8BITMIME", "DSN")) as host:
        out = transport(host)
        outcome = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
        assert isinstance(outcome, Delivered)
        assert outcome.dsn_passed_on
        assert host.said("MAIL") == [f"MAIL FROM:<a@example.com> SIZE={len(HELLO)} BODY=8BITMIME RET=HDRS ENVID=QQ+2B1"]
        assert host.said("RCPT") == [
            "RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@example.org",
            "RCPT TO:<c@example.org>",
        ]
        await out.close()
    long = batch(recipient, envid="Q" * 101)
    async with ScriptedHost(offers=("DSN",)) as host:
        out = transport(host)
        await out.deliver(long, Bytes())
        assert host.said("MAIL") == ["MAIL FROM:<a@example.com>"], "a host may refuse mail for an ENVID that is too long"
        await out.close()
    async with ScriptedHost(offers=()) as host:
        out = transport(host)
        outcome = by_address(message, await out.deliver(message, Bytes()))["b@example.org"]
        assert isinstance(outcome, Delivered)
        assert not outcome.dsn_passed_on
        assert host.said("MAIL") == ["MAIL FROM:<a@example.com>"]
        assert host.said("RCPT") == ["RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>"]
        await out.close()


EIGHT_BIT = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n".encode()
SIGNED = (
    b"Content-Type: multipart/signed; boundary=b; protocol=application/pkcs7-signature\r\n\r\n--b\r\n"
    b"Content-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\ncaf\xe9\r\n--b\r\n\r\nx\r\n--b--\r\n"
)


async def test_eight_bit_content_is_encoded_where_8bitmime_is_not_offered() -> None:
    async with ScriptedHost(offers=()) as host:
        outcome = await deliver(host, content=EIGHT_BIT)
        assert isinstance(outcome, Delivered)
        taken = host.messages[0].content
        assert taken.isascii()
        assert message_from_bytes(taken).get_payload(decode=True) == "Grüße\r\n".encode()
        assert outcome.trail.changes == ("encoded as base64 (8-bit octets)",)
    async with ScriptedHost(offers=("8BITMIME",)) as host:
        outcome = await deliver(host, content=EIGHT_BIT)
        assert (host.messages[0].content, outcome.trail.changes) == (EIGHT_BIT, ())
        assert host.said("MAIL") == ["MAIL FROM:<a@example.com> BODY=8BITMIME"]


async def test_what_is_under_a_seal_goes_as_it_is() -> None:
    async with ScriptedHost(offers=()) as host:
        outcome = await deliver(host, content=SIGNED)
        assert isinstance(outcome, Delivered)
        assert host.messages[0].content == SIGNED
        assert "left as it is: it is signed" in outcome.trail.changes[0]


async def test_a_long_line_of_who_signed_it_is_not_broken() -> None:
    content = b"DKIM-Signature: v=1; d=example.com\r\nSubject: x\r\n\r\n" + b"word " * 300 + b"\r\n"
    async with ScriptedHost(offers=("8BITMIME",)) as host:
        outcome = await deliver(host, content=content)
        assert (host.messages[0].content, outcome.trail.changes) == (content, ())


async def test_each_host_gets_what_it_can_take() -> None:
    async with (
        ScriptedHost({".": DROP, "MAIL": "421 4.3.2 Closing"}, offers=("8BITMIME",)) as first,
        ScriptedHost(address="127.0.0.2", port=first.port, offers=()) as second,
    ):
        outcome = await deliver(first, content=EIGHT_BIT, hosts=["127.0.0.1", "127.0.0.2"])
        assert isinstance(outcome, Delivered)
        assert first.said("MAIL") == ["MAIL FROM:<a@example.com> BODY=8BITMIME"]
        assert second.messages[0].content.isascii()


async def test_what_is_too_big_for_the_host_is_not_offered() -> None:
    async with ScriptedHost(offers=("SIZE 10",)) as host:
        outcome = await deliver(host)
        assert isinstance(outcome, Failed)
        assert (outcome.reply.enhanced, outcome.scope) == ("5.3.4", Scope.MESSAGE)
        assert host.said("MAIL") == []


async def test_size_0_is_no_limit() -> None:
    async with ScriptedHost(offers=("SIZE 0",)) as host:
        assert isinstance(await deliver(host), Delivered)


async def test_internationalised_mail_wants_smtputf8() -> None:
    message = batch("jörg@example.org", "b@bücher.example", "c@example.org")
    async with ScriptedHost(offers=("SMTPUTF8", "8BITMIME")) as host:
        out = transport(host)
        assert {type(one) for one in (await out.deliver(message, Bytes())).values()} == {Delivered}
        assert host.said("MAIL") == ["MAIL FROM:<a@example.com> SMTPUTF8"]
        assert host.said("RCPT")[0] == "RCPT TO:<jörg@example.org>"
        await out.close()
    async with ScriptedHost(offers=("8BITMIME",)) as host:
        out = transport(host)
        found = by_address(message, await out.deliver(message, Bytes()))
        local_part = found["jörg@example.org"]
        assert isinstance(local_part, Failed)
        assert (local_part.reply.enhanced, local_part.scope) == ("5.6.7", Scope.RECIPIENT)
        assert type(found["b@bücher.example"]) is type(found["c@example.org"]) is Delivered
        assert host.said("RCPT") == ["RCPT TO:<b@xn--bcher-kva.example>", "RCPT TO:<c@example.org>"]
        await out.close()


@pytest.mark.parametrize(
    ("offers", "envelope", "said"),
    [
        (("DSN", "SMTPUTF8"), {"smtputf8": True}, "utf-8;jürg@example.org"),
        (("DSN", "SMTPUTF8"), {}, r"utf-8;j\x{FC}rg@example.org"),
        (("DSN",), {"smtputf8": True}, r"utf-8;j\x{FC}rg@example.org"),
    ],
    ids=["as it came", "in a transaction without SMTPUTF8", "to a host without SMTPUTF8"],
)
async def test_an_original_recipient_is_ascii_where_smtputf8_is_not_said(
    offers: tuple[str, ...], envelope: dict[str, Any], said: str
) -> None:
    message = batch(Recipient("b@example.org", orcpt="utf-8;jürg@example.org"), **envelope)
    async with ScriptedHost(offers=offers) as host:
        out = transport(host)
        assert {type(one) for one in (await out.deliver(message, Bytes())).values()} == {Delivered}
        assert host.said("RCPT") == [f"RCPT TO:<b@example.org> ORCPT={said}"]
        await out.close()


@pytest.mark.parametrize("message", [batch(sender="jörg@example.com"), batch(smtputf8=True)], ids=["sender", "header"])
@pytest.mark.parametrize("offers", [("8BITMIME",), ()])
async def test_a_message_that_needs_smtputf8_fails_where_it_is_not_offered(message: Any, offers: tuple[str, ...]) -> None:
    async with ScriptedHost(offers=offers) as host:
        out = transport(host)
        outcome = by_address(message, await out.deliver(message, Bytes("Subject: é\r\n\r\nx\r\n".encode())))["b@example.org"]
        assert isinstance(outcome, Failed)
        assert outcome.reply.enhanced == "5.6.7"
        assert host.said("MAIL") == []
        await out.close()


async def test_the_null_sender_and_quoted_local_parts_go_as_they_are() -> None:
    message = batch('"a b"@example.org', sender="", header_from=())
    async with ScriptedHost() as host:
        out = transport(host)
        await out.deliver(message, Bytes())
        assert host.said("MAIL") == ["MAIL FROM:<>"]
        assert host.said("RCPT") == ['RCPT TO:<"a b"@example.org>']
        await out.close()


# --- the sender, and where from ---


async def test_the_sender_is_rewritten_where_that_is_configured_only() -> None:
    for option, sender in ((None, "a@example.com"), ("relay@example.net", "relay@example.net")):
        async with ScriptedHost() as host:
            outcome = await deliver(host, "b@example.org", "c@example.org", rewrite_sender=option)
            assert host.said("MAIL") == [f"MAIL FROM:<{sender}>"]
            receipt = f"envelope sender {option} instead of a@example.com"
            assert [one.trail.changes for one in outcome] == [(receipt,) if option else ()] * 2
            assert host.messages[0].content == HELLO


async def test_a_bounce_has_no_sender_to_rewrite() -> None:
    async with ScriptedHost() as host:
        out = transport(host, rewrite_sender="relay@example.net")
        outcome = by_address(message := batch(sender="", header_from=()), await out.deliver(message, Bytes()))["b@example.org"]
        assert host.said("MAIL") == ["MAIL FROM:<>"]
        assert outcome.trail.changes == ()
        await out.close()


async def test_from_the_source_address() -> None:
    async with ScriptedHost() as host:
        assert isinstance(await deliver(host, source_address="127.0.0.3"), Delivered)
        assert host.peers == ["127.0.0.3"]


# --- kept connections ---


async def send(out: SmtpTransport, times: int = 1) -> list[type]:
    kinds = []
    for _ in range(times):
        message = batch()
        kinds.append(type(by_address(message, await out.deliver(message, Bytes()))["b@example.org"]))
    return kinds


async def test_a_connection_is_kept_for_the_next_message() -> None:
    async with ScriptedHost() as host:
        out = transport(host)
        assert await send(out, 3) == [Delivered] * 3
        assert host.connections == 1
        await out.close()
        await eventually(lambda: host.commands[0][-1] == "QUIT")


async def test_a_kept_connection_serves_only_so_many_messages_and_so_long() -> None:
    clock = FakeClock()
    async with ScriptedHost() as host:
        out = transport(host, clock, keeping=Keeping(messages=2, age=100.0))
        await send(out, 3)
        assert host.connections == 2
        clock.advance(101.0)
        await send(out)
        assert host.connections == 3
        await out.close()


async def test_an_idle_connection_is_left() -> None:
    async with ScriptedHost() as host:
        out = transport(host, keeping=Keeping(idle=0.02))
        await send(out)
        await eventually(lambda: host.commands[0][-1] == "QUIT")
        assert await send(out) == [Delivered]
        assert host.connections == 2
        await out.close()


async def test_concurrent_messages_have_a_connection_each() -> None:
    async with ScriptedHost() as host:
        out = transport(host)
        assert await asyncio.gather(*(send(out) for _ in range(5))) == [[Delivered]] * 5
        assert host.connections == 5
        assert await asyncio.gather(*(send(out) for _ in range(5))) == [[Delivered]] * 5
        assert host.connections == 5
        await out.close()


@pytest.mark.parametrize("how", [DROP, "421 4.4.2 Idle for too long"])
async def test_a_stale_connection_is_replaced_once(how: str) -> None:
    async with ScriptedHost({"MAIL": ["250 Ok", how, "250 Ok"]}) as host:
        out = transport(host)
        assert await send(out, 2) == [Delivered, Delivered]
        assert host.connections == 2
        await out.close()


@pytest.mark.parametrize("reply", ["550 5.7.0 One message a connection", "503 Sender already given"])
async def test_a_refusal_over_a_kept_connection_is_heard_over_a_new_one_too(reply: str) -> None:
    async with ScriptedHost({"MAIL": ["250 Ok", reply, "250 Ok", reply]}) as host:
        out = transport(host)
        assert await send(out, 3) == [Delivered, Delivered, Failed]
        assert [session.count("MAIL FROM:<a@example.com>") for session in host.commands] == [2, 2, 1]
        await out.close()


async def test_a_connection_is_not_kept_that_had_enough_after_a_message() -> None:
    replies: dict[str, Any] = {"MAIL": ["250 Ok", "451 4.7.0 Too many messages in this session", "250 Ok"]}
    async with ScriptedHost(replies, offers=("8BITMIME",)) as host:
        out = transport(host)
        assert await send(out, 3) == [Delivered, Deferred, Delivered]
        assert host.connections == 2
        await out.close()


async def test_a_kept_connection_that_the_host_closed_is_not_used() -> None:
    async with ScriptedHost() as host:
        out = transport(host)
        await send(out)
        host.drop_all()
        assert await send(out) == [Delivered]
        await out.close()


async def test_what_was_accepted_in_part_is_not_repeated_at_once() -> None:
    async with ScriptedHost({"RCPT": ["250 Ok", DROP, "250 Ok"]}) as host:
        out = transport(host)
        assert await send(out, 2) == [Delivered, Deferred]
        assert host.connections == 1
        await out.close()


async def test_nothing_in_doubt_is_repeated_at_once() -> None:
    async with ScriptedHost({".": ["250 Ok", DROP, "250 Ok"]}) as host:
        out = transport(host)
        assert await send(out, 2) == [Delivered, Deferred]
        assert len(host.messages) == 2
        await out.close()


# --- several hosts ---


async def test_the_next_host_is_tried_where_the_first_is_down() -> None:
    clock = FakeClock()
    async with ScriptedHost(address="127.0.0.2") as second:
        out = transport(second, clock, hosts=["127.0.0.1", "127.0.0.2"])
        assert await send(out) == [Delivered]
        async with ScriptedHost(port=second.port) as first:
            assert await send(out) == [Delivered]
            assert first.connections == 0  # remembered as down
            clock.advance(61.0)
            assert await send(out) == [Delivered]
            assert first.connections == 1
        await out.close()


async def test_the_next_host_is_tried_where_the_first_is_closing() -> None:
    async with (
        ScriptedHost({"MAIL": "421 4.3.2 Closing"}, address="127.0.0.1") as first,
        ScriptedHost(address="127.0.0.2", port=first.port) as second,
    ):
        out = transport(first, hosts=["127.0.0.1", "127.0.0.2"])
        assert await send(out) == [Delivered]
        assert len(second.messages) == 1
        await out.close()


async def test_no_other_host_is_tried_in_doubt_or_after_an_answer() -> None:
    async with (
        ScriptedHost({".": [DROP, "451 4.3.0 Later"]}) as first,
        ScriptedHost(address="127.0.0.2", port=first.port) as second,
    ):
        out = transport(first, hosts=["127.0.0.1", "127.0.0.2"])
        assert await send(out, 2) == [Deferred, Deferred]
        assert second.connections == 0
        await out.close()


# --- cancelled, closed ---


async def test_a_cancelled_attempt_leaves_no_connection_behind() -> None:
    async with ScriptedHost({"RCPT": STALL}) as host:
        out = transport(host)
        task = asyncio.create_task(out.deliver(batch(), Bytes()))
        await eventually(lambda: bool(host.said("RCPT")))
        task.cancel()
        assert set((await task).values()) == {CUT}
        host.replies.clear()
        assert await send(out) == [Delivered]
        assert host.connections == 2
        await out.close()


async def test_what_comes_back_after_closing_is_left() -> None:
    async with ScriptedHost() as host:
        out = transport(host)
        await out.close()
        assert await send(out) == [Delivered]
        await eventually(lambda: host.commands[0][-1] == "QUIT")


# --- SES ---


async def test_ses_texts_count_only_at_ses() -> None:
    reply = "554 Message rejected: Email address is not verified. The following identities failed the check in region X-1: a@example.com"
    async with ScriptedHost({".": reply}) as host:
        assert isinstance(await deliver(host), Failed)
        at_ses = await deliver(host, ses=True)
        assert isinstance(at_ses, Deferred)
        assert at_ses.scope is Scope.SENDER_DOMAIN


async def test_what_goes_to_ses_is_made_fit_for_it_first() -> None:
    dated = b"From: a@example.com\r\nDate: now\r\n"
    content = dated + b"X-SES-TENANT: t\r\nSubject: 1\r\nsubject: 2\r\nMessage-ID: <1@a>\r\n\r\n" + b"x" * 999 + b"\r\n"
    async with ScriptedHost() as host:
        taken = await deliver(host, content=content, ses=True)
        refused = await deliver(host, content=dated + "Cc: jürgen@x.example\r\n\r\n".encode(), ses=True)
        assert isinstance(taken, Delivered)
        assert isinstance(refused, Failed)
        (message,) = host.messages
    head, _, body = message.content.partition(b"\r\n\r\n")
    assert head.startswith(
        dated + b"Subject: 1\r\nMessage-ID: <1@a>\r\nReferences: <1@a>\r\nContent-Transfer-Encoding: quoted-printable"
    )
    assert body.replace(b"=\r\n", b"") == b"x" * 999 + b"\r\n"
    assert taken.trail.changes == (
        "removed X-SES-TENANT", "removed another subject, different from the first", "put Message-ID into References",
        "encoded as quoted-printable (a line over 998 octets)",
    )  # fmt: skip
    assert (refused.scope, refused.reply.enhanced) == (Scope.MESSAGE, "5.6.7")


async def test_ses_gets_the_header_from_for_the_null_sender_which_it_refuses() -> None:
    async with ScriptedHost() as host:
        for ses in (True, False):
            out = transport(host, ses=ses)
            message = batch(sender="", header_from=["mailer-daemon@example.com"])
            (outcome,) = (await out.deliver(message, Bytes(b"X-SES-TENANT: t\r\n" + HELLO))).values()
            assert outcome.trail.host == "127.0.0.1"
            await out.close()
        assert [each.mail for each in host.messages] == ["MAIL FROM:<mailer-daemon@example.com>", "MAIL FROM:<>"]


async def test_content_that_cannot_be_read_for_ses_waits() -> None:
    async with ScriptedHost() as host:
        out = transport(host, ses=True)
        (outcome,) = (await out.deliver(batch(), Unreadable(SpoolError("gone")))).values()
        await out.close()
    assert isinstance(outcome, Deferred)
    assert (outcome.reply.code, outcome.scope) == (451, Scope.MESSAGE)


async def test_a_fault_of_ours_leaves_those_who_were_served_their_receipts() -> None:
    async def half(sent: Batch, _content: Content) -> Mapping[DeliveryId, Outcome]:
        raise Interrupted({sent.deliveries[0].id: Delivered(Reply(250, "2.0.0", "Ok"))}) from KeyError("a bug")

    message = batch("b@example.org", "c@example.org")
    with pytest.raises(Interrupted) as raised:
        await shaped_first(message, Bytes(b"Bcc: x@example.org\r\n" + HELLO), half, Shaping())
    ((of, outcome),) = raised.value.known.items()
    assert (of, type(raised.value.__cause__)) == (message.deliveries[0].id, KeyError)
    assert any("Bcc" in change for change in outcome.trail.changes)


def test_names_and_secrets() -> None:
    options = SmtpOptions(
        hosts=["email-smtp.us-east-1.amazonaws.com", "x.test"], local_hostname="h.test", username="AKIA1", password="canary"
    )
    out = SmtpTransport("ses", options, FakeClock())
    assert out.nexthop("b@example.org") == "smtp/email-smtp.us-east-1.amazonaws.com:587/AKIA1"
    assert "canary" not in repr(options)
    assert "canary" not in repr(vars(out))
    with pytest.raises(ValueError, match="has no host"):
        SmtpTransport("none", SmtpOptions(hosts=[], local_hostname="h.test"), FakeClock())
