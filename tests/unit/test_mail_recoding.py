"""Encoding anew: part by part, only what has to be, and what is decoded is what it was."""

from __future__ import annotations

import email
import email.policy
import quopri
from email.message import Message
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import processor_time
from sesrelay.mail import mime
from sesrelay.mail.headers import fields
from sesrelay.mail.lineends import Canonical, canonical
from sesrelay.mail.recoding import Recoded, Stuck, recoded

LONG = b"x" * 999
MEANT_8BIT = (b"8-bit", b"8bits", b"8-Bit", b'"8bit"', b"'8BIT'", b"8bit (foo)", b"(foo)8bit; x")
PLAIN = b"Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"


def done(content: bytes, *, seven_bit: bool = False) -> Recoded:
    made = recoded(canonical(content)[0], seven_bit=seven_bit)
    assert isinstance(made, Recoded)
    return made


def stuck(content: bytes, *, seven_bit: bool = False) -> Stuck:
    made = recoded(canonical(content)[0], seven_bit=seven_bit)
    assert isinstance(made, Stuck)
    return made


def part(content: bytes, encoding: bytes = b"", kind: bytes = b"text/plain") -> bytes:
    declared = b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b""
    return b"Content-Type: " + kind + b"\r\n" + declared + b"\r\n" + content + b"\r\n"


def multipart(*parts: bytes, kind: bytes = b"mixed", before: bytes = b"", after: bytes = b"") -> bytes:
    body = before + b"".join(b"--edge\r\n" + one for one in parts) + b"--edge--\r\n" + after
    return b"Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: multipart/" + kind + b'; boundary="edge"\r\n\r\n' + body


def leaves(content: bytes) -> list[bytes]:
    """Return the decoded leaves, as the standard library reads them."""
    found: list[Message] = [one for one in email.message_from_bytes(content).walk() if not one.is_multipart()]
    return [bytes(one.get_payload(decode=True) or b"") for one in found]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Subject: s\r\n",
        PLAIN + b"\r\nplain\r\n",
        PLAIN + b"\r\n" + b"x" * 998 + b"\r\n",
        PLAIN + b"Content-Transfer-Encoding: 8bit\r\n\r\ncaf\xc3\xa9\r\n",
        multipart(part(b"caf\xc3\xa9", b"8BIT"), part(b"\xff", b" binary ; x")),
        multipart(part(b"caf\xc3\xa9", b"8bit"), kind=b"signed"),
        *(PLAIN + b"Content-Transfer-Encoding: " + word + b"\r\n\r\ncaf\xc3\xa9\r\n" for word in MEANT_8BIT),
        multipart(part("From: jö@example.net\r\nSubject: ä\r\n\r\nö".encode(), b"8bit", b"message/rfc822")),
    ],
)
def test_what_can_go_is_the_same_object(content: bytes) -> None:
    given_ = Canonical(content)
    made = recoded(given_)
    assert isinstance(made, Recoded)
    assert made.content == content
    assert (made.changes, made.fields, made.body) == ((), frozenset(), False)


def test_undeclared_8_bit_becomes_quoted_printable_and_is_declared() -> None:
    made = done(b"Subject: s\r\n\r\ncaf\xc3\xa9 au lait\r\n")
    assert made.content == (
        b"Subject: s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
        b"MIME-Version: 1.0\r\n\r\ncaf=C3=A9 au lait\r\n"
    )
    assert made.changes == ("encoded as quoted-printable (8-bit octets)",)
    assert made.fields == {"content-type", "content-transfer-encoding", "mime-version"}
    assert made.body


def test_what_is_not_utf_8_says_so() -> None:
    assert b"Content-Type: text/plain; charset=unknown-8bit\r\n" in done(b"Subject: s\r\n\r\ncaf\xe9 au lait\r\n").content


def test_a_charset_that_is_named_stays() -> None:
    made = done(b"Content-Type: text/html;\r\n charset=iso-8859-1\r\n\r\nun caf\xe9\r\n")
    assert made.content.startswith(b"Content-Type: text/html;\r\n charset=iso-8859-1\r\nContent-Transfer-Encoding:")


def test_one_part_is_encoded_and_the_others_keep_their_octets() -> None:
    untouched = b"Content-type:  application/pdf\r\ncontent-transfer-encoding:base64\r\n\r\nQUJD\r\n"
    content = multipart(untouched, part(LONG, kind=b"text/html"), part(b"caf\xc3\xa9", b"8bit"), before=b"preamble\r\n")
    made = done(content)
    assert made.changes == ("encoded as quoted-printable (a line over 998 octets) in part 2",)
    assert untouched in made.content
    assert part(b"caf\xc3\xa9", b"8bit") in made.content
    assert b"preamble\r\n--edge\r\n" in made.content
    assert leaves(made.content) == leaves(content)
    assert made.fields == frozenset()


