"""The readers of DATA and BDAT against a slow reference, at every split of the stream, and what they hold of the memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.listener.content import END, LARGE, NO_MEMORY, PART_MIN, ChunkFeed, DataFeed, Feed, Incoming
from sesrelay.mail.lineends import BARE_CR, BARE_LF, NUL
from sesrelay.policy.admission import TOO_LARGE
from sesrelay.policy.budget import COPIES_IN, ByteBudget

# Made of what the readers look for, so that most examples come near an end mark.
OCTETS = st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"..", b"\0", b"x", b"text"])
STREAM = st.lists(OCTETS, max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 120), max_size=8)
BOUNDLESS = 1 << 20


def line_ends(content: bytes) -> bytes:
    """Octet by octet, what becomes of line ends; the last line is given one."""
    made = bytearray()
    for i, octet in enumerate(content):
        match chr(octet):
            case "\r" if content[i + 1 : i + 2] == b"\n":
                pass
            case "\r" | "\0":
                made += b" "
            case "\n":
                made += b"\r\n"
            case _:
                made.append(octet)
    if made and made[-2:] != b"\r\n":
        made += b"\r\n"
    return bytes(made)


def after_data(stream: bytes) -> tuple[bytes, bytes] | None:
    """Content and rest, line by line as RFC 5321 §4.5.2 tells it; None while the end mark is missing."""
    lines: list[bytes] = []
    while True:
        line, end, stream = stream.partition(b"\r\n")
        if not end:
            return None
        if line == b".":
            return b"".join(lines), stream
        lines.append(line.removeprefix(b".") + b"\r\n")


def cut(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    borders = [0, *sorted(min(at, len(stream)) for at in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(borders)]


def incoming(limit: int = BOUNDLESS, memory: int = BOUNDLESS, declared: int = 0) -> Incoming:
    return Incoming(limit, ByteBudget(memory).incoming, declared)


def read(feed: Feed, pieces: list[bytes]) -> bytes | None:
    for i, piece in enumerate(pieces):
        buffer = bytearray(piece)
        if feed.feed(buffer):
            return bytes(buffer) + b"".join(pieces[i + 1 :])
        assert not buffer
    return None


def data(pieces: list[bytes], limit: int = BOUNDLESS) -> tuple[Incoming, bytes | None]:
    kept = incoming(limit)
    return kept, read(DataFeed(kept), pieces)


def content(kept: Incoming) -> bytes:
    kept.end()
    return kept.content()


@given(STREAM, CUTS)
def test_data_is_what_the_reference_reads(stream: bytes, cuts: list[int]) -> None:
    kept, rest = data(cut(stream, cuts))
    wanted = after_data(stream)
    if wanted is None:
        assert rest is None
    else:
        assert (content(kept), rest) == (line_ends(wanted[0]), wanted[1])
        assert kept.size == len(wanted[0])


@given(st.lists(STREAM, max_size=6), STREAM, CUTS)
def test_chunks_are_their_octets(chunks: list[bytes], behind: bytes, cuts: list[int]) -> None:
    kept, stream = incoming(), b"".join(chunks) + behind
    pieces = cut(stream, cuts)
    for chunk in chunks:
        if chunk:
            rest = read(ChunkFeed(len(chunk), kept), pieces)
            assert rest is not None
            pieces = cut(rest, cuts)
    assert b"".join(pieces) == behind
    assert content(kept) == line_ends(b"".join(chunks))
    assert kept.size == len(stream) - len(behind)


@pytest.mark.parametrize("whole", [b"a\r\nb\r\n", b"a\r\rb\n\n", b"\r\n\r\n", b"a\r", b"\n\r", b"\0\r\n\r"], ids=repr)
def test_a_line_end_may_be_cut_by_chunks_anywhere(whole: bytes) -> None:
    for first in range(len(whole) + 1):
        for second in range(first, len(whole) + 1):
            kept = incoming()
            for chunk in (whole[:first], whole[first:second], whole[second:]):
                kept.add(chunk)
            assert content(kept) == line_ends(whole)


def test_what_was_changed_is_told_once() -> None:
    kept = incoming()
    for chunk in (b"a\nb\n", b"c\n\0", b"d\r", b"e\r"):
        kept.add(chunk)
    assert sorted(kept.end()) == sorted((BARE_LF, NUL, BARE_CR))


NO_ENDS = [
    b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r.\n",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\0\n.\r\n", b"\r\n.\r\0\n", b"\r\r\n.\r\r\n",
]  # fmt: skip


@pytest.mark.parametrize("mark", NO_ENDS, ids=repr)
def test_no_other_mark_ends_a_message(mark: bytes) -> None:
    stream = b"a" + mark + b"MAIL FROM:<x@example.com>\r\nz" + END + b"QUIT\r\n"
    for first in range(len(stream) + 1):
        for second in range(first, min(first + 6, len(stream)) + 1):
            kept, rest = data([stream[:first], stream[first:second], stream[second:]])
            assert rest == b"QUIT\r\n"
            assert b"MAIL FROM:<x@example.com>\r\nz\r\n" in content(kept)


@pytest.mark.parametrize("limit", range(12))
def test_keeps_nothing_of_what_is_too_large(limit: int) -> None:
    for size in range(12):
        sent = b"x" * (size - 2) + b"\r\n" if size >= 2 else b""
        kept, rest = data([octet.to_bytes() for octet in sent + b".\r\nrest"], limit)
        assert rest == b"rest"
        assert kept.refusal == (TOO_LARGE if len(sent) > limit else None)
        assert content(kept) == (b"" if len(sent) > limit else sent)


def test_what_does_not_fit_gives_back_what_it_took() -> None:
    budget = ByteBudget(1000 * COPIES_IN)
    first, second = (Incoming(BOUNDLESS, budget.incoming) for _ in range(2))
    first.add(b"x" * 700)
    second.add(b"x" * 200)
    second.add(b"x" * 200)
    assert (first.refusal, second.refusal, budget.incoming.used) == (None, NO_MEMORY, 700 * COPIES_IN)
    second.add(b"x" * 10)
    assert budget.incoming.used == 700 * COPIES_IN
    assert content(first) == b"x" * 700 + b"\r\n"
    first.discard()
    assert budget.incoming.used == 0


def test_a_large_message_is_let_in_by_the_size_it_declares() -> None:
    share = ByteBudget(5 * LARGE * COPIES_IN).incoming
    first = Incoming(BOUNDLESS * 9, share, 4 * LARGE)
    assert Incoming(BOUNDLESS * 9, share, 2 * LARGE).refusal == NO_MEMORY
    small = Incoming(BOUNDLESS * 9, share, LARGE - 1)
    small.add(b"x" * 2 * LARGE)  # more than it said: what has come has come, promises or not
    assert small.refusal is None
    first.add(b"x" * 3 * LARGE)
    assert (share.used, share.promised) == (5 * LARGE * COPIES_IN, LARGE * COPIES_IN)
    first.discard()
    assert (share.used, share.promised) == (2 * LARGE * COPIES_IN, 0)


def test_a_message_that_drips_is_not_held_as_many_objects() -> None:
    kept = incoming()
    for _ in range(3 * PART_MIN):
        kept.add(b"x")
    assert len(kept._parts) <= 4
    assert content(kept) == b"x" * 3 * PART_MIN + b"\r\n"
