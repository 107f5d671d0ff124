"""Of many recipients the bad ones are found in few calls, and none is blamed for another or for the message."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.policy.ses_addressing import plain_domain
from sesrelay.policy.splitting import Splitting


@dataclass
class Ses:
    """Refuses a call with one of `bad` in it, and each one where `message` is bad."""

    bad: Collection[str] = ()
    message: bool = False
    calls: list[tuple[str, ...]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    together: list[str] = field(default_factory=list)

    def send(self, *to: str, of_form: bool = True) -> None:
        splitting: Splitting[str, int] = Splitting(to, plain_domain)
        while (group := splitting.next()) is not None:
            assert group
            self.calls.append(group)
            if self.message or not set(group).isdisjoint(self.bad):
                blamed = splitting.refused(group, len(self.calls), of_form=of_form)
            else:
                self.taken += group
                blamed = splitting.taken()
            for one in blamed:
                assert set(one.members) <= set(self.calls[one.why - 1])
                (self.together if one.message else self.alone).extend(one.members)
        assert sorted((*self.taken, *self.alone, *self.together)) == sorted(to)
        assert not splitting.stop()


def plain(n: int) -> list[str]:
    return [f"r{i}@d{i % 3}.example.org" for i in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
def test_a_message_that_is_refused_for_what_it_is_costs_five_calls_at_most(n: int) -> None:
    ses = Ses(message=True)
    ses.send(*plain(n))
    assert sorted(ses.together) == sorted(plain(n))
    assert len(ses.calls) <= min(5, n + 1)


@pytest.mark.parametrize("n", [2, 3, 7, 32, 49, 50])
@pytest.mark.parametrize("bad", ["a..b@example.org", "q@example.org"])
def test_one_bad_recipient_costs_no_more_than_halving(n: int, bad: str) -> None:
    for place in range(n):
        ses = Ses(bad={bad})
        ses.send(*plain(n)[:place], bad, *plain(n - 1)[place:])
        assert ses.alone == [bad]
        assert len(ses.calls) <= 2 * math.ceil(math.log2(n)) + 1


def test_a_single_recipient_is_to_blame_where_its_form_is_odd() -> None:
    odd, usual = Ses(message=True), Ses(message=True)
    odd.send("a..b@example.org")
    usual.send("b@example.org")
    assert (odd.alone, usual.together) == (["a..b@example.org"], ["b@example.org"])


def test_where_no_recipient_is_beyond_doubt_each_is_tried() -> None:
    to = [f'"r {i}"@example.org' for i in range(8)]
    ses = Ses(message=True)
    ses.send(*to)
    assert sorted(ses.alone) == sorted(to)


def test_two_of_one_odd_domain_do_not_speak_for_the_others() -> None:
    to = ["a@odd.example", "b@example.org", "c@odd.example", "d@example.org"]
    ses = Ses(bad={"a@odd.example", "c@odd.example"})
    ses.send(*to)
    assert sorted(ses.alone) == ["a@odd.example", "c@odd.example"]
    assert sorted(ses.taken) == ["b@example.org", "d@example.org"]


def test_a_refusal_for_what_an_address_is_known_for_is_no_refusal_of_the_message() -> None:
    to = plain(8)
    ses = Ses(bad={to[0], to[1], to[4], to[5]})
    ses.send(*to, of_form=False)
    assert sorted(ses.alone) == sorted([to[0], to[1], to[4], to[5]])


def test_what_ended_otherwise_is_taken_out() -> None:
    splitting: Splitting[str, str] = Splitting(("a@x.org", "b@x.org", "c@y.org", "d@y.org"), plain_domain)
    assert splitting.next() == ("a@x.org", "b@x.org", "c@y.org", "d@y.org")
    assert splitting.refused(("a@x.org", "b@x.org", "c@y.org", "d@y.org"), "why") == []
    assert splitting.next() == ("a@x.org", "b@x.org")
    assert splitting.refused(("a@x.org", "b@x.org"), "why") == []
    assert splitting.next() == ("c@y.org", "d@y.org")
    assert splitting.again(("d@y.org",)) == []  # c was named, and has ended
    assert splitting.next() == ("d@y.org",)
    assert sorted(splitting.stop()) == ["a@x.org", "b@x.org"]
    assert splitting.next() is None


def test_where_the_last_one_waited_for_is_named_the_rest_goes_on() -> None:
    splitting: Splitting[str, str] = Splitting(("a@x.org", "b@x.org"), plain_domain)
    assert splitting.next() is not None
    assert splitting.refused(("a@x.org", "b@x.org"), "both") == []
    assert splitting.next() == ("a@x.org",)
    assert splitting.refused(("a@x.org",), "a") == []
    assert splitting.next() == ("b@x.org",)
    (one,) = splitting.again(())
    assert (one.members, one.why) == (("a@x.org",), "a")
    assert splitting.next() is None


def test_where_one_of_those_tried_alone_is_named_the_other_does_not_speak_for_the_message() -> None:
    to = plain(8)
    splitting: Splitting[str, str] = Splitting(tuple(to), plain_domain)
    named, taken, blamed = [], [], []
    while (group := splitting.next()) is not None:
        if group == (to[0],):
            named.append(to[0])
            blamed += splitting.again(())
        elif {to[0], to[4]} & {*group}:
            blamed += splitting.refused(group, "refused")
        else:
            taken += group
            blamed += splitting.taken()
    assert named == [to[0]]
    assert [(one.members, one.message) for one in blamed] == [((to[4],), False)]
    assert sorted(taken) == sorted({*to} - {to[0], to[4]})


@given(st.data(), st.integers(1, 50))
def test_nobody_is_blamed_for_another(data: st.DataObject, n: int) -> None:
    odd = data.draw(st.sets(st.integers(0, n - 1)))
    to = [f"r..{i}@example.org" if i in odd else f"r{i}@d{i % 3}.example.org" for i in range(n)]
    bad = {to[i] for i in data.draw(st.sets(st.sampled_from(sorted(odd))))} if odd else set()
    message = data.draw(st.booleans())
    ses = Ses(bad, message)
    ses.send(*to)
    if message:
        assert not ses.taken
    else:
        assert (sorted(ses.alone), ses.together) == (sorted(bad), [])
    assert len(ses.calls) <= max(5, 2 * n + 1)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_of_plain_addresses_too_only_the_bad_are_blamed_alone(bad: list[bool]) -> None:
    to = plain(len(bad))
    ses = Ses({address for address, one in zip(to, bad, strict=True) if one})
    ses.send(*to)
    assert set(ses.alone) <= set(ses.bad)
    assert set(ses.taken).isdisjoint(ses.bad)
    assert not ses.together or sum(bad) >= 2 or len(bad) == 1


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("b@Example.org", "example.org"), ("first.last+tag_x-y@sub.example.co.uk", "sub.example.co.uk"), ("b@xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a..b@example.org", ""), (".a@example.org", ""), ("a.@example.org", ""), ('"a"@example.org', ""), ("o'brien@example.org", ""),
        ("b@localhost", ""), ("b@[192.0.2.1]", ""), ("b@example.org.", ""), ("b@-x.org", ""), ("b@x_y.org", ""), ("b@example.123", ""),
        ("ü@example.org", ""), ("b@bücher.example", ""), ("a" * 65 + "@example.org", ""), ("b@" + "x" * 64 + ".org", ""), ("b", ""), ("", ""),
        ("a b@example.org", ""), ("a@b@example.org", ""), ("b@example.org\n", ""), ("a." * 31 + "b@example.org", "example.org"),
        ("a." * 32 + "b@example.org", ""),
    ],
)  # fmt: skip
def test_which_addresses_are_beyond_doubt(address: str, domain: str) -> None:
    assert plain_domain(address) == domain
