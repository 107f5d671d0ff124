"""Replies read whole, byte by byte and in random pieces; what is none; and what is too much."""

from __future__ import annotations

import random

import pytest

from sesrelay.transport.client.replies import LINE_LIMIT, TEXT_LIMIT, Garbage, ReplyReader, Said

STREAM = (
    b"250 2.1.0 Ok\r\n"
    b"250-2.1.5 Ok\r\n250-\r\n250 \tand so on \r\n"
    b"550\r\n"
    b"354 Go on\n"
    b"450-4.2.0 Later\r\n451 or never\r\n"
    b"250 caf\xc3\xa9 \xff\r\n"
)
SAID = [
    Said(250, b"2.1.0 Ok"),
    Said(250, b"2.1.5 Ok\n\nand so on"),
    Said(550, b""),
    Said(354, b"Go on"),
    Said(451, b"4.2.0 Later\nor never"),
    Said(250, b"caf\xc3\xa9 \xff"),
]


def cuts(stream: bytes) -> list[list[bytes]]:
    """Return ways in which a stream can come: whole, byte by byte, and in pieces cut at random."""
    found = [[stream], [stream[at : at + 1] for at in range(len(stream))]]
    for seed in range(30):
        places = sorted(random.Random(seed).sample(range(1, len(stream)), min(6, len(stream) - 1)))
        found.append([stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)])
    return found


@pytest.mark.parametrize("pieces", cuts(STREAM))
def test_the_same_replies_however_they_come(pieces: list[bytes]) -> None:
    reader, said = ReplyReader(), list[Said]()
    for piece in pieces:
        reader.feed(piece, said)
    assert said == SAID
    assert not reader.midway


@pytest.mark.parametrize("begun", [b"2", b"250", b"250 Ok", b"250 Ok\r", b"250-Ok\r\n", b"250-Ok\r\n250"])
def test_what_has_not_ended_is_no_reply(begun: bytes) -> None:
    reader, said = ReplyReader(), list[Said]()
    reader.feed(begun, said)
    assert said == []
    assert reader.midway


@pytest.mark.parametrize(
    "garbage", [b"hello", b"25", b"", b" 250 Ok", b"+50 Ok", b"2500 Ok", b"\xff\xfe\x00", b"HTTP/1.1 400 Bad", b"25\xb2 Ok"]
)
@pytest.mark.parametrize("before", [b"", b"250 2.1.0 Ok\r\n"])
def test_what_is_no_reply_is_said_after_what_came_before_it(garbage: bytes, before: bytes) -> None:
    reader, said = ReplyReader(), list[Said]()
    with pytest.raises(Garbage) as error:
        reader.feed(before + garbage + b"\r\n", said)
    assert len(said) == bool(before)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("endless", [b"x", b"250 x", b"250-" + b"x" * 100 + b"\r\n", b"250-\r\n"])
def test_a_reply_without_an_end_is_left(endless: bytes) -> None:
    reader, said, fed = ReplyReader(), list[Said](), 0
    with pytest.raises(Garbage):
        while fed < 1_000_000:
            reader.feed(endless, said)
            fed += len(endless)
    assert fed < 64 * 1024
    assert said == []


def test_of_a_long_text_the_beginning_is_kept() -> None:
    reader, said = ReplyReader(), list[Said]()
    reader.feed(b"550 " + b"x" * (LINE_LIMIT - 10) + b"\r\n250 Ok\r\n", said)
    assert said == [Said(550, b"x" * TEXT_LIMIT), Said(250, b"Ok")]