def test_mostly_8_bit_text_and_attachments_become_base64() -> None:
    content = multipart(part("Привет".encode() * 9), part(b"\x01\xff" * 600, kind=b"application/octet-stream"))
    made = done(content)
    assert made.content.count(b"Content-Transfer-Encoding: base64") == 2
    assert leaves(made.content) == leaves(content)


def test_base64_in_one_line_is_broken_and_stays_what_it_is() -> None:
    content = multipart(part(b"QUJD" * 500, b"base64", b"application/pdf"))
    made = done(content)
    assert leaves(made.content) == [b"ABC" * 500]
    assert not mime.has_long_line(made.content)


def test_quoted_printable_that_breaks_its_rules_is_mended_in_its_own_terms() -> None:
    content = PLAIN + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=0D=0Aa=3D\xc3\xa9 " * 200 + b"=\r\nend\r\n"
    made = done(content)
    assert made.content.isascii()
    (decoded,) = leaves(made.content)
    assert decoded == b"\r\na=\xc3\xa9 " * 200 + b"end\r\n"


def test_a_forwarded_message_is_encoded_inside() -> None:
    inner = b"Subject: caf\xc3\xa9\r\n\r\n" + LONG + b"\r\n"
    made = done(multipart(b"Content-Type: message/rfc822\r\n\r\n" + inner))
    assert b"Subject: =?utf-8?" in made.content
    assert leaves(made.content) == [LONG]


def test_a_forwarded_message_that_is_called_base64_and_is_none_keeps_its_parts() -> None:
    inner = (
        b"Subject: caf\xc3\xa9\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\n\r\ncaf\xe9\r\n--in\r\n\r\nb\r\n--in--"
    )
    content = multipart(part(inner, b"base64", b"message/rfc822"))
    made = done(content)
    assert leaves(made.content) == leaves(content) == [b"caf\xe9", b"b"]
    assert b"Subject: =?utf-8?" in made.content


def test_the_digest_takes_its_parts_for_messages() -> None:
    made = done(multipart(b"\r\nSubject: " + b"word " * 300 + b"\r\n\r\nbody\r\n", kind=b"digest"))
    assert made.changes == ("broke a line of Subject that was longer than 998 octets in part 1.1",)


@pytest.mark.parametrize("kind", [b"signed", b"encrypted"])
def test_what_is_sealed_is_never_changed(kind: bytes) -> None:
    made = stuck(multipart(part(LONG), part(b"signature"), kind=kind + b"; protocol=x"))
    assert "S/MIME or PGP" in made.why
    outer = multipart(part(b"plain"), part(b"x"), kind=kind + b"; protocol=x").replace(b"Subject: s", b"Subject: caf\xc3\xa9")
    assert done(outer).changes == ("encoded Subject in ASCII",)


def test_what_may_not_be_encoded_is_said() -> None:
    assert "message/delivery-status" in stuck(multipart(part(LONG, kind=b"message/delivery-status"))).why
    assert "multipart/mixed" in stuck(b"Content-Type: multipart/mixed\r\n\r\n" + LONG).why
    nested = part(LONG)
    for _ in range(60):
        nested = b"Content-Type: message/rfc822\r\n\r\n" + nested
    assert "deep" in stuck(nested).why


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (multipart(part(b"caf\xc3\xa9", b"utf-8")), "with the unknown encoding 'utf-8' in part 1"),
        (multipart(part(b"caf\xc3\xa9", b"x-uuencode"), kind=b"signed"), "with the unknown encoding 'x-uuencode' in part 1"),
        (multipart(part(b"caf\xc3\xa9")).replace(b"--edge", b"--other"), "of type multipart/mixed, which must not be encoded"),
        (multipart(part(b"caf\xc3\xa9")).replace(b'; boundary="edge"', b""), "of type multipart/mixed, which must not be encoded"),
        (
            multipart(part(b"caf\xc3\xa9")).replace(b'"edge"', b'"e"\r\nContent-Transfer-Encoding: base64'),
            "of type multipart/mixed, which must not be encoded",
        ),
        (
            multipart(part(b"caf\xc3\xa9", kind=b"message/delivery-status")),
            "of type message/delivery-status, which must not be encoded in part 1",
        ),
    ],
)
def test_8_bit_that_cannot_be_encoded_stays_and_has_a_receipt(content: bytes, cause: str) -> None:
    made = done(content)
    assert made.content == content
    assert made.changes == (f"left as it is: 8-bit octets in a part {cause}",)
    assert not made.body


