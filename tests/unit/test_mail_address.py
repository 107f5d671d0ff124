"""Addresses: what is refused, and the one form that comparisons use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail import queue_id
from sesrelay.mail.address import AddressError, check, domain_key, domain_of, normalise, parents, unquoted


@pytest.mark.parametrize(
    ("given_domain", "key"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("例え\u3002jp", "xn--r8jz45g.jp"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("نامه\u200cای.example", "xn--mgba3gch31f060k.example"),  # RFC 5892 A.1: a non-joiner, as Persian wants it
        ("\u0915\u094d\u200d\u0937.example", "xn--11b2ezcw70k.example"),  # A.2: a joiner behind a virama
        ("xn--i-7iqv272g.example", "xn--i-7iqv272g.example"),  # as it is: emoji have a variation selector
        ("xn--mgba3gch31f060k.example", "xn--mgba3gch31f060k.example"),
        ("xn--i-7iq.example", "xn--i-7iq.example"),
        ("xn--a-qib.example", "xn--a-qib.example"),  # U+0378: not assigned yet, as far as this Python knows
    ],
)
def test_domain_key(given_domain: str, key: str) -> None:
    assert domain_key(given_domain) == key


def test_sharp_s_is_not_routed_as_double_s() -> None:
    assert domain_of("a@straße.example") != domain_of("a@strasse.example")


@pytest.mark.parametrize(
    "domain",
    ["", ".", "a..b", "-a.example", "a-.example", "a b.example", "[192.0.2.1]", "x" * 64 + ".example", ".".join(["abcd"] * 60),
     "xn--.example", "xn--a.example", "xn--0.example", "xn--zz--zz.example", "xn--abc\u00fc.example", "a\u2028b.example", "exa\x00mple.com", "ex☃mple.com", "ex\ufe0fample.com", "ex\u200dample.com", "\u200cexample.com", "\u0915\u200d.example", "\u0646\u0627\u0645\u0647\u200c.example"],
)  # fmt: skip
def test_no_domain(domain: str) -> None:
    with pytest.raises(AddressError):
        domain_key(domain)


@pytest.mark.parametrize(
    "address",
    ["a@example.com", "a.b+c@example.com", "a..b@example.com", '"a b"@example.com', "ü@bücher.example", "o'hara@x.example"],
)
def test_well_formed(address: str) -> None:
    assert check(address) == address


@pytest.mark.parametrize(
    "address",
    ["", "a", "@example.com", "a@", "a b@example.com", "a@b@c d", "a" * 65 + "@example.com", '"a@example.com', "a@localhost",
     "a@x.localhost", "a\r@example.com", "a@example.com\n", "a\x85b@example.com", "(c)a@example.com", "<a@example.com>"],
)  # fmt: skip
def test_malformed(address: str) -> None:
    with pytest.raises(AddressError):
        check(address)


def test_non_ascii_wants_smtputf8() -> None:
    with pytest.raises(AddressError, match="SMTPUTF8"):
        check("ü@example.com", smtputf8=False)


@given(st.text(max_size=80))
def test_check_never_lets_a_control_character_through(text: str) -> None:
    try:
        check(text)
    except AddressError:
        return
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in text)
    assert normalise(text) == normalise(normalise(text))


def test_queue_ids_grow_and_keep_to_the_contract() -> None:
    ids = [queue_id.new(1_800_000_000 + n / 1000, 7 * n) for n in range(2000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert all(queue_id.PATTERN.match(each) for each in ids)
    assert queue_id.encode(queue_id.decode(ids[5])) == ids[5]
    assert queue_id.decode(queue_id.new(4_000_000_000, 32767)) < 2**63


@pytest.mark.parametrize("text", ["", "short", "z" * 13, "0" * 14, "8" + "0" * 12, "subscriptions", "../../../etc/p"])
def test_no_queue_id(text: str) -> None:
    with pytest.raises(ValueError, match="queue id"):
        queue_id.decode(text)


@pytest.mark.parametrize(
    ("local", "plain"),
    [
        ("a", "a"), ('"a.b"', "a.b"), (r'"a\b"', "ab"), ('"a b"', '"a b"'), (r'"a\ b"', '"a b"'), (r'"a\"b\\"', r'"a\"b\\"'),
        ('""', '""'), ('"a@b"', '"a@b"'), ('"a', '"a'), ("ü", "ü"), ('"ü"', "ü"),
    ],
)  # fmt: skip
def test_quotes_that_nothing_needs(local: str, plain: str) -> None:
    assert unquoted(local) == plain
    assert unquoted(plain) == plain


@pytest.mark.parametrize(
    ("domain", "above"),
    [("a.b.example.com", ["b.example.com", "example.com"]), ("example.com", []), ("localhost", []), ("", [])],
)
def test_the_domains_above_that_somebody_holds(domain: str, above: list[str]) -> None:
    assert parents(domain) == above
