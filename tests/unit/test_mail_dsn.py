"""Reports as a mail program reads them: parsed by the standard library, compared with golden files."""

from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from sesrelay.mail import dsn
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient

GOLDEN = Path(__file__).parent.parent / "dsn"
CONTENT = b"Received: by us\r\nFrom: a@example.com\r\nSubject: hi\r\n\r\nBody\r\n"
NOBODY = Recipient("nobody@example.org", orcpt="rfc822;nobody@example.org")
MESSAGE = Message(
    "0f00000000001", Envelope("a@example.com", (NOBODY,), envid="QQ314159"), Origin(), len(CONTENT), 1_800_000_000.0,
    ("a@example.com",), "<one@example.com>", "hi",
)  # fmt: skip
REFUSED = dsn.Reported(NOBODY, "550 5.1.1 No such user", "mx.example.org", "Check the address for typing errors.")


def compose(kind: dsn.Kind = "failed", message: Message = MESSAGE, content: bytes = CONTENT, *reported: dsn.Reported) -> bytes:
    return dsn.compose(
        kind, message, content, reported or (REFUSED,), hostname="relay.example.net", queue_id="0f00000000002", now=1_800_000_060.0,
        until=1_800_259_200.0,
    )  # fmt: skip


def parse(raw: bytes) -> EmailMessage:
    parsed = message_from_bytes(raw, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def status(parsed: EmailMessage) -> list[dict[str, str]]:
    part = parsed.get_payload(1)
    assert isinstance(part, EmailMessage)
    return [dict(block.items()) for block in part.get_payload()]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["failed", "delayed", "relayed"])
def test_golden(kind: dsn.Kind) -> None:
    assert compose(kind).decode() == (GOLDEN / f"{kind}.eml").read_bytes().decode()


def test_structure() -> None:
    parsed = parse(compose())
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in parsed.iter_parts()] == ["text/plain", "message/delivery-status", "message/rfc822"]
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert parsed["From"].addresses[0].addr_spec == "mailer-daemon@example.com"
    per_message, recipient = status(parsed)
    assert per_message["Original-Envelope-Id"] == "QQ314159"
    assert per_message["Reporting-MTA"] == "dns; relay.example.net"
    assert recipient["Final-Recipient"] == "rfc822; nobody@example.org"
    assert recipient["Original-Recipient"] == "rfc822;nobody@example.org"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"


def test_the_remedy_comes_before_the_answer() -> None:
    part = parse(compose()).get_payload(0)
    assert isinstance(part, EmailMessage)
    text = part.get_content()
    assert text.index("What to do: Check the address") < text.index("550 5.1.1")


def test_expired_says_so() -> None:
    parsed = parse(compose("failed", MESSAGE, CONTENT, replace(REFUSED, reply="451 4.2.1 mailbox busy")))
    assert status(parsed)[1]["Status"] == "5.4.7"


@pytest.mark.parametrize(
    ("message", "content", "returned"),
    [
        (MESSAGE, CONTENT, "message/rfc822"),
        (replace(MESSAGE, envelope=replace(MESSAGE.envelope, ret="HDRS")), CONTENT, "text/rfc822-headers"),
        (MESSAGE, CONTENT + b"x" * 70_000 + b"\r\n", "text/rfc822-headers"),
        (MESSAGE, CONTENT + b"x" * 999 + b"\r\n", "text/rfc822-headers"),
        (MESSAGE, CONTENT + "ü\r\n".encode(), "message/rfc822"),
    ],
)
def test_what_is_returned(message: Message, content: bytes, returned: str) -> None:
    raw = compose("failed", message, content)
    assert parse(raw).get_payload(2).get_content_type() == returned  # type: ignore[union-attr]
    assert (b"\r\nBody\r\n" in raw) is (returned == "message/rfc822")


def test_addresses_that_are_not_ascii_and_hostile_text() -> None:
    evil = dsn.Reported(Recipient("jörg@bücher.example"), "550 5.0.0 evil\r\nInjected: yes", "mx")
    raw = compose("failed", replace(MESSAGE, subject="a\r\nBcc: x@example.net"), CONTENT, evil)
    assert b"\r\nInjected:" not in raw
    assert b"\r\nBcc:" not in raw
    assert status(parse(raw))[1]["Final-Recipient"] == r"utf-8; j\x{F6}rg@b\x{FC}cher.example"
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")


def test_xtext_is_decoded() -> None:
    recipient = Recipient("nobody@example.org", orcpt="rfc822;o+2Bx@example.org")
    message = replace(MESSAGE, envelope=Envelope("a@example.com", (recipient,), envid="EE+2B1"))
    raw = compose("failed", message, CONTENT, replace(REFUSED, recipient=recipient))
    assert b"Original-Envelope-Id: EE+1\r\n" in raw
    assert b"Original-Recipient: rfc822;o+x@example.org\r\n" in raw
