"""Reports as mail programs read them: parsed by two parsers that are not ours, compared with golden files."""

from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from flufl.bounce import all_failures

from sesrelay.mail import dsn, orcpt
from sesrelay.mail.advice import advice
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient

GOLDEN = Path(__file__).parent.parent / "dsn"
CONTENT = b"Received: by us\r\nFrom: a@example.com\r\nSubject: hi\r\n\r\nBody\r\n"
NOBODY = Recipient("nobody@example.org", orcpt="rfc822;nobody@example.org")
FULL = Recipient("full@example.org")
MESSAGE = Message(
    "0f00000000001", Envelope("a@example.com", (NOBODY, FULL), envid="QQ314159"), Origin(), len(CONTENT), 1_800_000_000.0,
    ("a@example.com",), "<one@example.com>", "hi",
)  # fmt: skip
AT = 1_800_000_060.0
REFUSED = dsn.Reported(NOBODY, "550 5.1.1 No such user", "mx.example.org", "", "mx.example.org", "smtp", AT)
BUSY = dsn.Reported(FULL, "452 4.2.2 Mailbox full", "mx.example.org", "", "mx.example.org", "smtp", AT)
TAKEN = dsn.Reported(NOBODY, "250 2.0.0 Ok 0100018f", "Amazon SES in us-east-1", "", "", "X-Amazon-SES", AT)

UTF8_CONTENT = "Received: by us\r\nFrom: jörg@bücher.example\r\nSubject: Grüße\r\n\r\nKörper\r\n".encode()
DAN = Recipient("dän@example.org", orcpt=r"utf-8;d\x{E4}n@example.org")
UTF8 = replace(
    MESSAGE, envelope=Envelope("jörg@bücher.example", (DAN,), "8BITMIME", smtputf8=True), header_from=("jörg@bücher.example",),
    subject="Grüße",
)  # fmt: skip

CASES: dict[str, tuple[dsn.Kind, Message, bytes, tuple[dsn.Reported, ...]]] = {
    "failed": ("failed", MESSAGE, CONTENT, (REFUSED,)),
    "failed_several": ("failed", MESSAGE, CONTENT, (REFUSED, replace(BUSY, reply="552 5.2.2 Mailbox full"))),
    "failed_headers": ("failed", replace(MESSAGE, envelope=replace(MESSAGE.envelope, ret="HDRS")), CONTENT, (REFUSED,)),
    "failed_by_ses": (
        "failed", MESSAGE, CONTENT,
        (dsn.Reported(FULL, "554 5.7.1 MessageRejected: virus", "Amazon SES in us-east-1", "", "", "X-Amazon-SES", AT),),
    ),
    "failed_utf8": ("failed", UTF8, UTF8_CONTENT, (replace(REFUSED, recipient=DAN),)),
    "expired": ("failed", MESSAGE, CONTENT, (dsn.Reported(FULL, "451 4.4.1 cannot connect to mx.example.org", attempted=AT),)),
    "delayed": ("delayed", MESSAGE, CONTENT, (replace(BUSY, remedy="Look at the disk of mx.example.org."),)),
    "relayed": ("relayed", MESSAGE, CONTENT, (TAKEN,)),
}  # fmt: skip


def compose(
    kind: dsn.Kind = "failed", message: Message = MESSAGE, content: bytes = CONTENT, reported: tuple[dsn.Reported, ...] = (REFUSED,)
) -> bytes:
    report = dsn.Report(
        kind, message, reported, "mailer-daemon@example.com", "relay.example.net", "0f00000000002", AT, 1_800_259_200.0
    )
    return dsn.compose(report, content)


