"""Who may send as whom: the named keep what is theirs and keep to it, whatever an address is written like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import processor_time
from sesrelay.mail.authors import authors
from sesrelay.mail.envelope import Origin, Owner
from sesrelay.mail.headers import completed, facts
from sesrelay.policy.admission import LocalMail
from sesrelay.policy.senders import Account, Grant, SenderRules, accounts_of

LOCAL = LocalMail("host.example.net", "mail.example.net")
WEB, OTHER, UID = Account("local", "www-data"), Account("local", "other"), Account("local", "1234")
BLOG = Account("user", "blog")

RULES = SenderRules(
    [
        Grant("example.com", WEB),
        Grant("shared.example", WEB),
        Grant("shared.example", OTHER),
        Grant("*.wild.example", WEB),
        Grant("shop.wild.example", OTHER),
        Grant("ceo@boss.example", OTHER),
        Grant("bücher.example", OTHER),
        Grant("blog.example", BLOG),
        Grant("number.example", UID),
    ],
    LOCAL,
)


def owner(name: str, uid: int = 33) -> Origin:
    return Origin("127.0.0.1:25", "127.0.0.1", owner=Owner(uid, name))


WWW, ELSE, ROOT, STRANGER = owner("www-data"), owner("other", 1001), owner("root", 0), Origin("127.0.0.1:25", "127.0.0.1")


def allowed(sender: str, origin: Origin) -> bool:
    refusal = RULES.check_envelope(sender, origin)
    assert refusal is None or (refusal.code, refusal.enhanced) == (550, "5.7.1")
    return refusal is None


@pytest.mark.parametrize(
    ("origin", "sender", "passes"),
    [
        (WWW, "a@example.com", True),
        (WWW, "A@EXAMPLE.COM.", True),
        (WWW, "a@shared.example", True),
        (WWW, "a@x.wild.example", True),
        (WWW, "a@x.y.wild.example", True),
        (WWW, "a@shop.wild.example", False),  # the more specific pattern is another's
        (WWW, "a@wild.example", False),  # *.wild.example has sub-domains only
        (WWW, "a@www.example.com", False),
        (WWW, "a@notexample.com", False),
        (WWW, "a@example.com.evil.org", False),
        (WWW, "a@unnamed.example", False),
        (WWW, "a@xn--bcher-kva.example", False),
        (WWW, "a@blog.example", False),
        (WWW, "", True),
        (ELSE, "a@shop.wild.example", True),
        (ELSE, "a@shared.example", True),
        (ELSE, "a@BÜCHER.example", True),
        (ELSE, "a@xn--bcher-kva.example", True),
        (ELSE, "ceo@boss.example", True),
        (ELSE, "CEO@Boss.Example", True),
        (ELSE, '"ceo"@boss.example', True),
        (ELSE, "worker@boss.example", False),
        (ELSE, "a@example.com", False),
        (ROOT, "a@unnamed.example", True),
        (ROOT, "worker@boss.example", True),
        (ROOT, "a@example.com", False),
        (ROOT, "a@EXAMPLE.com", False),
        (ROOT, '"ceo"@boss.example', False),
        (ROOT, '"c\\eo"@boss.example', False),
        (ROOT, "a@b\u00fccher.example", False),
        (ROOT, "a@bu\u0308cher.example", False),  # the same letter in two code points
        (ROOT, "root@mail.example.net", True),
        (STRANGER, "a@unnamed.example", True),
        (STRANGER, "a@ｅｘａｍｐｌｅ.com", False),  # full-width letters are the same domain
        (STRANGER, "a@example\u3002com", False),
        (STRANGER, "a@exam\ufe0fple.com", False),  # what is not to be seen is left out by many (UTS 46)
        (STRANGER, "a@exam\u034fple.com", False),
        (STRANGER, "a@exam\u200cple.com", False),
        (STRANGER, "a@exam\u200dple.com", False),
        (STRANGER, "a@blog.example", False),
        (STRANGER, "", True),
    ],
)
def test_envelope_senders(origin: Origin, sender: str, passes: bool) -> None:
    assert allowed(sender, origin) is passes


def test_a_login_and_an_owner_each_grant_and_each_confine() -> None:
    blog = Origin("127.0.0.1:25", "127.0.0.1", user="blog")
    assert allowed("a@blog.example", blog)
    assert not allowed("a@unnamed.example", blog)
    assert not allowed("a@example.com", blog)
    both = Origin("127.0.0.1:25", "127.0.0.1", user="blog", owner=Owner(33, "www-data"))
    assert allowed("a@blog.example", both) and allowed("a@example.com", both)
    assert not allowed("a@unnamed.example", both)
    by_root = Origin("127.0.0.1:25", "127.0.0.1", user="blog", owner=Owner(0, "root"))
    assert not allowed("a@unnamed.example", by_root)
    nobody = Origin("127.0.0.1:25", "127.0.0.1", user="guest")
    assert allowed("a@unnamed.example", nobody) and not allowed("a@blog.example", nobody)


def test_a_user_and_a_local_user_of_one_name_are_two() -> None:
    assert not allowed("a@example.com", Origin(user="www-data"))
    assert not allowed("a@blog.example", owner("blog", 1002))


def test_a_local_user_can_be_named_by_his_uid() -> None:
    assert allowed("a@number.example", owner("", 1234))
    assert allowed("a@number.example", owner("alice", 1234))
    assert not allowed("a@unnamed.example", owner("alice", 1234))
    assert not allowed("a@number.example", owner("alice", 1235))
    assert accounts_of(owner("alice", 7)) == {Account("local", "alice"), Account("local", "7")}


@pytest.mark.parametrize(
    ("sender", "passes"),
    [
        ("www-data@mail.example.net", True),
        ("WWW-Data@MAIL.example.net", True),
        ("www-data@host.example.net", True),
        ("root@mail.example.net", False),
        ("other@mail.example.net", False),
        ("www-data@x.mail.example.net", False),
    ],
)
def test_the_named_keep_their_own_name_at_this_machine(sender: str, passes: bool) -> None:
    assert allowed(sender, WWW) is passes


def test_unless_the_local_domain_is_somebodys() -> None:
    rules = SenderRules([Grant("example.com", WEB), Grant("mail.example.net", OTHER)], LOCAL)
    assert rules.check_envelope("www-data@mail.example.net", WWW)
    assert rules.check_envelope("www-data@host.example.net", WWW) is None
    assert rules.check_envelope("root@mail.example.net", ROOT)


def header(value: str, origin: Origin, sender: str = "a@example.com") -> str:
    head = value.encode() if value.startswith(("From", "FROM", "X")) else f"From: {value}\r\n".encode()
    refusal = RULES.check_header(facts(head).header_from, authors(head), sender, origin)
    return str(refusal) if refusal else ""


SPOOFS = [
    "boss@example.com",
    "Boss <boss@EXAMPLE.COM>",
    "me@unnamed.example, boss@example.com",
    "<me@unnamed.example>, Boss <boss@example.com>",
    "boss@example.com <me@unnamed.example>",
    "Friends: me@unnamed.example, boss@example.com;",
    "<@relay.example:boss@example.com>",
    "boss @ example . com",
    "boss@(really)example(x).com",
    "boss@exam(x)ple.com",
    '"boss"@example.com',
    '"Boss <boss@example.com>',
    'Boss\\" <boss@example.com>',
    "=?utf-8?q?boss=40example=2Ecom?=",
    "boss@example.com.",
    "boss@example\r\n .com",
    "\r\n boss@example.com",
    "boss@\r\n\texample.com",
    "boss@ｅｘａｍｐｌｅ.com",
    "me@unnamed.example\r\nSubject: x\r\nFrom: boss@example.com",
    "me@unnamed.example\r\nfROM : boss@example.com",
    "\r\nFrom: boss@example.com",
    "(unclosed <boss@example.com>",
    "<boss@example.com",
    "me@unnamed.example;boss@example.com",
    "me@unnamed.example boss@example.com",
]


AMBIGUOUS = [  # no mailbox by any rule, and yet a reader of the standard library finds the boss in each
    "boss@ (x)example.com\\",
    "\\boss@(x)example.com",
    "boss@exam\\ple.com",
    "(boss@(x)example.com",
    "boss@example.com\r\n\t.unnamed.example",
    "boss@example .com\r\n .unnamed.example",
    "=?utf-8?q?boss=40example=2Ecom?= ü",
    "=?utf-8?q?=62?oss=40example=2Ecom?= ü",
    "=?utf-8?q?bo?=\r\n =?utf-8?q?ss =40example?=\t=?us-ascii?b?LmNvbQ==?=",
    "=?utf-8?q?boss=40example=2Ecom?=, me@unnamed.example",
    "=?utf-8?q?boss=40example=2Ecom?= me@unnamed.example",
    "=?utf-8?q?boss=40example=2Ecom?=me@unnamed.example",
    "=?utf-8?q?boss=40example=2Ecom?= =?utf-8?q?Boss?=",
    "=?utf-8*en?q?boss=40example=2Ecom?=",
    "=?us-ascii?q?boss=40example=2Ecom=20=FF?=",
    "boss@example.com(x)unnamed",
    "boss@example.(x)com(x (y))unnamed:\\",
    "unnamed(x)ceo@boss.example",
    "=?utf-8?q?boss=40example=2Ecom?= > . =?utf-8?q?Boss?= <me@unnamed>",
]

OF_OTHERS = [  # what programs in other languages find there: Ruby's Mail, nodemailer
    "me@unnamed.example <=?utf-8?q?boss=40example=2Ecom?=>",
    "=?x-unheard-of?q?boss=40example=2Ecom?=",
    "boss@example.com\u00fc",
    "(boss@example.com)",
]


@pytest.mark.parametrize("value", [*SPOOFS, *AMBIGUOUS, *OF_OTHERS])
def test_no_spelling_of_a_header_from_gets_past(value: str) -> None:
    assert header(value, ROOT).startswith("550 5.7.1 ")
    assert header(value, STRANGER, "").startswith("550 5.7.1 ")


@pytest.mark.parametrize("value", [spoof for spoof in SPOOFS if "unnamed" not in spoof and "@relay" not in spoof])
def test_and_its_owner_may_spell_it_like_that(value: str) -> None:
    assert header(value, WWW) == ""


@pytest.mark.parametrize(
    "value",
    [
        "me@unnamed.example",
        '"boss@example.com" <me@unnamed.example>',  # a name, shown as one
        "me@unnamed.example (boss@example.com)",
        "me@unnamed.example (=?utf-8?q?boss=40example=2Ecom?=)",
        '"J. =?utf-8?q?J=C3=B6rg=2C_boss=40example=2Ecom?=" <me@unnamed.example>',
        "J . Boss <me@unnamed.example>",
        "Friends: =?utf-8?q?J=C3=B6rg=2C_boss=40example=2Ecom?= <me@unnamed.example>;",
        '"Boss, example.com" <me@unnamed.example>',
        "=?utf-8?q?J=C3=B6rg_=28boss=40example.com=29?= <me@unnamed.example>",
        "Boss of example.com <me@unnamed.example>",
        "undisclosed:;",
        "me@example.com.unnamed.example",
        "X: boss@example.com\r\nResent-From: boss@example.com\r\nSender: boss@example.com\r\n",
        "From: me@unnamed.example\r\nSender: boss@example.com\r\nReply-To: boss@example.com\r\n",
        "From: me@unnamed.example\r\nX-From: boss@example.com\r\nSubject: boss\r\n From: boss@example.com\r\n",
    ],
)
def test_what_is_no_author_is_no_matter(value: str) -> None:
    assert header(value, ROOT) == ""


@pytest.mark.parametrize("value", ["a@unnamed.example", "a@example.com, b@unnamed.example", "a@exam\u00adple.com", "a@[127.0.0.1]"])
def test_the_named_keep_to_their_domains_in_the_header_too(value: str) -> None:
    assert header(value, WWW).startswith("550 5.7.1 ")


@pytest.mark.parametrize(
    "value",
    [
        "root",
        "root (a@example.com)",
        '"a@example.com" <root>',
        "root, a@example.com",
        "Boss <root>, a@example.com",
        "grp: root;",
        '"root"',
        "root;",
        "a@example.com; root",
        "<a@example.com> root",
        "(unclosed <root>, a@example.com",
        "=?utf-8?q?root?=",
        "a@example.com\r\nFrom: root, b@example.com",
    ],
)
def test_a_name_without_a_domain_counts_as_one_of_this_machine(value: str) -> None:
    came = f"From: {value}\r\n".encode()
    head, _ = completed(came, LOCAL.domain, "a@example.com")
    for each in (came, head):
        for sender in ("a@example.com", ""):
            refusal = RULES.check_header(facts(each).header_from, authors(each, LOCAL.domain), sender, WWW)
            assert str(refusal).startswith("550 5.7.1 <"), each


def test_cron_may_sign_as_root_for_a_job_of_his() -> None:
    cron = "root@mail.example.net (Cron Daemon)"
    assert header(cron, WWW, "www-data@mail.example.net") == ""
    assert header(cron, WWW, "a@example.com").startswith("550")
    assert header(cron, WWW, "").startswith("550")
    assert header("admin@mail.example.net", WWW, "www-data@mail.example.net").startswith("550")


def test_without_rules_everybody_may() -> None:
    nothing = SenderRules((), LOCAL)
    assert not nothing
    assert nothing.check_envelope("a@example.com", WWW) is None
    assert nothing.check_header(("not an address",), ("x@",), "", STRANGER) is None


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(ValueError, match="'a b' is not an address"):
        SenderRules([Grant("a b", WEB)])


def test_the_refusal_names_the_address_and_the_client_and_no_other() -> None:
    assert (
        str(RULES.check_envelope("a@example.com", ROOT))
        == "550 5.7.1 <a@example.com> is reserved for other users, and this client is local user root"
    )
    assert "not identified" in str(RULES.check_envelope("a@example.com", STRANGER))
    assert "local user www-data, who may use only" in str(RULES.check_envelope("a@unnamed.example", WWW))


@given(st.text(st.sampled_from('ab@.,<>"()\\:; =?[]\r\n\t\u00fc'), max_size=40))
def test_a_plain_address_is_found_behind_any_rubbish(rubbish: str) -> None:
    rubbish = rubbish.replace("\r", "").replace("\n", "")
    value = f"From: {rubbish}, <boss@example.com>\r\n".encode()
    hidden = rubbish.count('"') or "(" in rubbish or "\\" in rubbish or "[" in rubbish
    assert "boss@example.com" in authors(value) or hidden


@pytest.mark.parametrize(
    "piece", ["(", '"', "@", "a", " ", '\\"', "<", "a@b. ", "()", " . ", "[", "a .", "()(", "=?", "=?a?q?b", "=?a?q?b?= ", '", ']
)
def test_a_monstrous_from_takes_no_monstrous_time(piece: str) -> None:
    with processor_time.limited(20):  # linear is well below a second, quadratic minutes
        authors(b"From: " + piece.encode() * 100_000 + b"\r\n")
