"""Line ends: what is mended, and where a line begins with a dot, against a slow reference."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail.lineends import BARE_CR, BARE_LF, NUL, dotted, mended

LARGE = b"x" * 20_000
STRAYS = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b".", b"x"]), max_size=12).map(b"".join)


@given(STRAYS)
def test_only_what_is_no_pair_is_mended(content: bytes) -> None:
    strays = {octet for octet in re.findall(rb"\r\n|\r|\n|\0", content) if octet != b"\r\n"}
    expected = re.sub(rb"\r\n|\r|\n|\0", lambda found: {b"\r": b" ", b"\0": b" "}.get(found[0], b"\r\n"), content)
    assert mended(content) == (
        expected,
        tuple(said for octet, said in ((b"\r", BARE_CR), (b"\n", BARE_LF), (b"\0", NUL)) if octet in strays),
    )


@pytest.mark.parametrize("front", [b"", LARGE, b".x" * 63 + LARGE, b".x" * 64 + LARGE, b"\r\n .\r\n" + LARGE, b"." * 65 + LARGE])
@given(
    content=st.lists(st.sampled_from([b"\r\n.", b"\r\n", b".", b"\n.", b"\r.", b"x"]), max_size=6).map(b"".join),
    large=st.booleans(),
)
def test_the_first_dot_at_the_beginning_of_a_line_is_found(front: bytes, content: bytes, large: bool) -> None:
    whole = front + content + (LARGE if large else b"")
    assert dotted(whole) == whole.find(b"\r\n.")