def parse(raw: bytes) -> EmailMessage:
    parsed = message_from_bytes(raw, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def status(parsed: EmailMessage) -> list[dict[str, str]]:
    part = parsed.get_payload(1)
    assert isinstance(part, EmailMessage)
    return [dict(block.items()) for block in part.get_payload()]  # type: ignore[union-attr]


def text_of(raw: bytes) -> str:
    part = parse(raw).get_payload(0)
    assert isinstance(part, EmailMessage)
    return str(part.get_content()).replace("\r\n", "\n")


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    assert compose(*CASES[name]).decode() == (GOLDEN / f"{name}.eml").read_bytes().decode()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.eml")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_what_every_report_has(name: str) -> None:
    raw = compose(*CASES[name])
    parsed = parse(raw)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert len(list(parsed.iter_parts())) == 3
    assert not parsed.defects
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert parsed["From"].addresses[0].addr_spec == "mailer-daemon@example.com"
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert max(map(len, text_of(raw).splitlines())) <= 110
    assert text_of(raw).startswith("What to do"), "the remedy comes first"
    head = raw.partition(b"\r\n\r\n")[0].split(b"\r\nTo:")
    assert head[0].isascii()


@pytest.mark.parametrize("name", [name for name in CASES if name != "failed_utf8"])
def test_flufl_bounce_finds_who_failed(name: str) -> None:
    kind, _, _, reported = CASES[name]
    temporary, permanent = all_failures(message_from_bytes(compose(*CASES[name])))
    addresses = {one.recipient.address.encode() for one in reported}
    assert permanent == (addresses if kind == "failed" else set())
    assert temporary == (addresses if kind == "delayed" else set())


def test_fields() -> None:
    per_message, recipient = status(parse(compose()))
    assert per_message["Original-Envelope-Id"] == "QQ314159"
    assert per_message["Reporting-MTA"] == "dns; relay.example.net"
    assert per_message["Arrival-Date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    assert recipient == {
        "Final-Recipient": "rfc822; nobody@example.org",
        "Original-Recipient": "rfc822;nobody@example.org",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.org",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
        "Last-Attempt-Date": "Fri, 15 Jan 2027 08:01:00 +0000",
    }


@pytest.mark.parametrize(
    ("kind", "reply", "code"),
    [
        ("failed", "550 5.1.1 No such user", "5.1.1"),
        ("failed", "550 No such user", "5.0.0"),
        ("failed", "451 4.2.1 mailbox busy", "5.4.7"),
        ("failed", "", "5.0.0"),
        ("delayed", "451 4.2.1 mailbox busy", "4.2.1"),
        ("delayed", "", "4.0.0"),
        ("relayed", "250 Ok", "2.0.0"),
        ("relayed", "250 2.6.0 Ok", "2.6.0"),
    ],
)
def test_the_status_is_of_the_class_of_its_action(kind: dsn.Kind, reply: str, code: str) -> None:
    _, recipient = status(parse(compose(kind, MESSAGE, CONTENT, (replace(REFUSED, reply=reply),))))
    assert (recipient["Action"], recipient["Status"]) == (kind, code)
    assert ("Diagnostic-Code" in recipient) is bool(reply)
    assert ("Will-Retry-Until" in recipient) is (kind == "delayed")


@pytest.mark.parametrize(
    "words", ["no " * 700, "x" * 2_000, "日" * 2_000, ("日" * 200 + "\u3000") * 9, "550-see https://example.org/ " * 80]
)
def test_however_much_a_host_or_a_subject_says_no_line_is_too_long(words: str) -> None:
    said = f"550 5.7.1 {words}".strip()
    for original in (MESSAGE, replace(MESSAGE, envelope=replace(MESSAGE.envelope, sender="ü@example.com", smtputf8=True))):
        report = compose("failed", replace(original, subject=words), CONTENT, (replace(REFUSED, reply=said),))
        assert max(map(len, report.split(b"\r\n"))) <= dsn.LINE_MAX
        if original is MESSAGE:
            _, recipient = status(parse(report))
            told = recipient["Diagnostic-Code"].replace("\r\n", "")
            assert told.replace(" ", "") == "".join(f"smtp;{said}".split()).encode("ascii", "replace").decode()


def test_what_nobody_tried_has_no_last_attempt_and_no_host() -> None:
    _, recipient = status(parse(compose("delayed", MESSAGE, CONTENT, (dsn.Reported(FULL, ""),))))
    assert not {"Last-Attempt-Date", "Remote-MTA", "Diagnostic-Code"} & set(recipient)


def test_one_remedy_stands_once_and_several_name_whom_they_are_about() -> None:
    other = replace(REFUSED, recipient=FULL)
    assert text_of(compose("failed", MESSAGE, CONTENT, (REFUSED, other))).count("What to do") == 1
    text = text_of(compose("failed", MESSAGE, CONTENT, (REFUSED, replace(other, reply="552 5.2.2 full"))))
    assert "What to do about nobody@example.org:" in text
    assert "What to do about full@example.org: Ask" in " ".join(text.split())


def test_the_remedy_of_the_outcome_goes_before_the_general_one() -> None:
    text = text_of(compose("failed", MESSAGE, CONTENT, (replace(REFUSED, remedy="Mend the form."),)))
    assert text.startswith("What to do: Mend the form.\n")


@pytest.mark.parametrize(
    ("message", "content", "returned"),
    [
        (MESSAGE, CONTENT, "message/rfc822"),
        (replace(MESSAGE, envelope=replace(MESSAGE.envelope, ret="HDRS")), CONTENT, "text/rfc822-headers"),
        (MESSAGE, CONTENT + b"x\r\n" * 30_000, "text/rfc822-headers"),
        (replace(MESSAGE, envelope=replace(MESSAGE.envelope, ret="FULL")), CONTENT + b"x\r\n" * 30_000, "message/rfc822"),
        (replace(MESSAGE, envelope=replace(MESSAGE.envelope, ret="FULL")), CONTENT + b"x\r\n" * 1_400_000, "text/rfc822-headers"),
        (MESSAGE, CONTENT + b"x" * 999 + b"\r\n", "text/rfc822-headers"),
        (MESSAGE, CONTENT + "ü\r\n".encode(), "message/rfc822"),
    ],
)
def test_what_is_returned(message: Message, content: bytes, returned: str) -> None:
    raw = compose("failed", message, content)
    assert parse(raw).get_payload(2).get_content_type() == returned  # type: ignore[union-attr]
    assert (b"\r\nBody\r\n" in raw) is (returned == "message/rfc822")


@pytest.mark.parametrize("kind", ["delayed", "relayed"])
def test_only_a_failure_returns_the_whole_message(kind: dsn.Kind) -> None:
    raw = compose(kind, replace(MESSAGE, envelope=replace(MESSAGE.envelope, ret="FULL")))
    assert parse(raw).get_payload(2).get_content_type() == "text/rfc822-headers"  # type: ignore[union-attr]


def test_addresses_that_are_not_ascii_and_hostile_text() -> None:
    evil = dsn.Reported(Recipient("jörg+x@bücher.example"), "550 5.0.0 evil ü\r\nInjected: yes", "mx")
    raw = compose("failed", replace(MESSAGE, subject="a\r\nBcc: x@example.net", message_id="<a\r\nBcc: y>"), CONTENT, (evil,))
    assert b"\r\nInjected:" not in raw
    assert b"\r\nBcc:" not in raw
    _, recipient = status(parse(raw))
    assert recipient["Final-Recipient"] == r"utf-8; j\x{F6}rg\x{2B}x@b\x{FC}cher.example"
    assert recipient["Diagnostic-Code"].isascii(), "a part of type message/delivery-status is ASCII"
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")


def test_a_sender_that_reads_utf8_gets_it_as_it_is() -> None:
    raw = compose(*CASES["failed_utf8"])
    kinds = [part.get_content_type() for part in parse(raw).iter_parts()]  # type: ignore[attr-defined]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global"]
    assert "\r\nFinal-Recipient: utf-8; dän@example.org\r\nOriginal-Recipient: utf-8;dän@example.org\r\n".encode() in raw
    hdrs = replace(UTF8, envelope=replace(UTF8.envelope, ret="HDRS"))
    headers_only = compose("failed", hdrs, UTF8_CONTENT, (replace(REFUSED, recipient=DAN),))
    assert b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n" in headers_only
    ascii_sender = replace(UTF8, envelope=replace(UTF8.envelope, smtputf8=False))
    escaped = compose("failed", ascii_sender, UTF8_CONTENT, (replace(REFUSED, recipient=DAN),))
    assert rb"Original-Recipient: utf-8;d\x{E4}n@example.org" in escaped


def test_xtext_is_decoded() -> None:
    recipient = Recipient("nobody@example.org", orcpt="rfc822;o+2Bx@example.org")
    message = replace(MESSAGE, envelope=Envelope("a@example.com", (recipient,), envid="EE+2B1"))
    raw = compose("failed", message, CONTENT, (replace(REFUSED, recipient=recipient),))
    assert b"Original-Envelope-Id: EE+1\r\n" in raw
    assert b"Original-Recipient: rfc822;o+x@example.org\r\n" in raw


@pytest.mark.parametrize(
    ("address", "original"),
    [("ops+night@example.org", "rfc822;ops+night@example.org"), ("a=+2B@example.org", "rfc822;a=+2B@example.org"),
     ("dän@example.org", r"utf-8;d\x{E4}n@example.org")],
)  # fmt: skip
def test_an_original_recipient_of_ours_comes_back_as_it_was(address: str, original: str) -> None:
    recipient = Recipient("nobody@example.org", orcpt=orcpt.made(address))
    raw = compose("failed", MESSAGE, CONTENT, (replace(REFUSED, recipient=recipient),))
    assert f"\r\nOriginal-Recipient: {original}\r\n".encode() in raw


def test_another_sender_changes_one_line() -> None:
    raw = compose()
    changed = dsn.with_sender(raw, "mailer-daemon@other.example")
    before, after = raw.split(b"\r\n"), changed.split(b"\r\n")
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [
        (
            b"From: Mail Delivery System <mailer-daemon@example.com>",
            b"From: Mail Delivery System <mailer-daemon@other.example>",
        )
    ]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("550 5.1.1 No such user", "typing errors"),
        ("550 Requested action not taken", "typing errors"),
        ("556 5.1.10 null MX", "this domain does not accept mail"),
        ("552 5.2.2 quota", "delete mail from the full mailbox"),
        ("552 5.3.4 too big", "a link to the file"),
        ("554 5.4.6 loop", "sent in a loop"),
        ("550 5.6.7 SMTPUTF8", "letters such as"),
        ("554 5.6.0 bad MIME", "as plain text"),
        ("550 5.7.1 spam", "to allow mail from your address"),
        ("550 5.7.26 unauthenticated", "SPF, DKIM, DMARC"),
        ("550 5.7.515 unauthenticated", "SPF, DKIM, DMARC"),
        ("451 4.4.1 no answer", "send the message again later"),
        ("571 whatever", "forward this message to your mail administrator"),
        ("554 5.9.9 whatever", "forward this message to your mail administrator"),
        ("", "forward this message to your mail administrator"),
    ],
)
def test_advice(reply: str, words: str) -> None:
    assert words in " ".join(advice(reply).split())