@pytest.mark.parametrize("seven_bit", [False, True])
def test_an_encoding_that_is_not_known_gives_way_where_it_must(seven_bit: bool) -> None:
    text = b"caf\xc3\xa9 au lait" if seven_bit else b"caf\xc3\xa9 " + LONG
    content = multipart(part(text, b"utf-8"), part(b"plain", b"utf-8"))
    made = done(content, seven_bit=seven_bit)
    assert made.content.count(b"Content-Transfer-Encoding: quoted-printable\r\n") == 1
    assert made.content.count(b"Content-Transfer-Encoding: utf-8\r\n") == 1
    assert leaves(made.content) == leaves(content)
    assert made.changes[0].startswith("encoded as quoted-printable instead of 'utf-8' (")


def test_in_a_forwarded_message_that_is_declared_only_long_lines_are_changed() -> None:
    inner = "From: jö@example.net\r\nSubject: ä\r\n\r\n".encode() + LONG
    content = multipart(part(inner, b"8bit", b"message/rfc822"), part(b"caf\xc3\xa9 au lait"))
    made = done(content)
    assert made.changes == (
        "encoded as quoted-printable (a line over 998 octets) in part 1.1",
        "encoded as quoted-printable (8-bit octets) in part 2",
    )
    assert "\r\n\r\nFrom: jö@example.net\r\nSubject: ä\r\nContent-Transfer-Encoding:".encode() in made.content
    assert leaves(made.content) == leaves(content)
    assert stuck(content, seven_bit=True).address
    assert stuck(content.replace(b"Content-Transfer-Encoding: 8bit\r\n", b""), seven_bit=True).address


@pytest.mark.parametrize("kind", [b"mixed", b"signed; protocol=x"])
@pytest.mark.parametrize("encoding", [b"", b"7bit"])
def test_an_address_within_a_forwarded_message_stays_and_has_a_receipt(kind: bytes, encoding: bytes) -> None:
    inner = "From: jö@example.net\r\nX-Original: a@b\r\n\r\nHello.".encode()
    content = multipart(part(inner, encoding, b"message/rfc822"), part(b"plain"), kind=kind)
    made = done(content)
    assert made.content == content
    assert made.changes == ("left as it is: From has the address jö@example.net, whose local part is not ASCII in part 1.1",)
    assert not made.body


def test_beside_such_an_address_the_rest_of_a_forwarded_message_is_encoded() -> None:
    inner = "From: jö@example.net\r\nCc: Jürgen <j@example.net>\r\nSubject: ä\r\n\r\nGrüße\r\n".encode()
    made = done(multipart(part(inner, b"", b"message/rfc822")))
    assert "\r\nFrom: jö@example.net\r\nCc: =?utf-8?q?J=C3=BCrgen?= <j@example.net>\r\nSubject: =?utf-8?".encode() in made.content
    assert [change.partition(":")[0] for change in made.changes] == [
        "encoded as base64 (8-bit octets) in part 1.1",
        "left as it is",
        "encoded Cc in ASCII in part 1.1",
        "encoded Subject in ASCII in part 1.1",
    ]
    assert made.body
    assert done(made.content).content == made.content
    long = done(multipart(part(b"From: " + "jö@example.net, ".encode() * 90 + b"\r\n\r\n", b"", b"message/rfc822")))
    assert not mime.has_long_line(long.content)
    assert long.content.replace(b"\r\n ", b" ").count("jö@example.net".encode()) == 90


def test_a_forwarded_message_that_may_be_encoded_as_a_whole_is_not_left() -> None:
    inner = "From: jö@example.net\r\n\r\nHello.".encode()
    whole = ("encoded as quoted-printable (8-bit octets) in part 1",)
    assert done(multipart(part(inner, b"", b"message/global"))).changes == whole
    nested = b"Content-Type: message/rfc822\r\n\r\n" + inner
    assert done(multipart(part(nested, b"", b"message/global"))).changes == whole
    made = done(multipart(part(b"Content-Type: message/global\r\n\r\n" + inner, b"", b"message/rfc822")))
    assert made.changes == ("encoded as quoted-printable (8-bit octets) in part 1.1",)


