"""Header rules of SES: what may stand once, what must not leave, and that nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.transport.ses.shape import ONCE, shape, value_of

PLAIN = b"Received: by x\r\nReceived: by y\r\nFrom: a@example.com\r\nX-A: 1\r\nX-A: 2\r\nSubject : s\r\n\tfrom: not a field\r\n"


def test_a_header_without_fault_is_the_same_object() -> None:
    assert shape(PLAIN) == (PLAIN, ())
    assert shape(PLAIN)[0] is PLAIN


@pytest.mark.parametrize("name", sorted(ONCE))
def test_each_field_that_may_stand_once_does(name: str) -> None:
    if name == "return-path":
        return
    head = f"X-A: 0\r\n{name}: 1\r\n{name.upper()}: 2\r\n".encode()
    shaped, changes = shape(head)
    assert shaped == f"X-A: 0\r\n{name}: 1\r\n".encode()
    assert changes == (f"removed a further {name.upper()}, different from the first",)


def test_identical_duplicates_are_told_from_different_ones() -> None:
    shaped, changes = shape(b"Subject: a\r\n b\r\nSubject:  a b\r\nSUBJECT: c\r\n")
    assert shaped == b"Subject: a\r\n b\r\n"
    assert changes == ("removed a further Subject, identical to the first", "removed a further SUBJECT, different from the first")


def test_of_several_dkim_signatures_the_first_stays() -> None:
    shaped, changes = shape(b"DKIM-Signature: v=1; d=a\r\nDKIM-Signature: v=1;\r\n d=b\r\nFrom: a@b\r\n")
    assert shaped == b"DKIM-Signature: v=1; d=a\r\nFrom: a@b\r\n"
    assert len(changes) == 1


def test_orders_to_ses_go_unless_trusted() -> None:
    head = b"X-SES-TENANT: t\r\nx-ses-message-tags: a=b\r\nX-SES: harmless\r\n"
    assert shape(head)[0] == b"X-SES: harmless\r\n"
    assert shape(head, ["X-SES-Tenant"]) == (b"X-SES-TENANT: t\r\nX-SES: harmless\r\n", ("removed x-ses-message-tags",))


def test_private_fields_go_with_their_folded_lines() -> None:
    shaped, changes = shape(b"Bcc: a@b,\r\n c@d\r\nFrom: a@b\r\nResent-Bcc: e@f\r\nReturn-path: <x@y>\r\n")
    assert shaped == b"From: a@b\r\n"
    assert changes == ("removed Bcc", "removed Resent-Bcc", "removed Return-path")


@given(
    st.lists(
        st.tuples(st.sampled_from(["From", "SUBJECT", "subject", "X-A", "X-SES-A", "Bcc", "To"]), st.text("ab :,", max_size=9))
    )
)
def test_what_is_kept_is_kept_in_order_and_shaping_again_changes_nothing(pairs: list[tuple[str, str]]) -> None:
    lines = [f"{name}: {value}\r\n".encode() for name, value in pairs]
    shaped, changes = shape(b"".join(lines))
    assert shape(shaped) == (shaped, ())
    kept = [line for line in shaped.split(b"\r\n") if line]
    assert len(kept) + len(changes) == len(lines)
    rest = iter(line[:-2] for line in lines)
    assert all(line in rest for line in kept)


def test_a_value_is_found_whatever_its_case() -> None:
    assert value_of(b"From: a\r\nX-Ses-Tenant: t\r\n u\r\n", "X-SES-TENANT") == "t u"
    assert value_of(b"From: a\r\n", "X-SES-TENANT") is None
