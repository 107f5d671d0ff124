"""SES by SMTP against a host of its very name: found in the DNS, shown by its certificate, and strict as SES is."""

from __future__ import annotations

import asyncio
import base64
import smtplib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from batches import Bytes, batch
from fakes import FakeClock
from ses_world import Figures, message
from sesrelay.aws.smtp_password import derive
from sesrelay.mail.envelope import Message
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Outcome, PauseReason, Scope
from sesrelay.mail.reply import Reply
from sesrelay.policy.ses_senders import covered
from sesrelay.policy.ses_shape import Rules
from sesrelay.policy.stopping import CUT
from sesrelay.seams import Content
from sesrelay.testing import Account, Fault, SesServer, SesStandIn
from sesrelay.testing.ses_server import KEY, SECRET
from sesrelay.transport.hold import HoldTransport
from sesrelay.transport.ses.account import Accounts
from sesrelay.transport.smtp import for_ses
from sesrelay.transport.smtp.for_ses import Shaping
from sesrelay.transport.smtp.paced import PacedSmtp
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport
from small_dns import SmallDns

REGION = "eu-west-1"
HOST = f"email-smtp.{REGION}.amazonaws.com"
CA = trustme.CA()
RAW = message("From: a@example.com", "To: b@example.org", "Subject: s")


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return path


def certificate(name: str = HOST) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name).configure_cert(context)
    return context


@dataclass
class World:
    ses: SesStandIn
    dns: SmallDns
    way: PacedSmtp

    async def send(self, *to: str, raw: bytes = RAW, sender: str = "a@example.com") -> list[Outcome]:
        sent = batch(*to, sender=sender)
        outcomes = await self.way.deliver(sent, Bytes(raw))
        return [outcomes[delivery.id] for delivery in sent.deliveries]


@asynccontextmanager
async def world(
    ca_file: Path, *, tls: ssl.SSLContext | None = None, implicit: bool = False, **options: Any
) -> AsyncIterator[World]:
    account = Account(region=REGION, rate=1_000.0)
    async with (
        SesStandIn(account=account, keys={KEY: SECRET}, smtp_tls=tls or certificate(), smtp_implicit=implicit) as ses,
        SmallDns({(HOST, "A"): ["127.0.0.1"]}) as dns,
    ):
        chosen = {
            "hosts": [HOST], "port": ses.smtp_port, "tls": "implicit" if implicit else "required", "ca_file": ca_file,
            "username": KEY, "password": derive(SECRET, REGION), "nameservers": [dns.nameserver],
        } | options  # fmt: skip
        clock = FakeClock()
        inner = SmtpTransport("ses-smtp", SmtpOptions(local_hostname="relay.example.com", ses=True, **chosen), clock)
        yield World(ses, dns, PacedSmtp(inner, Accounts(clock).ledger(REGION, "account"), "auto", REGION))
        await inner.close()


@pytest.mark.parametrize("implicit", [False, True])
async def test_a_message_goes_there_by_name_under_tls_and_comes_back_with_its_id(ca_file: Path, implicit: bool) -> None:
    async with world(ca_file, implicit=implicit) as w:
        (outcome,) = await w.send("b@example.org")
        assert isinstance(outcome, Delivered)
        (taken,) = w.ses.journal
        assert outcome.remote_id == taken.message_id
        assert (taken.api, taken.source, taken.destinations) == ("smtp", "a@example.com", ("b@example.org",))
        assert outcome.trail.tls
        assert w.ses.smtp
        assert w.ses.smtp.logins == [(KEY, True)]
        assert {name for name, _, _ in w.dns.asked} == {HOST}


async def test_another_hosts_certificate_is_not_believed(ca_file: Path) -> None:
    async with world(ca_file, tls=certificate("mail.evil.example")) as w:
        (outcome,) = await w.send("b@example.org")
        assert isinstance(outcome, Deferred)
        assert (outcome.reason, outcome.ambiguous) == (PauseReason.UNAVAILABLE, False)
        assert "no TLS with email-smtp.eu-west-1.amazonaws.com" in outcome.reply.text
        assert w.ses.smtp
        assert w.ses.smtp.logins == []


