"""Mail as programs really write it (tests/corpus), made fit for SES: the receipts, and what readers then see."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path

import pytest

from sesrelay.mail import headers
from sesrelay.mail.lineends import canonical
from sesrelay.mail.outcome import Failed
from sesrelay.policy.ses_shape import Facts, Rules, Shaped, shape
from sesrelay.testing.ses_rules import check_form

CORPUS = Path(__file__).parents[1] / "corpus"
THREADED = "put Message-ID into References"
EXPECTED: dict[str, tuple[str, ...]] = {
    "plain": (),
    "php_mail": (
        THREADED, "encoded as quoted-printable (8-bit octets)", "encoded Subject in ASCII", "encoded Reply-To in ASCII",
    ),
    "latin1_form": ("encoded as quoted-printable (8-bit octets)", "encoded Subject in ASCII"),
    "newsletter_minified": (
        THREADED, "encoded as quoted-printable (a line over 998 octets and 8-bit octets) in part 2",
        "removed DKIM-Signature of example.com: it signs the body, which was re-encoded",
    ),
    "invoice_one_line_base64": (
        THREADED, "rewrapped base64 to lines of 76 (a line over 998 octets) in part 2", "encoded Content-Type in ASCII in part 2",
        "encoded Content-Disposition in ASCII in part 2",
    ),
    "wordpress_twice": (
        "removed another From, identical to the first", "removed another MIME-Version, identical to the first",
        "removed another Content-type, identical to the first", "removed X-SES-CONFIGURATION-SET", THREADED,
    ),
    "helpdesk_reply": (THREADED,),
    "smime_signed": (THREADED,),
    "forwarded": (
        "encoded as quoted-printable (8-bit octets) in part 2.1", "encoded From in ASCII in part 2.1",
        "encoded Subject in ASCII in part 2.1",
    ),
    "calendar": (THREADED, "encoded as quoted-printable (8-bit octets) in part 2"),
    "huge_to": ("broke a line of To that was longer than 998 octets",),
    "report": (THREADED,),
    "empty": ("added From", "added Date"),
    "no_header": ("added From", "added Date"),
}  # fmt: skip


def stored(name: str) -> bytes:
    return canonical((CORPUS / f"{name}.eml").read_bytes().replace(b"\n", b"\r\n"))[0]


def shaped(name: str) -> Shaped | Failed:
    return shape(canonical(stored(name))[0], Rules(), Facts("a@example.com", 1_800_000_000.0))


def seen(content: bytes) -> list[tuple[str, str | None, bytes]]:
    """Return what a reader sees of each leaf: its type, its file name and its octets."""
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    return [
        (part.get_content_type(), part.get_filename(), (part.get_payload(decode=True) or b"").rstrip(b"\r\n"))
        for part in parsed.walk()
        if not part.is_multipart()
    ]


def test_every_file_is_tried() -> None:
    assert set(EXPECTED) | {"pgp_signed_long_line"} == {path.stem for path in CORPUS.glob("*.eml")}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_message_of_the_corpus_becomes_what_ses_takes(name: str) -> None:
    before, made = stored(name), shaped(name)
    assert isinstance(made, Shaped)
    # The order of what is added is no matter.
    assert sorted(made.changes) == sorted(EXPECTED[name])
    head = made.content[: headers.head_length(made.content)]
    check_form("a@example.com", ["b@example.org"], made.content, head)
    assert shape(made.content, Rules(), Facts("a@example.com", 0.0)) == Shaped(made.content, (), "a@example.com")
    assert [(kind, octets) for kind, _, octets in seen(made.content)] == [(kind, octets) for kind, _, octets in seen(before)]
    if set(made.changes) <= {THREADED}:
        assert made.content.endswith(headers.split(before)[1])


def test_readers_see_names_in_their_language() -> None:
    made = shaped("invoice_one_line_base64")
    assert isinstance(made, Shaped)
    assert [name for _, name, _ in seen(made.content)] == [None, "Rechnung März.pdf"]
    form = shaped("php_mail")
    assert isinstance(form, Shaped)
    parsed = email.message_from_bytes(form.content, policy=email.policy.default)
    assert parsed["Subject"] == "Neue Nachricht über das Formular"
    assert parsed["Reply-To"].addresses[0].display_name == "Jürgen Müller"
    assert "drei Stühle" in parsed.get_content()


def test_a_seal_is_not_broken() -> None:
    failed = shaped("pgp_signed_long_line")
    assert isinstance(failed, Failed)
    assert "signed (S/MIME or PGP)" in failed.reply.text
    signed = shaped("smime_signed")
    assert isinstance(signed, Shaped)
    assert stored("smime_signed").partition(b"--sig")[2] == signed.content.partition(b"--sig")[2]
