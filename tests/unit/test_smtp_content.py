"""What goes over the wire of a message's content: every byte, dots doubled, nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail.lineends import canonical
from sesrelay.transport.client.content import wire


def unstuffed(stuffed: bytes) -> bytes:
    """Undo transparency line by line, as RFC 5321 §4.5.2 tells the receiver to."""
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in stuffed.split(b"\r\n"))


@pytest.mark.parametrize(
    ("content", "stuffed"),
    [
        (b"", b""),
        (b".\r\n", b"..\r\n"),
        (b"..\r\n", b"...\r\n"),
        (b"a\r\n.\r\n.b\r\n", b"a\r\n..\r\n..b\r\n"),
        (b"\r\n.\r\n", b"\r\n..\r\n"),
        (b"a.b\r\n c.\r\n", b"a.b\r\n c.\r\n"),
    ],
)
def test_dots_at_the_start_of_lines_are_doubled(content: bytes, stuffed: bytes) -> None:
    assert wire(content).stuffed == stuffed


@given(st.lists(st.sampled_from([b".", b"..", b".a", b"a", b"", b"\xff.", b"x" * 2000])))
def test_the_receiver_gets_back_what_was_stored(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    sent = wire(content)
    assert unstuffed(sent.stuffed) == content
    assert b"\r\n.\r\n" not in b"\r\n" + sent.stuffed
    assert sent.size == len(content)
    assert sent.changes == ()


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"\0", b"a", b"\r\n"])).map(b"".join))
def test_nothing_leaves_that_another_host_could_take_for_the_end(content: bytes) -> None:
    stored, receipts = canonical(content)
    sent = wire(stored)
    on_the_wire = sent.stuffed + b".\r\n"
    assert on_the_wire.count(b"\r") == on_the_wire.count(b"\n") == on_the_wire.count(b"\r\n")
    assert b"\0" not in on_the_wire
    assert (b"\r\n" + on_the_wire).count(b"\r\n.\r\n") == 1
    untouched = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
    assert receipts or unstuffed(sent.stuffed) == untouched


def test_large_contents_are_not_copied_without_need() -> None:
    content = b"x" * 998 + b"\r\n"
    assert wire(content).stuffed is content


@pytest.mark.parametrize(
    ("content", "eight_bit", "utf8_header"),
    [
        (b"Subject: x\r\n\r\nplain\r\n", False, False),
        (b"Subject: x\r\n\r\ncaf\xe9\r\n", True, False),
        ("Subject: é\r\n\r\nplain\r\n".encode(), True, True),
    ],
)
def test_it_knows_what_the_host_must_be_able_to_take(content: bytes, eight_bit: bool, utf8_header: bool) -> None:
    assert (wire(content).eight_bit, wire(content).utf8_header) == (eight_bit, utf8_header)