async def test_a_name_that_is_not_found_is_no_fault_of_the_mail(ca_file: Path) -> None:
    async with world(ca_file) as w:
        w.dns.records.clear()
        (outcome,) = await w.send("b@example.org")
        assert isinstance(outcome, Deferred)
        assert outcome.reason is PauseReason.UNAVAILABLE


@pytest.mark.parametrize("given", [derive(SECRET, "us-east-1"), SECRET])
async def test_the_password_of_another_region_or_the_secret_itself_does_not_log_in(ca_file: Path, given: str) -> None:
    async with world(ca_file, password=given) as w:
        (outcome,) = await w.send("b@example.org")
        assert isinstance(outcome, Deferred)
        assert (outcome.reply.code, outcome.scope, outcome.reason) == (535, Scope.NEXTHOP, PauseReason.CREDENTIALS)
        assert "sesrelay smtp-password" in outcome.remedy


UNVERIFIED = "Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: "
NEXTHOP, SENDER, MESSAGE, RECIPIENT = Scope.NEXTHOP, Scope.SENDER_DOMAIN, Scope.MESSAGE, Scope.RECIPIENT
TWICE = message("From: a@example.com", "Subject: s", "Subject: t")
ANSWERS: list[tuple[dict[str, Any], type[Outcome], Scope, PauseReason | None, int, str]] = [
    ({"rate": 0.0001}, Deferred, NEXTHOP, PauseReason.THROTTLED, 454, "Throttling failure: Maximum sending rate exceeded."),
    ({"quota": 1}, Deferred, NEXTHOP, PauseReason.QUOTA, 454, "Throttling failure: Daily message quota exceeded."),
    ({"suspended": True}, Deferred, NEXTHOP, PauseReason.SUSPENDED, 554, "Message rejected: Sending suspended"),
    ({"verified": ["example.net"]}, Deferred, SENDER, PauseReason.CONFIGURATION, 554, "region EU-WEST-1: a@example.com"),
    ({"sandbox": True, "verified": ["example.com"]}, Failed, RECIPIENT, None, 554, "EU-WEST-1: b@example.org, c@example.org"),
    ({"script": ["503"]}, Deferred, NEXTHOP, PauseReason.UNAVAILABLE, 454, "Temporary service failure"),
    ({"script": [{"name": "error", "status": 454, "text": "no idea"}]}, Deferred, MESSAGE, None, 454, "no idea"),
    ({"script": [{"name": "error", "status": 554, "text": "Message rejected: virus"}]}, Failed, MESSAGE, None, 554, "virus"),
]  # fmt: skip


@pytest.mark.parametrize(("wishes", "kind", "scope", "reason", "code", "text"), ANSWERS, ids=[str(one[0]) for one in ANSWERS])
async def test_each_refusal_means_by_smtp_what_it_means_by_the_api(
    ca_file: Path, wishes: dict[str, Any], kind: type[Outcome], scope: Scope, reason: PauseReason | None, code: int, text: str
) -> None:
    async with world(ca_file) as w:
        w.ses.control(wishes)
        if "rate" in wishes:
            w.ses.account.bucket.rate = wishes["rate"]
            w.ses.account.bucket.take(1)
        outcomes = await w.send("b@example.org", "c@example.org")
        for outcome in outcomes:
            assert isinstance(outcome, Deferred | Failed)
            assert (type(outcome), outcome.scope, outcome.reply.code) == (kind, scope, code)
            assert text in outcome.reply.text
            assert getattr(outcome, "reason", None) is reason
        assert w.ses.journal == []


async def test_a_lost_answer_is_a_doubt_and_nothing_is_repeated(ca_file: Path) -> None:
    async with world(ca_file) as w:
        w.ses.fail("reset_after")
        (outcome,) = await w.send("b@example.org")
        assert isinstance(outcome, Deferred)
        assert outcome.ambiguous
        assert [taken.fault for taken in w.ses.journal] == ["reset_after"]


