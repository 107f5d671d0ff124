"""Content in a file goes the ways of content in memory: whatever is made of it is octet for octet the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batches import HELLO, InFile, Octets, batch, by_address, filed
from fakes import FakeClock
from scripted_host import ScriptedHost
from sesrelay.config.dkim_keys import generate
from sesrelay.listener.content import LARGE, NO_DISK, DataFeed, Incoming
from sesrelay.mail import dkim, recoding
from sesrelay.mail.dkim import DkimKey
from sesrelay.mail.filed import PIECE, Filed, opening, plain
from sesrelay.mail.lineends import Canonical, canonical
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Scope
from sesrelay.policy.budget import COPIES_IN, ByteBudget
from sesrelay.policy.ses_shape import Facts, Rules, shape
from sesrelay.seams import NoSpace, SpoolError
from sesrelay.transport.client import session
from sesrelay.transport.client.content import wire
from sesrelay.transport.direct.transport import DirectOptions, DirectTransport
from sesrelay.transport.ses.body import Body, measured
from sesrelay.transport.smtp.transport import SmtpOptions, SmtpTransport
from small_dns import SmallDns

LINES = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a ", b"\t b", b"x" * 70, b"y" * 500]), max_size=40)
BIG = HELLO + b"".join(b".%d and some more to fill the line with \t \r\n" % n for n in range(60_000)) + b"\r\n \r\n\r\n"
ED25519 = generate("ed25519")[1]
KEYS = (DkimKey("example.com", "e", ED25519.algorithm, ED25519.sign),)


def text(lines: list[bytes]) -> bytes:
    return b"Subject: x\r\nFrom: a@example.com\r\n\r\n" + b"".join(line + b"\r\n" for line in lines)


@given(LINES, st.integers(0, 300), st.integers(0, 300), st.integers(1, 50))
def test_it_is_cut_as_bytes_are(lines: list[bytes], start: int, stop: int, octets: int) -> None:
    content = text(lines)
    found = filed(content)
    assert (len(found), found.whole(), found[start:stop], found[start:]) == (
        len(content), content, content[start:stop], content[start:],
    )  # fmt: skip
    assert b"".join(found.pieces(octets)) == content
    fewer = min(octets, found.rest)
    assert found.without_last(fewer).whole() == content[: len(content) - fewer]


@given(LINES, st.integers(1, 40))
def test_dots_are_doubled_wherever_it_is_cut(lines: list[bytes], octets: int) -> None:
    content = text(lines)
    stuffed = wire(filed(content)).stuffed
    assert b"".join(stuffed[at : at + octets] for at in range(0, len(stuffed), octets)) == wire(content).stuffed


@pytest.mark.parametrize("at", [0, 1, 997, 998, 999, PIECE - 999, PIECE - 998, PIECE - 1, PIECE, 2 * PIECE])
@pytest.mark.parametrize("what", [b"", b"\xff", b"x" * 998, b"x" * 999], ids=["as it is", "8 bit", "longest line", "long line"])
def test_what_every_host_takes_as_it_is(at: int, what: bytes) -> None:
    body = (b"y" * 61 + b"\r\n") * 9_000
    at -= at % 63
    content = text([]) + body[:at] + what + b"\r\n" + body[at:]
    assert plain(filed(content)) is recoding.fits(content)


@given(LINES)
def test_it_is_signed_as_bytes_are(lines: list[bytes]) -> None:
    content = text(lines)
    assert dkim.signatures(filed(content), KEYS, 1_700_000_000) == dkim.signatures(content, KEYS, 1_700_000_000)


@pytest.mark.parametrize("body", [b"", b"\r\n" * 300_000, b"a  b\t\r\n" * 100_000 + b" \r\n" * 100_000, b"x" * 600_000])
def test_the_body_is_hashed_as_that_of_bytes_is(body: bytes) -> None:
    content = text([]) + body
    end = content.index(b"\r\n\r\n") + 2
    assert dkim.body_hash(filed(content), end) == dkim.body_hash(content, end)


SHAPES: dict[str, bytes] = {
    "nothing to do": b"From: a@example.com\r\nDate: Sat, 28 Nov 2026 10:00:00 +0000\r\n",
    "thread": b"From: a@example.com\r\nDate: Sat, 28 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n",
    "everything": b"From: a@example.com\r\nMessage-ID: <1@example.com>\r\nReferences: <0@example.com>\r\nBcc: c@example.com\r\n"
    b"Subject: one\r\nSubject: two\r\nX-SES-TENANT: t\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\nDKIM-Signature: v=1; d=example.com; h=from:subject; bh=x; b=y\r\n'
    + b"To: " + b", ".join(b"somebody%d@example.net" % n for n in range(100)) + b"\r\n",
    "too long a name": b"From: a@example.com\r\n" + b"X-" + b"y" * 1200 + b": z\r\n",
}  # fmt: skip


@pytest.mark.parametrize("rules", [Rules(), Rules(rewrite_from="relay@example.com")], ids=["usual", "rewriting"])
@pytest.mark.parametrize("head", SHAPES.values(), ids=SHAPES)
def test_it_is_made_fit_for_ses_as_bytes_are(head: bytes, rules: Rules) -> None:
    content = head + b"\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
    facts = Facts("a@example.com", 1_700_000_000.0, verified=lambda address: address == "relay@example.com")
    wanted, found = shape(canonical(content)[0], rules, facts), shape(filed(content), rules, facts)
    assert not isinstance(wanted, Failed)
    assert not isinstance(found, Failed)
    assert isinstance(found.content, Filed)
    assert (found.content.whole(), found.changes, found.source) == (wanted.content, wanted.changes, wanted.source)
    assert opening(found.content).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("escaped", [True, False], ids=["v1", "v2"])
async def test_the_body_of_a_call_is_that_of_bytes(escaped: bool) -> None:
    wanted = await measured(Body(b"head=", BIG, b"tail", escaped))
    found = await measured(Body(b"head=", filed(BIG), b"tail", escaped))
    assert (found.digest, found.size) == (wanted.digest, wanted.size)
    assert b"".join([piece async for piece in found.pieces()]) == b"".join([piece async for piece in wanted.pieces()])


# --- out by SMTP -------------------------------------------------------------------------------------------------


async def deliver(host: ScriptedHost, content: Filed, *, direct: bool, **options: Any) -> Any:
    async with SmallDns({("example.org", "A"): ["127.0.0.1"]}) as dns:
        out: DirectTransport | SmtpTransport
        if direct:
            out = DirectTransport(
                "direct",
                DirectOptions(
                    "relay.example.com", host.port, nameservers=[dns.nameserver], allow_private_addresses=True, **options
                ),
                FakeClock(),
            )
        else:
            out = SmtpTransport("relay", SmtpOptions(["127.0.0.1"], "relay.example.com", host.port, **options), FakeClock())
        message = batch()
        found = by_address(message, await out.deliver(message, InFile(content)))
        await out.close()
        return found["b@example.org"]


WAYS = pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])


@WAYS
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "smtp"])
async def test_every_byte_arrives_and_its_signature_in_front(direct: bool, chunking: bool) -> None:
    offers = ("PIPELINING", "8BITMIME", *(("CHUNKING",) if chunking else ()))
    async with ScriptedHost(offers=offers) as host:
        outcome = await deliver(host, filed(BIG), direct=direct, dkim={"example.com": KEYS})
        assert isinstance(outcome, Delivered)
        assert outcome.trail.changes == (f"added DKIM-Signature {KEYS[0]}",)
        (taken,) = host.messages
        assert taken.chunk is chunking
        assert taken.content == dkim.signatures(BIG, KEYS, int(FakeClock().wall())) + BIG


@WAYS
async def test_a_file_that_breaks_in_the_middle_leaves_no_doubt_and_no_message(chunking: bool) -> None:
    offers = ("PIPELINING", *(("CHUNKING",) if chunking else ()))
    async with ScriptedHost(offers=offers) as host:
        outcome = await deliver(host, filed(BIG, broken_from=3 * session.PIECE), direct=False)
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.ambiguous) == (Scope.MESSAGE, False)
        assert host.messages == []


async def test_a_file_that_breaks_after_some_were_served_repeats_nothing_for_them() -> None:
    class BreaksAtItsEnd(Octets):
        def read_at(self, at: int, octets: int) -> bytes:
            data = super().read_at(at, octets)
            self.broken_from = 0 if at + octets >= len(self.data) else self.broken_from
            return data

    whole = filed(BIG)
    content = Filed(whole.head, BreaksAtItsEnd(b"before" + BIG[len(whole.head) :]), 6, whole.rest)
    async with ScriptedHost({"RCPT r1@example.org": ["452 4.5.3 Too many", "250 Ok"]}) as host:
        out = SmtpTransport("relay", SmtpOptions(["127.0.0.1"], "relay.example.com", host.port), FakeClock())
        message = batch("r0@example.org", "r1@example.org")
        found = by_address(message, await out.deliver(message, InFile(content)))
        await out.close()
        assert len(host.messages) == 1
    assert isinstance(found["r0@example.org"], Delivered)
    later = found["r1@example.org"]
    assert isinstance(later, Deferred)
    assert (later.ambiguous, later.reply.text) == (False, "the content could not be read: the disk is broken")


async def test_a_file_that_breaks_while_it_is_signed_says_nothing_of_the_keys() -> None:
    async with ScriptedHost() as host:
        outcome = await deliver(host, filed(BIG, broken_from=1_000), direct=False, dkim={"example.com": KEYS})
        assert isinstance(outcome, Deferred)
        assert (outcome.scope, outcome.reason, outcome.ambiguous) == (Scope.MESSAGE, None, False)
        assert host.messages == []


# --- in ----------------------------------------------------------------------------------------------------------


async def read(kept: Incoming, stream: bytes, octets: int) -> None:
    """Feed as a session does."""
    feed = DataFeed(kept)
    for at in range(0, len(stream), octets):
        if feed.feed(bytearray(stream[at : at + octets])):
            break
        if kept.heavy:
            await kept.lighten()


@pytest.mark.parametrize("octets", [65_536, 99_999])
@pytest.mark.parametrize("end", [b"", b"last line without an end", b"\r", b"bare\rbare\nbare\0"], ids=repr)
async def test_what_comes_goes_to_a_file_as_it_would_be_held(end: bytes, octets: int) -> None:
    sent = b"From someone Sat Nov 28\r\n" + HELLO + (b"..x" * 20 + b"\r\n.") * 40_000 + end
    budget = ByteBudget(1 << 30).incoming
    kept, held = Incoming(1 << 30, budget, scratch=Octets), Incoming(1 << 30, budget)
    most = 0
    for one in (kept, held):
        await read(one, sent.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n", octets)
    most = budget.used
    assert held.end() == kept.end()
    assert kept.in_file
    await kept.lighten()
    content = kept.content()
    assert isinstance(content, Filed)
    assert content.whole() == held.content()
    assert content.head.endswith(HELLO[: -len(b"Hello.\r\n")])
    held.discard()
    assert budget.used <= most - COPIES_IN * (len(sent) - LARGE)
    kept.discard()
    assert budget.used == 0


async def test_a_header_that_does_not_end_is_held() -> None:
    kept = Incoming(1 << 30, ByteBudget(1 << 30).incoming, scratch=Octets)
    sent = b"X: y\r\n" * 500_000
    await read(kept, sent + b".\r\n", 65_536)
    kept.end()
    assert not kept.in_file
    assert kept.content() == sent


@pytest.mark.parametrize("error", [SpoolError("no such disk"), NoSpace("full")], ids=["error", "full"])
@pytest.mark.parametrize("late", [False, True])
async def test_a_disk_that_does_not_take_it_keeps_nothing(error: SpoolError, late: bool) -> None:
    class Full(Octets):
        def append(self, data: bytes) -> None:
            if not late or self.data:
                raise error
            super().append(data)

    budget = ByteBudget(1 << 30).incoming
    kept = Incoming(1 << 30, budget, scratch=Full)
    await read(kept, BIG * 2 + b".\r\n", 65_536)
    assert (kept.refusal, kept.trouble, budget.used) == (NO_DISK, error, 0)


async def test_it_is_let_in_by_what_is_held_of_it() -> None:
    share = ByteBudget(5 * LARGE * COPIES_IN).incoming
    first, second = (Incoming(1 << 30, share, 400 * LARGE, Octets) for _ in range(2))
    assert (first.refusal, second.refusal) == (None, None)
    assert share.promised == 4 * LARGE * COPIES_IN
    for one in (first, second):
        one.discard()
    assert share.promised == 0


def test_the_header_alone_is_at_hand() -> None:
    content = filed(HELLO)
    broken = Filed(content.head, Octets(b""), 0, 100)
    assert broken[: len(content.head)] == content.head
    with pytest.raises(SpoolError):
        broken.whole()
    assert Canonical(opening(broken)) == content.head
