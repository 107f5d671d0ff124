"""SES by SMTP as the engine sees it: the account's pace, and one bad recipient among many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from batches import HELLO, Bytes, batch
from fakes import FakeClock
from ses_world import Figures
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId, Priority
from sesrelay.mail.envelope import Message
from sesrelay.mail.outcome import NO_TRAIL, Deferred, Delivered, Failed, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.ses_hosts import region_of
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Content, Interrupted
from sesrelay.transport.client.answers import Answer, Stage, from_relay
from sesrelay.transport.client.connect import parse_reply
from sesrelay.transport.hold import HoldTransport
from sesrelay.transport.ses.account import Accounts
from sesrelay.transport.smtp.paced import PacedSmtp
from sesrelay.transport.smtp.ses_answers import from_ses

TAKEN = "250 Ok 0100018f5a5f2f2e-1c1c1c1c-0000"
NOT_VERIFIED = (
    "554 Message rejected: Email address is not verified. The following identities failed the check in region US-EAST-1: "
)


@dataclass
class Endpoint(HoldTransport):
    """SES's SMTP endpoint on paper: answers a transaction by its recipients, through the table that reads real answers."""

    name: str = "ses-smtp"
    answer: Callable[[Sequence[str]], str] = lambda _: TAKEN
    offered: list[tuple[str, ...]] = field(default_factory=list)
    refused_at_rcpt: frozenset[str] = frozenset()

    async def deliver(self, batch: Batch, content: Content) -> Mapping[DeliveryId, Outcome]:
        addresses = tuple(delivery.recipient.address for delivery in batch.deliveries)
        self.offered.append(addresses)
        said = self.answer(addresses)
        if said == "lost":
            answer = Answer(Stage.DOT, Reply(451, "4.4.2", "the connection went"), lost=True)
        else:
            answer = Answer(Stage.DOT, parse_reply(int(said[:3]), said[4:]))

        rcpt = Answer(Stage.RCPT, parse_reply(501, "Invalid RCPT TO address provided"))

        def outcome(delivery: Delivery) -> Outcome:
            if delivery.recipient.address in self.refused_at_rcpt:
                return from_relay(rcpt, "ses", NO_TRAIL)
            return from_ses(answer, delivery, NO_TRAIL) or from_relay(answer, "ses", NO_TRAIL)

        return {delivery.id: outcome(delivery) for delivery in batch.deliveries}


def made(answer: Callable[[Sequence[str]], str], clock: FakeClock | None = None, rate: float | str = "auto") -> PacedSmtp:
    ledger = Accounts(clock or FakeClock()).ledger("us-east-1", "AKIAX")
    return PacedSmtp(Endpoint(answer=answer), ledger, rate, "us-east-1")


async def send(way: PacedSmtp, *to: str) -> list[Outcome]:
    sent = batch(*to)
    outcomes = await way.deliver(sent, Bytes(HELLO))
    return [outcomes[delivery.id] for delivery in sent.deliveries]


def offered(way: PacedSmtp) -> list[tuple[str, ...]]:
    assert isinstance(way.inner, Endpoint)
    return way.inner.offered


async def test_a_fault_of_ours_puts_nobody_in_doubt_who_was_served() -> None:
    def answer(to: Sequence[str]) -> str:
        if len(to) == 2:
            return TAKEN
        if len(to) < 4:
            raise KeyError("a bug")
        return "554 Transaction failed: Local address contains dot-dot"

    way = made(answer)
    sent = batch(*(f"r{n}@example.org" for n in range(5)))
    with pytest.raises(Interrupted) as raised:
        await way.deliver(sent, Bytes(HELLO))
    assert isinstance(raised.value.__cause__, KeyError)
    assert offered(way) == [tuple(f"r{n}@example.org" for n in part) for part in (range(5), range(2), range(2, 5))]
    assert {of.n: type(one) for of, one in raised.value.known.items()} == {0: Delivered, 1: Delivered}


