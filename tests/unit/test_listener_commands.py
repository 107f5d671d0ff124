"""The quick expressions for MAIL and RCPT never differ from the general parser and the full check of addresses."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.listener.commands import (
    MailCommand,
    RcptCommand,
    general_mail,
    general_rcpt,
    parse_mail,
    parse_rcpt,
)
from sesrelay.mail.reply import Reply
from sesrelay.policy.admission import check_mailbox

NAMES = st.text(st.sampled_from("aZ09.-_+!ſK"), min_size=1, max_size=5)
LABELS = st.one_of(st.text(st.sampled_from("aZ0-"), min_size=1, max_size=4), st.sampled_from(["xn--a", "XN--", "localhost", "com"]))
DOMAINS = st.lists(st.one_of(LABELS, st.just("a" * 64), st.just("b" * 63)), min_size=1, max_size=5).map(".".join)
ADDRESSES = st.builds("{}@{}".format, st.one_of(NAMES, st.just("c" * 64), st.just("c" * 65)), DOMAINS)
TAILS = st.sampled_from(["", " SIZE=1", " size=12 body=8bitmime", " BODY=7BIT", " SIZE=", " BODY=7BIT SIZE=1", " ", " X"])


@given(ADDRESSES, TAILS, st.sampled_from(["FROM:<", "from:<", "FROM: <"]))
def test_quick_mail_is_right(address: str, tail: str, start: str) -> None:
    argument = f"{start}{address}>{tail}"
    quick, general = parse_mail(argument), general_mail(argument)
    if isinstance(quick, MailCommand) and quick.plain:
        assert check_mailbox(quick.address, smtputf8=False, sender=True) is None
        quick.plain = False
    assert quick == general


@given(ADDRESSES, st.sampled_from(["TO:<", "to:<", "TO: <"]))
def test_quick_rcpt_is_right(address: str, start: str) -> None:
    argument = f"{start}{address}>"
    quick, general = parse_rcpt(argument), general_rcpt(argument)
    if isinstance(quick, RcptCommand) and quick.domain:
        assert check_mailbox(quick.address, smtputf8=False, sender=False) is None
        assert quick.domain == address.rpartition("@")[2].lower()
        quick.domain = ""
    assert quick == general


def test_the_common_form_is_quick() -> None:
    assert parse_mail("FROM:<a.b+c@mail.example.com> SIZE=1234 BODY=8BITMIME") == MailCommand(
        "a.b+c@mail.example.com", 1234, "8BITMIME", plain=True
    )
    assert parse_rcpt("TO:<b@Example.org>") == RcptCommand("b@Example.org", domain="example.org")


@pytest.mark.parametrize("odd", ["\u017f", "\u212a"])  # the long s and the Kelvin sign fold to ASCII letters
def test_letters_that_fold_to_ascii_are_not_plain(odd: str) -> None:
    for address in (f"{odd}@example.com", f"a@{odd}.example.com", f"a@example.{odd}o"):
        mail, rcpt = parse_mail(f"FROM:<{address}>"), parse_rcpt(f"TO:<{address}>")
        assert isinstance(mail, MailCommand)
        assert isinstance(rcpt, RcptCommand)
        assert not mail.plain
        assert not rcpt.domain


@given(st.text(max_size=60))
def test_any_text_gets_an_answer(text: str) -> None:
    for parse, start in ((parse_mail, "FROM:"), (parse_rcpt, "TO:")):
        for argument in (text, start + text, f"{start}<{text}>", f"{start}<a@example.com> {text}"):
            command = parse(argument)
            if isinstance(command, Reply):
                assert command.permanent
                assert re.fullmatch(r"5\.5\.4", command.enhanced)
            else:
                assert "<" not in command.address or command.address.startswith('"') or '"' in command.address


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("<@a.example,@b.example:c@d.example>", "c@d.example"),
        ("<@a.example:c@d.example>", "c@d.example"),
        ('<"a>b"@d.example>', '"a>b"@d.example'),
        ('<"a\\"b c"@d.example>', '"a\\"b c"@d.example'),
        ("c@d.example", "c@d.example"),
        ("  <c@d.example>", "c@d.example"),
        ("< c@d.example >", "c@d.example"),
        ("<<c@d.example>>", "c@d.example"),
        ("<The Shop <c@d.example>>", "c@d.example"),
        ('<"a > b" < c@d.example>>', "c@d.example"),
    ],
)
def test_paths(path: str, address: str) -> None:
    command = general_rcpt(f"TO:{path} NOTIFY=NEVER")
    assert command == RcptCommand(address, frozenset({"NEVER"}))


@pytest.mark.parametrize(
    "path", ["<a c@d.example>", "<<>>", "<A <>>", "<c@d.example <", "<A <c@d.example>", "<<<c@d.example>>>", "<a> <b>>"]
)
def test_no_paths(path: str) -> None:
    assert isinstance(general_rcpt(f"TO:{path}"), Reply)


@pytest.mark.parametrize("envid", ["a+0D+0Ab", "a+0d+0ab", "a+00", "a+7F", "a+1B"])
def test_an_envid_hides_nothing_but_printable_ascii(envid: str) -> None:
    assert isinstance(general_mail(f"FROM:<a@example.com> ENVID={envid}"), Reply)
    assert general_mail("FROM:<a@example.com> ENVID=a+20+2B+3D~") == MailCommand("a@example.com", envid="a+20+2B+3D~")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("a+2b", "a+2B"), ("<a=b+c@d>", "<a+3Db+2Bc@d>"), ("+", "+2B"), ("+a", "+2Ba"), ("++3d=", "+2B+3D+3D"), ("+zz", "+2Bzz"),
        ("me+facebook@example.org", "me+2Bfacebook@example.org"), ("gr+C3+BC", "gr+2BC3+2BBC"),
        ("a" * 300, "a" * 300),
    ],
)  # fmt: skip
def test_what_is_nearly_xtext_is_taken_for_what_it_means(said: str, meant: str) -> None:
    assert general_mail(f"FROM:<a@example.com> ENVID={said}") == MailCommand("a@example.com", envid=meant)
    assert general_rcpt(f"TO:<b@example.org> ORCPT=rfc822;{said}") == RcptCommand("b@example.org", orcpt=f"rfc822;{meant}")


@pytest.mark.parametrize("value", ["a=b", "a+zz", "<>", "<a@b.example>", "a+2b"])
def test_whoever_wrote_a_message_on_behalf_of_whom_is_no_matter(value: str) -> None:
    assert general_mail(f"FROM:<a@example.com> AUTH={value}") == MailCommand("a@example.com")


def test_a_comma_more_in_notify_is_none() -> None:
    assert general_rcpt("TO:<b@example.org> NOTIFY=FAILURE,,DELAY,") == RcptCommand(
        "b@example.org", frozenset({"FAILURE", "DELAY"})
    )
    assert isinstance(general_rcpt("TO:<b@example.org> NOTIFY=,"), Reply)


@pytest.mark.parametrize(
    "hidden",
    [
        "rfc822;a+0d+0ab", "rfc822;a+0D+0Ab@c.example", "rfc822;a+7F", r"utf-8;a\x{D}\x{A}b", r"utf-8;a\x{0000000D}b", "utf-8;a+0Db",
        r"utf-8;a\x{85}", "utf-8;a\x85", r"utf-8;a\x{2028}", r"utf-8;a\x{D800}", r"utf-8;a\x{110000}", r"utf-8;a\x{FFFFFFFFFFFF}",
    ],
)  # fmt: skip
def test_an_original_recipient_hides_no_control_characters(hidden: str) -> None:
    reply = general_rcpt(f"TO:<b@example.org> ORCPT={hidden}")
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (501, "5.5.4")


@pytest.mark.parametrize(
    "shown", ["rfc822;a+20b+2B@c.example", r"utf-8;\x{2B}0D", r"utf-8;j\x{FC}rg\x{20}@c.example", "utf-8;j\u00fcrg@c.example"]
)
def test_an_original_recipient_may_be_any_text(shown: str) -> None:
    assert general_rcpt(f"TO:<b@example.org> ORCPT={shown}") == RcptCommand("b@example.org", orcpt=shown)


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2003", "\x85"])
def test_only_a_space_ends_a_parameter(blank: str) -> None:
    assert isinstance(general_rcpt(f"TO:<b@example.org> ORCPT=utf-8;a{blank}NOTIFY=NEVER"), Reply)
    assert isinstance(general_mail(f"FROM:<b@example.org> SIZE=1{blank}SMTPUTF8"), Reply)


def test_two_spaces_are_one() -> None:
    assert general_rcpt("TO:<b@example.org>  NOTIFY=NEVER  ORCPT=rfc822;b ") == RcptCommand(
        "b@example.org", frozenset({"NEVER"}), "rfc822;b"
    )