async def test_one_bad_address_among_fifty_bounces_and_a_duplicate_header_never_gets_there(ca_file: Path) -> None:
    async with world(ca_file) as w:
        to = [f"r{n}@example.org" for n in range(49)]
        *good, bad = await w.send(*to, "a..b@example.org", raw=TWICE)
        assert isinstance(bad, Failed)
        assert all(isinstance(outcome, Delivered) for outcome in good)
        assert sorted(address for taken in w.ses.journal for address in taken.destinations) == sorted(to)
        assert all(taken.message.get_all("Subject") == ["s"] for taken in w.ses.journal)


@pytest.mark.parametrize(
    "text", ["Duplicate header 'X-New'.", "The message contains more than one X-New header", "Duplicate header"]
)
async def test_a_header_that_ses_takes_once_and_nobody_knew_of_is_repaired_once(ca_file: Path, text: str) -> None:
    refusal = Fault("error", status=554, text=f"Transaction failed: {text}")
    async with world(ca_file) as w:
        w.ses.fail(refusal)
        (outcome,) = await w.send("b@example.org", raw=message("From: a@example.com", "X-New: 1", "x-new: 2", "Subject: s"))
        assert isinstance(outcome, Delivered)
        assert w.ses.journal[0].message.get_all("X-New") == ["1"]
        assert "removed another x-new, different from the first" in outcome.trail.changes
        w.ses.fail(refusal)
        (outcome,) = await w.send("b@example.org")
        assert isinstance(outcome, Failed)


async def test_what_ses_rejects_is_kept_and_nothing_else(ca_file: Path) -> None:
    kept: list[str] = []

    async def keep(message: Message, content: Content) -> None:
        kept.append(message.id)

    async with world(ca_file) as w:
        w.way.keep = keep
        for text in ("Message rejected: virus", "Transaction failed: Illegal header", UNVERIFIED + "b@example.org"):
            w.ses.fail(Fault("error", status=554, text=text))
            await w.send("b@example.org")
        assert len(kept) == 1


async def test_smtp_and_api_spend_one_budget_in_one_account(ca_file: Path) -> None:
    async with world(ca_file) as w:
        ledger = w.way.ledger
        ledger.told(Figures(10.0, 100.0, 0.0), 0.0)  # type: ignore[attr-defined]
        assert w.way.pace(2, 0.0) == 0.0
        await w.send("b@example.org", "c@example.org")
        assert w.ses.account.sent_last_24h == ledger.window.sent == 2  # type: ignore[attr-defined]
        w.ses.fail("throttle")
        await w.send("b@example.org")
        assert ledger.governor("auto", 1.0).current == pytest.approx(7.0)  # type: ignore[attr-defined]


REWRITING = {"shaping": Shaping(Rules(rewrite_from="post@example.com"))}


async def test_who_is_not_verified_is_rewritten_once_ses_has_said_so(ca_file: Path) -> None:
    async with world(ca_file, **REWRITING) as w:
        w.ses.control({"verified": ["example.com"]})
        (outcome,) = await w.send(
            "b@example.org", raw=message("From: Ann <Ann@Shop.example>", "Subject: s"), sender="Ann@Shop.example"
        )
        assert isinstance(outcome, Delivered)
        (taken,) = w.ses.journal
        assert (taken.source, taken.message["From"]) == ("post@example.com", "Ann <post@example.com>")
        assert (taken.message["Reply-To"], taken.message["X-Original-From"]) == ("Ann <Ann@Shop.example>",) * 2
        assert "added Reply-To" in outcome.trail.changes
        assert dict(w.ses.refused) == {"MessageRejected": 1}