async def test_a_cut_puts_nobody_in_doubt_who_was_served_or_whose_turn_had_not_come() -> None:
    def answer(to: Sequence[str]) -> str:
        if len(to) == 2:
            raise asyncio.CancelledError
        return TAKEN if to[0] == "r0@example.org" and len(to) == 4 else "554 Transaction failed: Local address contains dot-dot"

    way = made(answer)
    with pytest.raises(Interrupted) as raised:
        await way.deliver(batch(*(f"r{n}@example.org" for n in range(8))), Bytes(HELLO))
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    known = {of.n: outcome for of, outcome in raised.value.known.items()}
    assert [type(known[n]) for n in range(4)] == [Delivered] * 4
    assert {n: outcome for n, outcome in known.items() if n > 3} == {6: CUT, 7: CUT}


async def test_a_time_out_that_nobody_foresaw_is_no_cut() -> None:
    def answer(to: Sequence[str]) -> str:
        if len(to) < 4:
            raise TimeoutError from asyncio.CancelledError()  # as asyncio.timeout does
        return "554 Transaction failed: Local address contains dot-dot"

    with pytest.raises(Interrupted) as raised:
        await made(answer).deliver(batch(*(f"r{n}@example.org" for n in range(4))), Bytes(HELLO))
    assert isinstance(raised.value.__cause__, TimeoutError)
    assert not raised.value.known, "what is cut goes again at once: over and over"


@pytest.mark.parametrize("comes", [KeyError("a bug"), asyncio.CancelledError()], ids=["a fault", "a cut"])
async def test_what_comes_between_changes_nothing_for_who_was_refused_for_his_own_address(comes: BaseException) -> None:
    bad = "a..b@example.org"

    def answer(to: Sequence[str]) -> str:
        if bad not in to:
            raise comes
        return f"554 Transaction failed: Illegal address: {bad}"

    way = made(answer)
    with pytest.raises(Interrupted) as raised:
        await way.deliver(batch("r0@example.org", bad, "r2@example.org"), Bytes(HELLO))
    ((of, outcome),) = raised.value.known.items()
    assert (of.n, type(outcome), outcome.scope) == (1, Failed, Scope.RECIPIENT), "the others may have it"


@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("named", [False, True])
async def test_one_bad_address_fails_and_the_others_go(n: int, named: bool) -> None:
    bad = "a..b@example.org"
    text = f"554 Transaction failed: Illegal address: {bad}" if named else "554 Transaction failed: Local address contains dot-dot"
    way = made(lambda to: text if bad in to else TAKEN)
    to = [f"r{i}@example.org" for i in range(n - 1)]
    to.insert(n // 2, bad)
    outcomes = await send(way, *to)
    for address, outcome in zip(to, outcomes, strict=True):
        assert isinstance(outcome, Failed if address == bad else Delivered)
        if isinstance(outcome, Failed):
            assert outcome.scope is Scope.RECIPIENT
    assert len(offered(way)) <= (2 if named else 13)
    taken = [address for group in offered(way) if bad not in group for address in group]
    assert sorted(taken) == sorted(set(to) - {bad})


async def test_a_bad_address_is_found_whatever_its_name() -> None:
    bad = "b@header..example"
    way = made(lambda to: "554 Transaction failed: Invalid domain name: 'header..example'" if bad in to else TAKEN)
    outcomes = await send(way, "a@example.org", bad, "c@example.org")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered]


async def test_a_domain_is_known_in_the_form_that_ses_was_given() -> None:
    bad = "B@Bücher.example"
    way = made(lambda to: "554 Transaction failed: Illegal address: b@xn--bcher-kva.example" if bad in to else TAKEN)
    outcomes = await send(way, "a@example.org", bad, "c@example.org")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered]
    assert len(offered(way)) == 2


async def test_an_answer_about_the_sender_or_a_header_fails_the_message_at_once() -> None:
    for text in ("554 Transaction failed: Illegal address a@example.com", "554 Transaction failed: Duplicate header 'From'."):
        way = made(lambda _, text=text: text)
        for outcome in await send(way, "b@example.org", "c@example.org"):
            assert isinstance(outcome, Failed)
            assert outcome.scope is Scope.MESSAGE
        assert len(offered(way)) == 1


