"""More recipients than a host takes in one transaction, and the limits that hosts announce."""

from __future__ import annotations

from typing import Any

import pytest

from batches import Bytes, batch, by_address
from fakes import FakeClock
from scripted_host import DROP, ScriptedHost
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Outcome
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport
from small_dns import SmallDns

FIVE = [f"r{n}@example.org" for n in range(5)]
DNS = {("example.org", "MX"): ["10 mx.example.org."], ("mx.example.org", "A"): ["127.0.0.1"]}


async def offer(kind: str, host: ScriptedHost, times: int = 1) -> list[Outcome]:
    """Send a message to five recipients through either transport; return the last outcomes in their order."""
    async with SmallDns(dict(DNS)) as dns:
        out: Any
        if kind == "smtp":
            out = SmtpTransport("out", SmtpOptions(["127.0.0.1"], "relay.example.com", host.port), FakeClock())
        else:
            options = DirectOptions("relay.example.com", host.port, nameservers=[dns.nameserver], allow_private_addresses=True)
            out = DirectTransport("out", options, FakeClock())
        message = batch(*FIVE)
        for _ in range(times):
            found = by_address(message, await out.deliver(message, Bytes()))
        await out.close()
        return [found[one] for one in FIVE]


BOTH = pytest.mark.parametrize("kind", ["smtp", "direct"])


@BOTH
@pytest.mark.parametrize(
    "too_many", ["452 4.5.3 Too many recipients", "452 Too many", "552 Too many recipients", "552 5.5.3 No more"]
)
async def test_those_that_are_too_many_follow_in_the_next_transaction(kind: str, too_many: str) -> None:
    replies: dict[str, Any] = {
        "RCPT r2@example.org": [too_many, "250 Ok"],
        "RCPT r3@example.org": [too_many, "250 Ok"],
        "RCPT r4@example.org": [too_many, too_many, "250 Ok"],
    }
    async with ScriptedHost(replies) as host:
        assert [type(one) for one in await offer(kind, host)] == [Delivered] * 5
        assert [len(taken.rcpt) for taken in host.messages] == [2, 2, 1]
        assert host.connections == 1


@BOTH
async def test_a_full_mailbox_is_not_too_many(kind: str) -> None:
    replies: dict[str, Any] = {"RCPT r1@example.org": "452 4.2.2 Mailbox full", "RCPT r2@example.org": "552 5.2.2 Mailbox full"}
    async with ScriptedHost(replies) as host:
        assert [type(one) for one in await offer(kind, host)] == [Delivered, Deferred, Failed, Delivered, Delivered]
        assert len(host.messages) == 1


@BOTH
async def test_nobody_accepted_means_later(kind: str) -> None:
    async with ScriptedHost({"RCPT": "452 4.5.3 Too many recipients", "DATA": "554 5.5.1 No valid recipients"}) as host:
        assert [type(one) for one in await offer(kind, host)] == [Deferred] * 5
        assert host.said("DATA") == ["DATA"]


@BOTH
@pytest.mark.parametrize("end", [DROP, "554 5.6.0 Spam"])
async def test_what_was_not_taken_is_not_offered_again(kind: str, end: str) -> None:
    async with ScriptedHost({"RCPT r4@example.org": "452 4.5.3 Too many", ".": end}) as host:
        found = await offer(kind, host)
        assert len(host.said("MAIL")) == 1
        last = found[-1]
        assert isinstance(last, Deferred)
        assert not last.ambiguous
        assert {type(one) for one in found[:4]} == {Deferred if end == DROP else Failed}


@BOTH
@pytest.mark.parametrize("verb", ["MAIL", "RCPT r4@example.org", "DATA"])
async def test_a_host_lost_in_the_next_transaction_repeats_nothing(kind: str, verb: str) -> None:
    usual = {"MAIL": "250 Ok", "DATA": "354 Go on"}
    replies: dict[str, Any] = {"RCPT r4@example.org": ["452 4.5.3 Too many", "250 Ok"]}
    replies[verb] = ["452 4.5.3 Too many" if verb.startswith("RCPT") else usual[verb], DROP]
    async with ScriptedHost(replies) as host:
        found = await offer(kind, host)
        assert [type(one) for one in found] == [Delivered] * 4 + [Deferred]
        assert (host.connections, len(host.messages)) == (2 if verb == "MAIL" else 1, 1)


@BOTH
@pytest.mark.parametrize("reply", ["550 5.7.0 One message a connection", "503 Sender already given", "451 4.7.0 Later"])
async def test_a_host_that_wants_no_second_transaction_fails_nobody(kind: str, reply: str) -> None:
    async with ScriptedHost({"RCPT r4@example.org": "452 4.5.3 Too many", "MAIL": ["250 Ok", reply]}) as host:
        found = await offer(kind, host)
        assert [type(one) for one in found] == [Delivered] * 4 + [Deferred]
        assert found[-1].reply.code == 452