def test_a_report_of_ours_about_utf8_addresses_fits_seven_bit() -> None:
    report = (Path(__file__).parents[1] / "dsn" / "failed_utf8.eml").read_bytes()
    report = canonical(report.replace("To: <jörg@bücher.example>".encode(), b"To: <joerg@example.com>"))[0]
    made = done(report, seven_bit=True)
    assert made.content.isascii()
    assert made.content.count(b"\r\nContent-Transfer-Encoding: quoted-printable\r\n") == 3
    assert made.content.count(b"charset=") == 1
    before, after = ([part for _, part in _parts(content)] for content in (report, made.content))
    assert after == before, "decoded, every part is what it was"
    assert made.changes[-2:] == (
        "encoded as quoted-printable (8-bit octets) in part 2",
        "encoded as quoted-printable (8-bit octets) in part 3",
    )
    assert done(report).content == report, "who takes 8-bit gets it as it is"


def _parts(content: bytes) -> list[tuple[str, bytes]]:
    """Return type and decoded octets of each part of a multipart, whatever its type."""
    found = []
    for piece in content.split(b"\r\n--=_")[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        kind = mime.kind(fields(head.partition(b"\r\n")[2] + b"\r\n"))
        found.append((kind.type, quopri.decodestring(body) if kind.encoding == "quoted-printable" else body))
    return found


@pytest.mark.parametrize("kind", [b"message/global", b"message/global-headers", b"message/global-delivery-status"])
def test_long_lines_of_what_may_be_encoded_are(kind: bytes) -> None:
    inner = "From: jörg@bücher.example\r\n\r\n".encode() + LONG + b"\r\n"
    made = done(multipart(part(inner, b"8bit", kind=kind)))
    assert len(made.changes) == 1
    assert made.changes[0].startswith("encoded as quoted-printable (a line over 998 octets")
    assert b"\r\nContent-Transfer-Encoding: quoted-printable\r\n" in made.content


def test_a_sealed_message_that_may_be_encoded_as_a_whole_is() -> None:
    sealed = multipart(part(b"caf\xc3\xa9", b"8bit"), part(b"signature"), kind=b"signed; protocol=x").replace(b"edge", b"in")
    made = done(multipart(part(sealed, b"8bit", kind=b"message/global")), seven_bit=True)
    assert made.changes == ("encoded as quoted-printable (8-bit octets) in part 1",)
    assert quopri.decodestring(made.content.partition(b"--edge\r\n")[2].partition(b"\r\n\r\n")[2]).startswith(sealed)


def test_what_no_program_shows_goes() -> None:
    made = done(multipart(part(b"a"), before=LONG + b"\r\n", after=b"caf\xc3\xa9\r\n"))
    assert made.changes == (
        "removed the preamble, which mail programs do not show",
        "removed the epilogue, which mail programs do not show",
    )
    assert leaves(made.content) == [b"a"]


@pytest.mark.parametrize(
    ("field", "made"),
    [
        ("Subject: Grüße", "Subject: =?utf-8?b?R3LDvMOfZQ==?="),
        ("Subject: [é] =?utf-8?b?w6k=?= =?iso-8859-1?Q?=E9_b?= c", "Subject: =?utf-8?b?W8OpXSDDqcOpIGIgYw==?="),
        ("Subject: é =?utf-8?q?=0D=0AX:_y?=", "Subject: =?utf-8?b?w6kgIFg6IHk=?="),
        ("Subject: é =?x-none?q?a?=", "Subject: =?utf-8?b?w6kgPT94LW5vbmU/cT9hPz0=?="),
        ("From: Jürgen <j@example.org>", "From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>"),
        ("From: =?utf-8?q?J?= Ö <j@example.org>", "From: =?utf-8?q?J_=C3=96?= <j@example.org>"),
        ("To: a@bücher.example, Böb <b@x.example>", "To: a@xn--bcher-kva.example,\r\n =?utf-8?q?B=C3=B6b?= <b@x.example>"),
        (
            'Content-Type: application/pdf; name="Rés umé.pdf"',
            "Content-Type: application/pdf;\r\n name*=utf-8''R%C3%A9s%20um%C3%A9.pdf",
        ),
        (
            "Content-Disposition: attachment; filename=\"é.txt\"; filename*=UTF-8''%C3%A9.txt",
            "Content-Disposition: attachment; filename*=UTF-8''%C3%A9.txt",
        ),
        (
            "Content-Disposition: attachment; FileName*0*=UTF-8''%C3%A9; filename*1=.txt; filename=é.txt",
            "Content-Disposition: attachment; FileName*0*=UTF-8''%C3%A9; filename*1=.txt",
        ),
        ("Content-Disposition: attachment; filename*=é.txt", "Content-Disposition: attachment; filename*=?.txt"),
        ("Message-ID: <é@x>", "Message-ID: <?@x>"),
        ("MIME-Version: 1.0 (é)", "MIME-Version: 1.0 (?)"),
        ("List-Id: Größe <all.example.org>", "List-Id: =?utf-8?b?R3LDtsOfZQ==?= <all.example.org>"),
        (
            "List-Unsubscribe: <https://example.org/u?of=ü&x=%20>, <mailto:u@example.org>",
            "List-Unsubscribe: <https://example.org/u?of=%C3%BC&x=%20>, <mailto:u@example.org>",
        ),
    ],
)
def test_header_fields_become_ascii(field: str, made: str) -> None:
    assert done(f"{field}\r\n\r\n".encode()).content == f"{made}\r\n\r\n".encode()


@pytest.mark.parametrize("blank", ["\u3000", "\xa0", "\u2003"])
def test_blanks_of_other_scripts_stay_in_a_header(blank: str) -> None:
    name = f"山田{blank}太郎"
    field = f'From: {name} <j@x.example>\r\nSubject: {name}\r\nContent-Disposition: attachment; filename="{name}.pdf"\r\n'
    made = email.message_from_bytes(done(f"{field}\r\n".encode()).content, policy=email.policy.default)
    assert (made["From"].addresses[0].display_name, made["Subject"], made.get_filename()) == (name, name, f"{name}.pdf")


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x1c", "\x0b", "\t \r\n\t"])
def test_what_ends_a_line_anywhere_is_a_blank_in_a_header(end: str) -> None:
    made = done(f"Subject: é{end}b\r\nX-A: é{end}b\r\n\r\n".encode()).content
    assert made == b"Subject: =?utf-8?q?=C3=A9_b?=\r\nX-A: =?utf-8?q?=C3=A9_b?=\r\n\r\n"


def test_many_encoded_words_in_a_header_take_no_monstrous_time() -> None:
    with processor_time.limited(5):  # linear is below a second
        done(b"Subject: \xc3\xa9 " + b"=?utf-8?q?a?= " * 40_000 + b"\r\n\r\n")


@pytest.mark.parametrize("name", ["Content-Type", "Content-Disposition"])
@pytest.mark.parametrize("parameter", [";", ' a="b\xe9";', " {}=\xe9;"])
def test_many_parameters_take_no_monstrous_time(name: str, parameter: str) -> None:
    value = "".join(parameter.format(f"a{n}") for n in range(400_000 // len(parameter)))
    with processor_time.limited(5):  # linear is below a second, quadratic up to a minute
        done(f"{name}: text/plain;{value}\r\n\r\n\xe9".encode())


@pytest.mark.parametrize("parameters", ["name*0=x; name*=y", "charset*=%00''x"])
def test_parameters_that_contradict_each_other_are_none(parameters: str) -> None:
    made = done(f"Content-Type: text/plain; {parameters}\r\n\r\n\xe9\r\n".encode())
    assert made.content.startswith(f"Content-Type: text/plain; {parameters}; charset=utf-8\r\n".encode())
    assert leaves(made.content.replace(parameters.encode() + b"; ", b"")) == ["\xe9\r\n".encode()]


def test_latin_1_in_a_header_is_read_as_such() -> None:
    made = done(b"Subject: caf\xe9\r\n\r\n")
    assert str(email.message_from_bytes(made.content, policy=email.policy.default)["Subject"]) == "café"


def test_a_local_part_cannot_be_ascii() -> None:
    made = stuck("From: a@x.example\r\nTo: jürgen@x.example\r\n\r\n".encode())
    assert made.address
    assert "jürgen@x.example" in made.why


@pytest.mark.parametrize(
    "field",
    [
        b"X-Words: " + b"word " * 500,
        b"To: " + b"somebody@example.org," * 200 + b"b@c",
        b"References:" + b"<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@example.org>" * 90,
        b"X-Token: " + b"t" * 3000,
        b"X-Blank:" + b" " * 2000 + b"end",
    ],
)
def test_long_header_lines_are_broken_and_mean_the_same(field: bytes) -> None:
    made = done(field + b"\r\n\r\n")
    assert not mime.has_long_line(made.content)
    assert not any(line.isspace() for line in made.content.split(b"\r\n") if line)
    assert made.content.replace(b"\r\n", b"").replace(b" ", b"") == field.replace(b" ", b"")


def test_a_field_with_an_endless_name_goes() -> None:
    made = done(b"N" * 1500 + b": x\r\nSubject: s\r\n\r\n")
    assert made.content == b"Subject: s\r\n\r\n"
    assert made.changes == ("removed a field whose name has 1500 octets",)


def test_for_a_host_without_8bitmime_everything_is_7_bit() -> None:
    content = multipart(part(b"caf\xc3\xa9", b"8bit"), part(b"plain", b"7bit")).replace(
        b"Subject: s", b"Subject: s\r\nContent-Transfer-Encoding: 8bit"
    )
    made = done(content, seven_bit=True)
    assert made.content.isascii()
    assert b"Content-Transfer-Encoding: 7bit\r\nMIME-Version" in made.content
    assert leaves(made.content) == leaves(content)
    assert isinstance(recoded(Canonical(multipart(part(b"\xff", b"8bit"), kind=b"signed")), seven_bit=True), Stuck)


_BODIES = st.lists(
    st.sampled_from(
        [b"plain\r\n", LONG + b"\r\n", "é\r\n".encode(), b"\xe9\xff \r\n", b".\r\n", b"", b"=\r\n", b"--edge", b"a" * 2500, b" "]
    )
).map(b"".join)
_ENCODINGS = st.sampled_from([b"", b"7bit", b"8bit", b"8-bit (x)", b"binary", b"quoted-printable", b"base64", b"utf-8"])
_KINDS = st.sampled_from([b"text/plain", b"text/html; charset=x", b"application/pdf", b'image/png; name="\xc3\xa9"'])
_PARTS = st.builds(part, _BODIES, _ENCODINGS, _KINDS)
_MAILS = st.one_of(
    _PARTS,
    _BODIES,
    st.lists(_PARTS, max_size=3).map(lambda parts: multipart(*parts)),
    st.lists(_PARTS, max_size=2).map(lambda parts: multipart(multipart(*parts).replace(b"edge", b"in"), kind=b"related")),
    st.builds(lambda one, of: multipart(part(b"Subject: \xc3\xa9\r\n" + one, of, b"message/rfc822")), _PARTS, _ENCODINGS),
    _PARTS.map(lambda one: multipart(b"Content-Type: message/rfc822\r\n\r\nSubject: \xc3\xa9\r\n" + one)),
    _PARTS.map(
        lambda one: multipart(b"Content-Type: message/rfc822\r\n\r\nFrom: \xc3\xa9@x.example\r\nCc: \xc3\xa9 <a@b>\r\n" + one)
    ),
    _PARTS.map(lambda one: multipart(b"Content-Type: message/global\r\n\r\nFrom: \xc3\xa9@x.example\r\n" + one)),
)


@given(_MAILS, st.booleans())
@example(b"\xc3\xa9", False)
def test_what_is_made_can_go_and_is_made_once(content: bytes, seven_bit: bool) -> None:
    stored = canonical(content)[0]
    made = recoded(stored, seven_bit=seven_bit)
    if isinstance(made, Stuck):
        return
    assert not mime.has_long_line(made.content)
    assert made.content.isascii() or not seven_bit
    assert canonical(made.content) == (made.content, ())
    again = recoded(made.content, seven_bit=seven_bit)
    assert isinstance(again, Recoded)
    assert again.content == made.content
    assert set(again.changes) <= {receipt for receipt in made.changes if receipt.startswith("left as it is")}
    assert made.changes or made.content == stored


@given(
    st.lists(
        st.tuples(st.binary(max_size=40).map(lambda b: canonical(b)[0][:-2]), st.sampled_from([b"", b"8bit", b"binary"])),
        max_size=4,
    )
)
def test_decoded_parts_are_what_they_were(texts: list[tuple[bytes, bytes]]) -> None:
    content = multipart(*(part(text, encoding) for text, encoding in texts), part(LONG))
    made = done(content, seven_bit=True)
    assert leaves(made.content) == leaves(content)


@given(st.lists(st.sampled_from([b"--e", b"--e--", b"--ee", b"\r\n", b"a", b" ", b"--"])).map(b"".join))
def test_pieces_put_together_are_the_whole(body: bytes) -> None:
    pieces = mime.pieces(body, b"e")
    if pieces is not None:
        assert b"".join(pieces) == body
        assert len(pieces) % 2 == 1
