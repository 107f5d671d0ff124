"""The reader of DATA against a slow reference, at every split of the stream."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.listener.content import END, ContentReader

# Made of what the reader looks for, so that most examples come near an end mark.
STREAM = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"..", b"\0", b"x", b"text"]), max_size=40).map(b"".join)
BOUNDLESS = 1 << 20


def reference(stream: bytes) -> tuple[bytes, bytes] | None:
    """Content and rest, line by line as RFC 5321 §4.5.2 tells it; None while the end mark is missing."""
    lines: list[bytes] = []
    while True:
        line, end, stream = stream.partition(b"\r\n")
        if not end:
            return None
        if line == b".":
            return b"".join(lines), stream
        lines.append(line.removeprefix(b".") + b"\r\n")


def read(pieces: list[bytes], limit: int = BOUNDLESS) -> tuple[ContentReader, bytes | None]:
    reader = ContentReader(limit)
    for i, piece in enumerate(pieces):
        rest = reader.feed(piece)
        if rest is not None:
            return reader, rest + b"".join(pieces[i + 1 :])
    return reader, None


@given(STREAM, st.lists(st.integers(0, 120), max_size=8))
def test_reads_what_the_reference_reads(stream: bytes, cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader, rest = read([stream[a:b] for a, b in itertools.pairwise(borders)])
    wanted = reference(stream)
    if wanted is None:
        assert rest is None
    else:
        assert (reader.content(), rest) == wanted
        assert reader.size == len(wanted[0])


NO_ENDS = [
    b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r.\n",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\0\n.\r\n", b"\r\n.\r\0\n", b"\r\r\n.\r\r\n",
]  # fmt: skip


@pytest.mark.parametrize("mark", NO_ENDS, ids=repr)
def test_no_other_mark_ends_a_message(mark: bytes) -> None:
    stream = b"a" + mark + b"MAIL FROM:<x@example.com>\r\nz" + END + b"QUIT\r\n"
    for first in range(len(stream) + 1):
        for second in range(first, min(first + 6, len(stream)) + 1):
            reader, rest = read([stream[:first], stream[first:second], stream[second:]])
            assert rest == b"QUIT\r\n"
            assert b"MAIL FROM:<x@example.com>\r\nz\r\n" in reader.content()


@pytest.mark.parametrize("limit", range(12))
def test_keeps_nothing_of_what_is_too_large(limit: int) -> None:
    for size in range(12):
        content = b"x" * (size - 2) + b"\r\n" if size >= 2 else b""
        reader, rest = read([octet.to_bytes() for octet in content + b".\r\nrest"], limit)
        assert rest == b"rest"
        assert reader.too_large == (len(content) > limit)
        assert reader.content() == (b"" if len(content) > limit else content)
