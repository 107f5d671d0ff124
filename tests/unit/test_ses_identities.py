"""What the account has verified: fetched from either API, kept at hand, and refusing nobody that might be all right."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from batches import eventually
from engine_rig import OK, Rig, ScriptedTransport
from fakes import FakeClock
from ses_world import PaperSession, message, world
from sesrelay.aws.verified import fetch_identities
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail.envelope import Origin
from sesrelay.mail.outcome import Deferred, Delivered
from sesrelay.mail.reply import Reply
from sesrelay.testing.ses import SesStandIn
from sesrelay.transport.ses import identities as kept
from sesrelay.transport.ses.identities import Identities

DENIED = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "ListEmailIdentities")


# --- asking ---


class V2:
    def __init__(self, *pages: Any) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    def list_email_identities(self, **asked: Any) -> Any:
        self.asked.append(asked)
        page = self.pages[len(self.asked) - 1]
        if isinstance(page, Exception):
            raise page
        return page


class V1:
    def list_identities(self, **asked: Any) -> Any:
        return (
            {"Identities": ["c.example"]} if "NextToken" in asked else {"Identities": ["A.example", "b.example"], "NextToken": "t"}
        )

    def get_identity_verification_attributes(self, Identities: list[str]) -> Any:
        status = {"A.example": "Success", "b.example": "Pending", "c.example": "TemporaryFailure"}
        return {"VerificationAttributes": {name: {"VerificationStatus": status[name]} for name in Identities}}


def listed(name: str, status: str | None, sending: bool = True) -> dict[str, Any]:
    return {"IdentityName": name, "SendingEnabled": sending} | ({"VerificationStatus": status} if status else {})


def test_v2_gives_them_in_pages() -> None:
    v2: Any = V2(
        {"EmailIdentities": [listed("A.Example", "SUCCESS"), listed("b.example", "PENDING")], "NextToken": "more"},
        {"EmailIdentities": [listed("One@C.example", None), listed("d.example", None, False), listed("-", "SUCCESS")]},
    )
    assert fetch_identities(v2, None) == {"a.example", "one@c.example"}  # type: ignore[arg-type]
    assert [asked.get("NextToken") for asked in v2.asked] == [None, "more"]


def test_v1_is_asked_where_v2_may_not_be() -> None:
    v2: Any = V2(DENIED)
    v1: Any = V1()
    assert fetch_identities(v2, v1) == {"a.example", "c.example"}


def test_a_network_fault_is_no_answer() -> None:
    v2: Any = V2(EndpointConnectionError(endpoint_url="http://x"))
    with pytest.raises(EndpointConnectionError):
        fetch_identities(v2, V1())  # type: ignore[arg-type]


# --- keeping ---


class Source:
    """Answers with what `says` has, once `gate` is open."""

    def __init__(self, says: frozenset[str] | Exception) -> None:
        self.says = says
        self.asked = 0

    async def __call__(self) -> frozenset[str]:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


async def test_a_sender_is_refused_by_a_fresh_list_only_and_a_miss_looks_again() -> None:
    clock, source, troubles = FakeClock(), Source(frozenset({"a.example"})), list[Exception]()
    identities = Identities(source, clock, troubles.append)
    assert identities.refusal("x@b.example", "r") is None  # nothing is known yet
    identities.start()
    await eventually(lambda: identities.verified("x@a.example") is True)
    refused = identities.refusal("x@b.example", "eu-west-1")
    assert refused is not None
    assert str(refused).startswith("550 5.7.1 b.example is not a verified identity of the SES account in eu-west-1: verify it")
    assert identities.refusal("x@sub.a.example", "r") is None
    assert source.asked == 1  # the list is brand-new

    source.says = frozenset({"a.example", "b.example"})
    clock.advance(kept.LOOK_AGAIN + 1)
    assert identities.refusal("x@b.example", "r") is not None
    await eventually(lambda: identities.refusal("x@b.example", "r") is None)
    assert source.asked == 2

    clock.advance(kept.GOOD_FOR + 1)
    assert identities.verified("x@c.example") is None
    await identities.close()
    assert not troubles


def test_what_was_listed_before_a_reload_refuses_until_it_is_listed_anew() -> None:
    clock = FakeClock()
    before = frozenset({"a.example"}), clock.monotonic()
    clock.advance(kept.GOOD_FOR - 1)
    identities = Identities(Source(frozenset()), clock, list[Exception]().append, before)
    assert identities.refusal("x@b.example", "r") is not None
    assert identities.refusal("x@a.example", "r") is None
    clock.advance(2)
    assert identities.refusal("x@b.example", "r") is None


async def test_nobody_is_refused_while_the_list_cannot_be_fetched_and_that_is_said_once() -> None:
    clock, source, troubles = FakeClock(), Source(frozenset({"a.example"})), list[Exception]()
    identities = Identities(source, clock, troubles.append)
    identities.start()
    await eventually(lambda: source.asked == 1 and identities.verified("x@b.example") is False)
    source.says = RuntimeError("away")
    for asked in (2, 3):
        clock.advance(kept.LOOK_AGAIN + 1)
        identities._wanted.set()
        await eventually(lambda wanted=asked: source.asked == wanted and identities._known is None)
        assert identities.refusal("x@b.example", "r") is None
    assert len(troubles) == 1
    await identities.close()


# --- using ---


def snapshot_with(rig: Rig, preflights: dict[str, Any]) -> Snapshot:
    from dataclasses import replace

    return replace(rig.scheduler.snapshot, preflights=preflights)


async def test_mail_is_refused_where_no_transport_of_its_route_would_take_it() -> None:
    no = Reply(550, "5.7.1", "not verified")
    one, two = ScriptedTransport("one"), ScriptedTransport("two")
    rig = Rig(one, two, rules={"a.example": ("one",), "b.example": ("one", "two"), "c.example": ("two",)})
    refuses = lambda sender: None if sender.endswith("@ok.example") else no  # noqa: E731
    rig.scheduler.snapshot = snapshot_with(rig, {"one": refuses})
    ask = lambda sender: rig.acceptance.check_sender(sender, Origin())  # noqa: E731
    assert ask("x@a.example") == no
    assert ask("x@b.example") is None  # the other transport may take it
    assert ask("x@c.example") is None
    assert ask("x@ok.example") is None
    assert ask("") is None
    rig.scheduler.snapshot = snapshot_with(rig, {"one": refuses, "two": lambda _: None})
    assert ask("x@b.example") is None


async def test_the_header_from_is_looked_at_after_data() -> None:
    from sesrelay.mail.envelope import Envelope, Recipient
    from sesrelay.mail.lineends import Canonical

    no = Reply(550, "5.7.1", "not verified")
    rig = Rig(ScriptedTransport("one"))
    rig.scheduler.snapshot = snapshot_with(rig, {"one": lambda sender: None if sender.endswith("ok.example") else no})
    envelope = Envelope("x@ok.example", (Recipient("b@example.org"),))
    content = Canonical(b"From: y@other.example\r\n\r\nBody\r\n")
    assert await rig.acceptance.submit(envelope, content, Origin()) == no
    assert (await rig.acceptance.submit(envelope, Canonical(content.replace(b"other", b"ok")), Origin())).code == OK.code


class Knowing(PaperSession):
    listed: frozenset[str] | Exception = frozenset({"ok.example"})

    async def identities(self) -> frozenset[str]:
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed


async def test_a_transport_with_preflight_refuses_what_ses_would_not_take() -> None:
    async with SesStandIn() as ses, world(ses.url, session=Knowing(ses.url), preflight=True) as w:
        assert w.transport.refusal("x@b.example") is None
        w.transport.start()
        await eventually(lambda: w.transport.refusal("x@b.example") is not None)
        assert w.transport.refusal("x@ok.example") is None
    async with SesStandIn() as ses, world(ses.url, session=Knowing(ses.url), preflight=True, source_arn="arn:x") as w:
        w.transport.start()
        assert w.transport.refusal("x@b.example") is None
        assert w.transport._identities is None  # lent by another account: its list is not ours


@pytest.mark.parametrize("listed", [frozenset({"ok.example"}), RuntimeError("not allowed")])
async def test_an_unverified_from_is_rewritten_by_the_list_or_else_by_what_ses_says(listed: frozenset[str] | Exception) -> None:
    raw = message("From: Shop <shop@other.example>")
    async with SesStandIn() as ses:
        ses.account.verified = frozenset({"ok.example"})
        session = Knowing(ses.url)
        session.listed = listed
        async with world(ses.url, session=session, rewrite_from="post@ok.example") as w:
            w.transport.start()
            settled = lambda: bool(w.observer.troubles) or w.transport._verified("x@b.example") is False  # noqa: E731
            await eventually(settled)
            (outcome,) = await w.send("b@example.org", content=raw, sender="shop@other.example", header_from=["shop@other.example"])
    assert isinstance(outcome, Delivered)
    (taken,) = ses.journal
    assert taken.source == "post@ok.example"
    assert taken.raw.startswith(b"From: Shop <post@ok.example>\r\nX-Original-From: Shop <shop@other.example>\r\nReply-To: Shop")
    assert ses.requests["SendRawEmail"] == (1 if isinstance(listed, frozenset) else 2)
    assert "From shop@other.example became post@ok.example: it is not a verified identity" in outcome.trail.changes


async def test_where_the_address_to_rewrite_to_is_not_verified_either_the_sender_waits() -> None:
    async with SesStandIn() as ses:
        ses.account.verified = frozenset()
        async with world(ses.url, session=Knowing(ses.url), rewrite_from="post@no.example") as w:
            (outcome,) = await w.send("b@example.org", content=message("From: a@example.com"))
    assert isinstance(outcome, Deferred)
    assert ses.requests["SendRawEmail"] == 2