@pytest.mark.parametrize("n", [1, 2, 7, 50])
async def test_an_address_in_the_header_is_no_recipients_fault_and_costs_few_transactions(n: int) -> None:
    way = made(lambda _: "554 Transaction failed: Missing final '@domain'")
    for outcome in await send(way, *(f"r{i}@example.org" for i in range(n))):
        assert isinstance(outcome, Failed)
        assert outcome.scope is Scope.MESSAGE
    assert len(offered(way)) <= min(n + 1, 5)


async def test_a_recipient_whose_address_is_within_another_is_not_named() -> None:
    bad = '"c@example.org"@example.net'
    text = f"554 Transaction failed: Address contains illegal characters in user name: '<{bad}>'."
    way = made(lambda to: text if bad in to else TAKEN)
    outcomes = await send(way, bad, "c@example.org", "d@example.org")
    assert [type(outcome) for outcome in outcomes] == [Failed, Delivered, Delivered]
    assert offered(way)[1:] == [("c@example.org", "d@example.org")]


async def test_a_recipient_that_ses_has_on_a_list_of_its_own_fails_alone() -> None:
    kept: list[str] = []

    async def keep(message: Message, content: Content) -> None:
        kept.append(message.id)

    way = made(lambda to: "554 Message rejected: Address blacklisted." if "b@example.org" in to else TAKEN)
    way.keep = keep
    outcomes = await send(way, "a@example.org", "b@example.org", "c@example.org", "d@example.org")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered, Delivered]
    assert not kept


async def test_what_stops_a_search_stops_those_who_were_refused_together() -> None:
    answers = iter(["554 Transaction failed: Domain contains dot-dot"] * 2 + ["lost"])
    way = made(lambda _: next(answers))
    outcomes = await send(way, *(f"r{i}@example.org" for i in range(4)))
    assert all(isinstance(outcome, Deferred) for outcome in outcomes)
    assert [isinstance(outcome, Deferred) and outcome.ambiguous for outcome in outcomes] == [False, False, True, True]


@pytest.mark.parametrize("then", ["Illegal address a@example.com", "Duplicate header 'From'."])
async def test_an_answer_about_the_message_in_the_middle_of_a_search_ends_it(then: str) -> None:
    answers = iter(["Domain contains dot-dot", "Domain contains dot-dot", then])
    way = made(lambda _: f"554 Transaction failed: {next(answers)}")
    for outcome in await send(way, *(f"r{i}@example.org" for i in range(8))):
        assert isinstance(outcome, Failed)
        assert outcome.scope is Scope.MESSAGE


async def test_one_who_is_refused_at_rcpt_does_not_keep_the_bad_one_from_being_found() -> None:
    way = made(lambda to: "554 Transaction failed: Domain contains dot-dot" if "c@example..org" in to else TAKEN)
    assert isinstance(way.inner, Endpoint)
    way.inner.refused_at_rcpt = frozenset({"b@example.org"})
    outcomes = await send(way, "a@example.org", "b@example.org", "c@example..org", "d@example.org")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Failed, Delivered]
    assert [to for to in offered(way)[1:] if "b@example.org" in to] == []


async def test_a_passing_trouble_of_one_half_is_no_verdict_on_the_other() -> None:
    to = ["a@example.org", "b@example.org", "c@example.org", "d@example.org"]

    def answer(offered: Sequence[str]) -> str:
        if to[0] in offered:
            return "554 Transaction failed: Domain contains dot-dot"
        return "451 Timeout waiting for data from client" if to[2] in offered else TAKEN

    outcomes = await send(made(answer), *to)
    assert [type(outcome) for outcome in outcomes] == [Failed, Delivered, Deferred, Deferred]


async def test_in_the_sandbox_the_verified_go_at_once() -> None:
    way = made(lambda to: NOT_VERIFIED + "b@example.org" if "b@example.org" in to else TAKEN)
    failed, taken = await send(way, "b@example.org", "c@example.org")
    assert isinstance(failed, Failed)
    assert isinstance(taken, Delivered)
    assert offered(way) == [("b@example.org", "c@example.org"), ("c@example.org",)]