async def test_a_cut_while_it_is_rewritten_leaves_nobody_in_doubt(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, times, again = for_ses.shaped, 0, asyncio.Event()

    async def stalls_the_second_time(*args: Any) -> Any:
        nonlocal times
        times += 1
        if times == 2:
            again.set()
            await asyncio.Event().wait()
        return await shape(*args)

    monkeypatch.setattr(for_ses, "shaped", stalls_the_second_time)
    async with world(ca_file, **REWRITING) as w:
        w.ses.control({"verified": ["example.com"]})
        sending = asyncio.create_task(
            w.send("b@example.org", raw=message("From: a@shop.example", "Subject: s"), sender="a@shop.example")
        )
        await asyncio.wait_for(again.wait(), 10.0)
        sending.cancel()
        assert [outcome.reply for outcome in await sending] == [CUT.reply]


async def test_what_the_list_tells_beforehand_costs_no_refusal(ca_file: Path) -> None:
    shaping = Shaping(Rules(rewrite_from="post@example.com"), lambda address: covered(address, frozenset({"example.com"})))
    async with world(ca_file, shaping=shaping) as w:
        w.ses.control({"verified": ["example.com"]})
        (outcome,) = await w.send("b@example.org", raw=message("From: a@shop.example", "Subject: s"), sender="a@shop.example")
        assert isinstance(outcome, Delivered)
        assert dict(w.ses.refused) == {}


async def test_an_address_to_rewrite_to_that_is_not_verified_either_is_tried_once(ca_file: Path) -> None:
    async with world(ca_file, **REWRITING) as w:
        w.ses.control({"verified": ["example.net"]})
        (outcome,) = await w.send("b@example.org")
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (SENDER, PauseReason.CONFIGURATION)
        assert dict(w.ses.refused) == {"MessageRejected": 2}


async def test_a_foreign_sender_field_is_that_messages_fault(ca_file: Path) -> None:
    async with world(ca_file) as w:
        w.ses.control({"verified": ["example.com"]})
        (outcome,) = await w.send("b@example.org", raw=message("From: a@example.com", "Sender: c@elsewhere.example", "Subject: s"))
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason) == (MESSAGE, None)
        assert "`sesrelay domain add elsewhere.example --region eu-west-1`" in outcome.remedy


async def test_a_sender_of_the_machines_own_is_stood_in_for_and_no_sender_at_all_is_held(ca_file: Path) -> None:
    shaping = Shaping(local_domains=frozenset({"web1.internal"}))
    async with world(ca_file, shaping=shaping) as w:
        w.ses.control({"verified": ["example.com"]})
        await w.send("b@example.org", sender="www-data@web1.internal")
        await w.send("b@example.org", sender="")
        assert [taken.source for taken in w.ses.journal] == ["a@example.com"] * 2
        sent = batch("b@example.org", sender="", header_from=())
        (outcome,) = (await w.way.deliver(sent, Bytes(message("Subject: s")))).values()
        assert isinstance(outcome, Held)
        assert outcome.reason == "no_sender"


async def test_preflight_refuses_by_the_list_of_a_transport_with_keys() -> None:
    class Known:
        async def close(self) -> None: ...
        def start(self) -> None: ...

        def refusal(self, address: str, region: str) -> Reply | None:
            return Reply(550, "5.7.1", f"{address} {region}") if address.endswith("shop.example") else None

    ledger = Accounts(FakeClock()).ledger(REGION, "account")
    for preflight in (True, False):
        way = PacedSmtp(HoldTransport("smtp"), ledger, "auto", REGION, identities=Known(), preflight=preflight)
        assert way.refusal("a@example.com") is None
        assert (way.refusal("a@shop.example") is not None) is preflight


def test_the_stand_in_asks_for_tls_and_a_login_before_mail() -> None:
    with SesServer(smtp_tls=certificate()) as ses:
        with smtplib.SMTP("127.0.0.1", ses.ses.smtp_port) as client:
            client.ehlo("x")
            plain = base64.b64encode(f"\0{KEY}\0{derive(SECRET, 'us-east-1')}".encode()).decode()
            assert client.docmd("AUTH", f"PLAIN {plain}") == (530, b"Must issue a STARTTLS command first")
            assert client.docmd("MAIL", "FROM:<a@example.com>")[0] == 530
            context = ssl.create_default_context()
            CA.configure_trust(context)
            context.check_hostname = False
            client.starttls(context=context)
            client.ehlo("x")
            assert not client.has_extn("starttls")
            assert client.docmd("MAIL", "FROM:<a@example.com>") == (530, b"Authentication required")
            client.login(KEY, derive(SECRET, "us-east-1"))
            assert client.docmd("MAIL", "FROM:<>")[0] == 501
            ses.fail(Fault("slow", seconds=0.01))
            client.sendmail("a@example.com", ["b@example.org"], b"From: a@example.com\r\n\r\n.dot\r\n")
        assert ses.taken[0].raw == b"From: a@example.com\r\n\r\n.dot\r\n"