@BOTH
@pytest.mark.parametrize("reply", ["550 5.7.0 One message a connection", "451 4.7.0 Later", "421 4.7.0 Enough", DROP])
async def test_who_wants_one_transaction_a_connection_gets_more_connections(kind: str, reply: str) -> None:
    replies: dict[str, Any] = {"RCPT r4@example.org": ["452 4.5.3 Too many", "250 Ok"], "MAIL": ["250 Ok", reply, "250 Ok"]}
    async with ScriptedHost(replies) as host:
        assert [type(one) for one in await offer(kind, host)] == [Delivered] * 5
        assert ([len(taken.rcpt) for taken in host.messages], host.connections) == ([4, 1], 2)


@BOTH
@pytest.mark.parametrize("greeting", [DROP, "554 5.7.1 Not again"])
async def test_a_connection_that_cannot_be_had_changes_nothing_for_those_served(kind: str, greeting: str) -> None:
    replies: dict[str, Any] = {"CONNECT": ["220 Hello", greeting]}
    async with ScriptedHost(replies, offers=("PIPELINING", "LIMITS RCPTMAX=3 MAILMAX=1")) as host:
        assert [type(one) for one in await offer(kind, host)] == [Delivered] * 3 + [Deferred] * 2


@BOTH
async def test_the_limit_of_transactions_holds_for_those_that_are_too_many(kind: str) -> None:
    async with ScriptedHost(offers=("PIPELINING", "LIMITS RCPTMAX=1 MAILMAX=2")) as host:
        assert [type(one) for one in await offer(kind, host)] == [Delivered] * 5
        assert [len([line for line in session if line.startswith("MAIL")]) for session in host.commands] == [2, 2, 1]


@BOTH
async def test_recipients_that_are_refused_keep_nobody_from_being_offered(kind: str) -> None:
    replies: dict[str, Any] = {"RCPT r0@example.org": "452 4.2.2 Full", "RCPT r1@example.org": "550 5.1.1 Nobody"}
    async with ScriptedHost(replies, offers=("LIMITS RCPTMAX=2",)) as host:
        assert [type(one) for one in await offer(kind, host)] == [Deferred, Failed, Delivered, Delivered, Delivered]
        assert [len(taken.rcpt) for taken in host.messages] == [2, 1]


@BOTH
@pytest.mark.parametrize("verb", ["MAIL", "RSET"])
async def test_nor_does_a_host_that_ends_the_connection_after_them(kind: str, verb: str) -> None:
    replies: dict[str, Any] = {"RCPT r0@example.org": "452 4.2.2 Full", "RCPT r1@example.org": "550 5.1.1 Nobody"}
    replies[verb] = ["250 Ok", "421 4.7.0 Enough", "250 Ok"][verb == "RSET" :]
    async with ScriptedHost(replies, offers=("LIMITS RCPTMAX=2",)) as host:
        assert [type(one) for one in await offer(kind, host)] == [Deferred, Failed, Delivered, Delivered, Delivered]
        assert host.connections == 2


@BOTH
async def test_a_message_that_is_refused_is_not_offered_for_others(kind: str) -> None:
    async with ScriptedHost({".": "554 5.6.0 Spam"}, offers=("LIMITS RCPTMAX=2",)) as host:
        assert [type(one) for one in await offer(kind, host)] == [Failed] * 2 + [Deferred] * 3
        assert len(host.said("MAIL")) == 1


@BOTH
async def test_the_limit_of_recipients_that_a_host_announces(kind: str) -> None:
    async with ScriptedHost(offers=("PIPELINING", "LIMITS MAILMAX=20 RCPTMAX=2")) as host:
        assert [type(one) for one in await offer(kind, host)] == [Delivered] * 5
        assert [len(taken.rcpt) for taken in host.messages] == [2, 2, 1]


@BOTH
async def test_a_refusal_at_mail_is_for_those_that_were_not_offered_too(kind: str) -> None:
    async with ScriptedHost({"MAIL": "550 5.7.1 Not you"}, offers=("LIMITS RCPTMAX=2",)) as host:
        assert [type(one) for one in await offer(kind, host)] == [Failed] * 5


@BOTH
async def test_the_limit_of_transactions_that_a_host_announces(kind: str) -> None:
    async with ScriptedHost(offers=("LIMITS MAILMAX=2",)) as host:
        await offer(kind, host, times=5)
        assert (len(host.messages), host.connections) == (5, 3)