@pytest.mark.parametrize("then", ["lost", "454 Throttling failure: Maximum sending rate exceeded."])
async def test_what_stops_a_part_stops_the_rest(then: str) -> None:
    def answer(to: Sequence[str]) -> str:
        return "554 Transaction failed: Domain contains dot-dot" if len(to) == 4 else then

    way = made(answer)
    outcomes = await send(way, "a@b..c", "b@example.org", "c@example.org", "d@example.org")
    assert len(offered(way)) == 2
    ambiguous = [isinstance(outcome, Deferred) and outcome.ambiguous for outcome in outcomes]
    assert ambiguous == [then == "lost"] * 2 + [False] * 2
    assert all(isinstance(outcome, Deferred) for outcome in outcomes)


async def test_the_account_learns_what_was_taken_and_that_it_was_too_fast() -> None:
    clock = FakeClock()
    answers = iter([TAKEN, "454 Throttling failure: Maximum sending rate exceeded."])
    way = made(lambda _: next(answers), clock)
    ledger = way.ledger
    await send(way, "b@example.org", "c@example.org")
    assert ledger.window.spent == 2  # type: ignore[attr-defined]
    assert way.pace(1, clock.monotonic()) == 0.0
    assert way.pace(1, clock.monotonic()) == pytest.approx(1 / (14 * 0.99))
    (throttled,) = await send(way, "b@example.org")
    assert isinstance(throttled, Deferred)
    assert (throttled.reason, throttled.tolerance) == (PauseReason.THROTTLED, 3)
    assert way.pace(1, clock.monotonic()) >= 1 / (14 * 0.7)


async def test_urgent_mail_has_the_rest_of_a_quota_while_that_is_known() -> None:
    clock = FakeClock()
    way = made(lambda _: TAKEN, clock)
    way.ledger.told(Figures(14.0, 200.0, 185.0), 0)  # type: ignore[attr-defined]
    assert way.pace(1, clock.monotonic()) == 60.0
    assert way.reserved_since() == clock.wall()
    assert way.pace(1, clock.monotonic(), Priority.HIGH) == 0.0
    clock.advance(901.0)  # the transport that asked is gone: the window has moved on, and nobody has seen how far
    assert way.pace(1, clock.monotonic()) == 0.0
    assert way.reserved_since() is None


async def test_a_rate_of_ones_own_goes_for_any_relay() -> None:
    clock = FakeClock()
    way = PacedSmtp(
        Endpoint(answer=lambda _: "554 Transaction failed: Illegal address"), made(lambda _: TAKEN, clock).ledger, 2.0, None
    )
    assert way.pace(1, clock.monotonic()) == 0.0
    assert way.pace(1, clock.monotonic()) == pytest.approx(1 / 1.98)
    way.give_back(1)
    assert way.pace(1, clock.monotonic()) == 0.0
    assert isinstance((await send(way, "b@example.org", "c@example.org"))[0], Failed)
    assert len(offered(way)) == 1


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("email-smtp.us-east-1.amazonaws.com", "us-east-1"), ("email-smtp-fips.US-GOV-west-1.amazonaws.com", "us-gov-west-1"),
        ("email-smtp.cn-north-1.amazonaws.com.cn.", "cn-north-1"), ("email-smtp.eu-west-1.api.aws", "eu-west-1"),
        ("vpce-0a1b-c2d3.email-smtp.eu-central-1.vpce.amazonaws.com", "eu-central-1"), ("smtp.example.com", None),
        ("email-smtp.us-east-1.amazonaws.com.evil.org", None), ("email-smtp.us-east-1.amazonawsxcom", None),
        ("email-smtp.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"), ("email-smtp.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"),
        ("email-smtp-fips.us-isob-east-1.sc2s.sgov.gov.", "us-isob-east-1"),
    ],
)  # fmt: skip
def test_the_region_is_read_from_the_hosts_name(host: str, region: str | None) -> None:
    assert region_of(host) == region
