"""The mail libraries of five languages, each as applications use it: what they hand in is what the next hop gets."""

from __future__ import annotations

import base64
import re
import smtplib

import pytest

from clients.languages import LIBRARIES, Library, Way, mail, send
from clients.sink import Sink, Wiretap, body, parsed, recipients
from relay_process import Relay

SENDER = "shop@example.net"
# Dots that SMTP doubles, 8 bits, an empty line, and a line longer than a program may write.
TEXT = f"Grüße,\n.\n..two dots\n.hidden\n\n{'lang ' * 300}\nthe shop\n"
# The longest line that RFC 5321 allows, for programs that write the content themselves.
OWN_TEXT = f"Grüße,\n.\n..two dots\n.hidden\n\n{'x' * 998}\nthe shop\n"
ATTACHED = bytes(range(256)) * 40


def address(library: Library, what: str) -> str:
    return f"{what}.{library.name.replace('::', '-').lower()}@example.org"


@pytest.fixture(params=LIBRARIES, ids=str)
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.param
    return found


def test_a_message_with_everything(library: Library, way: Way, sink: Sink) -> None:
    to, cc, bcc = [address(library, "first"), address(library, "second")], address(library, "copy"), address(library, "blind")
    attachment = {"name": "bill.bin", "base64": base64.b64encode(ATTACHED).decode()}
    text = TEXT if library.mime else OWN_TEXT
    sent = send(library, way, mail(SENDER, to, cc=[cc], bcc=[bcc], subject="Grüße", text=text, attachment=attachment))
    assert sent.told[0]["ok"], sent.told

    found = sink.message(to[0])
    assert found.mail.startswith(f"MAIL FROM:<{SENDER}>")
    assert recipients(found) == {*to, cc, bcc}
    assert b"blind." not in found.content
    if not library.mime:
        assert body(found.content).rstrip() == text.encode().replace(b"\n", b"\r\n").rstrip()
        return
    message = parsed(found.content)
    assert message["Subject"] == "Grüße"
    assert message["Bcc"] is None
    plain = message.get_body(("plain",))
    assert plain is not None
    # ruby-mail before 2.8 writes the CR of a line end into the text itself.
    assert re.sub(r"\r*\n", "\n", plain.get_content()).rstrip() == text.rstrip()
    (part,) = message.iter_attachments()
    assert part.get_filename() == "bill.bin"
    assert part.get_payload(decode=True) == ATTACHED


def test_several_messages_over_one_connection(library: Library, relay: Relay, sink: Sink) -> None:
    to = [address(library, f"kept{i}") for i in range(3)]
    with Wiretap(*relay.smtp) as tap:
        sent = send(library, Way("127.0.0.1", tap.port), *(mail(SENDER, one) for one in to))
    assert [one["ok"] for one in sent.told] == [True] * 3
    for one in to:
        assert recipients(sink.message(one)) == {one}
    assert len(tap.said) == (1 if library.keeps else 3)


def test_a_refused_sender_shows(library: Library, way: Way) -> None:
    assert "5.7.1" in send(library, way, mail("shop@refused.example", address(library, "refused"))).error


def test_a_refused_recipient_shows_and_the_next_message_goes(library: Library, way: Way, sink: Sink) -> None:
    after = address(library, "after")
    first, second = send(library, way, mail(SENDER, "nobody@app.localhost"), mail(SENDER, after)).told
    assert not first["ok"]
    assert "5.1.3" in first["error"]
    assert second["ok"]
    assert recipients(sink.message(after)) == {after}


def test_a_full_disk_is_no_refusal_for_good(library: Library, full: Way) -> None:
    error = send(library, full, mail(SENDER, address(library, "later"))).error
    assert "4.3.1" in error
    assert "55" not in error


@pytest.mark.parametrize("library", [library for library in LIBRARIES if library.dsn], ids=str)
def test_wishes_for_reports_reach_the_next_hop(library: Library, way: Way, sink: Sink) -> None:
    to = address(library, "dsn")
    sent = send(library, way, mail(SENDER, to, dsn="SUCCESS,FAILURE"))
    assert sent.told[0]["ok"], sent.told
    found = sink.message(to)
    (rcpt,) = found.rcpt
    assert {"NOTIFY=SUCCESS,FAILURE", "NOTIFY=FAILURE,SUCCESS"} & set(rcpt.split())
    if library.name != "PHPMailer":  # knows of NOTIFY only
        assert "RET=HDRS" in found.mail.split()
        assert "ENVID=order-17" in found.mail.split()


@pytest.mark.parametrize(
    "name", ["[127.0.0.1]", "[IPv6:2001:db8::1]", "localhost", "my_host", "HOST.", "192.0.2.1", "FE80::XXX", "-"]
)
def test_any_name_in_ehlo_will_do(name: str, way: Way) -> None:
    with smtplib.SMTP(way.host, way.port, timeout=20) as smtp:
        assert smtp.ehlo(name)[0] == 250
        assert smtp.mail(SENDER)[0] == 250
