"""sendmail(8) in parts: the command line, addresses, line ends and dots, the header, exit codes, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.mail.mailboxes import mailboxes
from sesrelay.sendmail import options
from sesrelay.sendmail.addresses import parse, sound
from sesrelay.sendmail.content import MEMORY, Content
from sesrelay.sendmail.exits import Exit, meaning
from sesrelay.sendmail.header import Header, mailbox
from sesrelay.sendmail.session import Lines

SOURCES = Path(options.__file__).parents[2]


def parsed(line: str) -> options.Options:
    return options.parse(line.split())


# --- the command line ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-FCronDaemon -i -B8BITMIME -oem root", {"full_name": "CronDaemon", "dot_ends": False, "recipients": ["root"]}),
        ("-t -i", {"from_header": True, "dot_ends": False}),
        ("-ti", {"from_header": True, "dot_ends": False}),
        ("-t -oi -f a@example.com", {"from_header": True, "dot_ends": False, "sender": "a@example.com"}),
        ("-tifa@example.com x@example.org", {"sender": "a@example.com", "recipients": ["x@example.org"]}),
        ("-o i -r a@example.com -- -x@example.org", {"sender": "a@example.com", "recipients": ["-x@example.org"]}),
        ("-f <> x@example.org", {"sender": ""}),
        ("-fShop<a@example.com> x", {"sender": "a@example.com"}),
        ("x@example.org -f y@example.org", {"recipients": ["x@example.org", "-f", "y@example.org"], "sender": None}),
        ("a@example.org,b@example.org c", {"recipients": ["a@example.org", "b@example.org", "c"]}),
        ("-N never x", {"notify": "NEVER"}),
        ("-N success,delay -R hdrs -V abc x", {"notify": "SUCCESS,DELAY", "ret": "HDRS", "envid": "abc"}),
        (
            "-odq -odb -oee -om -oQ/var/spool -oMrlocal -em -v -G -U -n -m -L tag -h 3 -Am x",
            {"recipients": ["x"], "dot_ends": True},
        ),
        ("-oi -ODeliveryMode=b -O ErrorMode=m -t x", {"recipients": ["x"], "dot_ends": False, "from_header": True}),
        ("-fa@example.com -Odeliverymode=deferred x", {"recipients": ["x"], "sender": "a@example.com"}),
        ("-bs", {"mode": options.SESSION}),
        ("-bp", {"mode": options.QUEUE}),
        ("-bi", {"mode": options.ALIASES}),
        ("-I", {"mode": options.ALIASES}),
        ("-bm x", {"mode": options.MESSAGE}),
        ("-q", {"mode": options.FLUSH}),
        ("-q15m", {"mode": options.FLUSH}),
    ],
)
def test_options_are_read_as_programs_give_them(line: str, expected: dict[str, object]) -> None:
    found = parsed(line)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("value", ["", "<>", " <> "])
def test_the_null_sender(value: str) -> None:
    assert options.parse(["-f", value, "x"]).sender == ""
    assert options.parse(["-F", "Full Name", "x"]).full_name == "Full Name"


@pytest.mark.parametrize(
    "line",
    [
        *(
            "-C/etc/passwd x",
            "-X/tmp/log x",
            "-X /tmp/log x",
            "-O QueueDirectory=/tmp x",
            "-ODeliveryMode=b -OQueueDirectory=/tmp x",
            "-OLogLevel=9 x",
            "-D/tmp/x x",
        ),
        *("-be", "-bt", "-bd", "-bD", "-bv x", "-bh", "-bP", "-bV", "-ba"),
        *("-tiX/tmp/log", "-Z x", "--help", "--version", "-d0.1 x", "-f", "-i -f", "-B9BIT x", "-R some x", "-N sometimes x"),
        *("-N never,success x", "-f a@example.com,b@example.com x", f"-V {'v' * 101} x"),
    ],
)
def test_what_is_refused_is_a_fault_of_usage(line: str) -> None:
    with pytest.raises(Exit) as refused:
        parsed(line)
    assert refused.value.code == 64


# --- addresses ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("root", ["root"]),
        ("a@example.com, b@example.com", ["a@example.com", "b@example.com"]),
        ('"Doe, John" <john@example.com>, x', ["john@example.com", "x"]),
        ("John (a comment, with (another) inside) Doe <john@example.com>", ["john@example.com"]),
        ("john@example.com (John, Doe)", ["john@example.com"]),
        ("Friends: a@example.com, B <b@example.com>;, c@example.com", ["a@example.com", "b@example.com", "c@example.com"]),
        ("undisclosed-recipients:;", []),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?= <g@example.com>", ["g@example.com"]),
        ('"john doe"@example.com', ['"john doe"@example.com']),
        ('"a,b <c>"@example.com,d', ['"a,b <c>"@example.com', "d"]),
        ('"quote \\" comma,"@example.com', ['"quote \\" comma,"@example.com']),
        ("<@relay.example,@b.example:john@example.com>", ["john@example.com"]),
        ("john @ example . com", ["john@example.com"]),
        ("<a@example.com> <b@example.com>", ["a@example.com", "b@example.com"]),
        ("<a@example.com> b@example.com, <c@example.com> C", ["a@example.com", "b@example.com", "c@example.com"]),
        ('b@example.com <a@example.com> "c@example.com", d@example.com <e@example.com', ["a@example.com", "e@example.com"]),
        ("x@[IPv6:2001:db8::1], y@[192.0.2.1]", ["x@[IPv6:2001:db8::1]", "y@[192.0.2.1]"]),
        ("björn@exämple.com", ["björn@exämple.com"]),
        (",, ,a@example.com,,", ["a@example.com"]),
        ("two words", ["two words"]),
        ("a@example.com b@example.com, c@example.com", ["a@example.com", "b@example.com", "c@example.com"]),
        ('a @ example.com \t "b c"@example.com (d) e@example.com', ["a@example.com", '"b c"@example.com', "e@example.com"]),
        ("John Doe john@example.com", ["John Doe john@example.com"]),
        ('"a@example.com" a@example.com', ['"a@example.com" a@example.com']),
        ("a@example.com <>, b@example.com (c) <> d@example.com", ["a@example.com", "b@example.com", "d@example.com"]),
        ("a@example.com <", ["a@example.com"]),
        ("a@example.com < >, b@example.com < ", ["a@example.com", "b@example.com"]),
        ('Undisclosed <>, "a@example.com" <>, <>', []),
        ("<a@example.com b@example.com>", ["a@example.com b@example.com"]),
        ("<", []),
        ("(", []),
        ('"', ['"']),
    ],
)
def test_addresses_come_out_of_lists(text: str, expected: list[str]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "address",
    ["two words", "a@b\r\nRCPT TO:<c@d>", "a>b@c", "a\0b", '"open', "back\\", "", "a\u2028b", "\udcff@example.com", "a\tb"],
)
def test_what_cannot_stand_in_a_command_is_not_sound(address: str) -> None:
    assert not sound(address)


@pytest.mark.parametrize(
    "address", ["a@example.com", '"john doe"@example.com', '"<,>\\""@x', "björn@exämple.com", "root", "a@[192.0.2.1]"]
)
def test_what_can_is(address: str) -> None:
    assert sound(address)


LOCAL = st.text("abcdefghijklmnopqrstuvwxyz0123456789.!#$%&'*+-/=?^_`{|}~", min_size=1).filter(
    lambda s: ".." not in s and s.strip(".") == s
)
MAILBOX = st.tuples(st.sampled_from(["", "Name", '"Doe, J."', "(c, d)", "=?utf-8?b?w7w=?="]), LOCAL)


@given(st.lists(MAILBOX, max_size=5))
def test_the_standard_library_finds_the_same(boxes: list[tuple[str, str]]) -> None:
    text = ",\r\n ".join(f"{name} <{local}@example.com>" for name, local in boxes)
    assert parse(text.replace("\r\n", "")) == [address for _, address in mailboxes([text])][: len(boxes)]


@given(st.text(st.sampled_from('ab@.,;:<>()"\\[] \t\r\nü')))
def test_no_text_upsets_it_and_nothing_sound_can_end_a_command(text: str) -> None:
    for address in parse(text):
        assert not sound(address) or (not set("\r\n\t") & set(address) and f"<{address}>".count(">") - address.count(">") == 1)


# --- standard input ---


def read(data: bytes | list[bytes], *, dot_ends: bool = False, limit: int = 1 << 40) -> Content:
    content = Content(lambda: limit)
    source, sink = os.pipe()
    pieces = [data] if isinstance(data, bytes) else data

    def feed() -> None:
        try:
            for piece in pieces:
                os.write(sink, piece) if len(piece) < 4096 else _write(sink, piece)
        except BrokenPipeError:
            pass  # it was content with less
        finally:
            os.close(sink)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        content.read(source, dot_ends=dot_ends)
    finally:
        os.close(source)
        thread.join()
    return content


def _write(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


def unstuffed(content: Content) -> bytes:
    """Return what a server makes of it."""
    wire = b"\r\n" + b"".join(content.stuffed())
    assert wire.find(b"\r\n.\r\n") == len(wire) - 5, "the end mark stands once, at the end"
    return wire[: -len(b".\r\n")].replace(b"\r\n..", b"\r\n.")[2:]


@pytest.mark.parametrize(
    ("data", "with_i", "without"),
    [
        (b"a\n.\nb\n", b"a\r\n.\r\nb\r\n", b"a\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n.\r\nb\r\n", b"a\r\n"),
        (b".\nb", b".\r\nb\r\n", b""),
        (b"a\n.", b"a\r\n.\r\n", b"a\r\n"),
        (b"a\n..\n.b\n", b"a\r\n..\r\n.b\r\n", b"a\r\n..\r\n.b\r\n"),
        (b"a\n\n.\n\nb", b"a\r\n\r\n.\r\n\r\nb\r\n", b"a\r\n\r\n"),
        (b"", b"", b""),
        (b"\n", b"\r\n", b"\r\n"),
        (b"\n\na", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
        (b"no end", b"no end\r\n", b"no end\r\n"),
        (b"nul\0 cr\rx\n", b"nul\0 cr\rx\r\n", b"nul\0 cr\rx\r\n"),
        (b"a\r\r\nb\n", b"a\r\r\nb\r\n", b"a\r\r\nb\r\n"),
        (b"end\r", b"end\r\r\n", b"end\r\r\n"),
    ],
)
def test_lines_and_dots(data: bytes, with_i: bytes, without: bytes) -> None:
    for pieces in ([data], [data[n : n + 1] for n in range(len(data))]):
        assert unstuffed(read(pieces)) == with_i
        content = read(pieces, dot_ends=True)
        assert unstuffed(content) == without
        assert content.size == len(without)


class OneByOne(Content):
    """Reads one octet at a time, whatever a pipe gives."""

    def read(self, source: int, *, dot_ends: bool) -> None:
        given, real = os.read, os.read
        try:
            os.read = lambda fd, n: real(fd, 1)  # type: ignore[assignment]
            super().read(source, dot_ends=dot_ends)
        finally:
            os.read = given


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a"]), max_size=12), st.booleans())
def test_no_split_changes_what_is_read(octets: list[bytes], dot_ends: bool) -> None:
    data = b"".join(octets)
    whole = read(data, dot_ends=dot_ends)
    slow = OneByOne(lambda: 0)
    source, sink = os.pipe()
    os.write(sink, data)
    os.close(sink)
    slow.read(source, dot_ends=dot_ends)
    os.close(source)
    assert slow.first == whole.first
    assert unstuffed(whole) == whole.first


def test_what_is_large_goes_through_a_file_octet_for_octet() -> None:
    data = b"".join(b".%d dots\n..\n.\n" % n + b"x" * (n % 3000) + b"\n" for n in range(2500))
    content = read(data)
    assert len(content.first) <= MEMORY < content.size
    assert unstuffed(content) == data.replace(b"\n", b"\r\n")


def test_what_is_too_large_is_refused_before_it_is_all_read() -> None:
    with pytest.raises(Exit) as refused:
        read(b"x" * 3 * MEMORY, limit=2 * MEMORY)
    assert refused.value.code == 65
    assert str(2 * MEMORY) in refused.value.text


# --- the header ---

HEADER = b"From: a@example.com\r\nTo: x@example.org,\r\n\ty@example.org\r\nBcc: z@example.org\r\nX: 1\r\n\r\nTo: no@example.org\r\n"


def test_recipients_of_the_header_and_bcc_off() -> None:
    header = Header(HEADER)
    assert header.recipients() == ["x@example.org", "y@example.org", "z@example.org"]
    header.drop_private()
    assert header.joined() == HEADER.replace(b"Bcc: z@example.org\r\n", b"")


def test_a_line_of_blanks_within_a_field_ends_nothing() -> None:
    header = Header(b"To: x@example.org\r\n \t\r\n y@example.org\r\n\r\nt\r\n")
    assert header.recipients() == ["x@example.org", "y@example.org"]


def test_a_resent_message_goes_where_it_is_resent_to() -> None:
    header = Header(b"Resent-To: r@example.org\r\nResent-Bcc: s@example.org\r\n" + HEADER)
    assert header.recipients() == ["r@example.org", "s@example.org"]
    header.drop_private()
    assert b"cc:" not in header.joined().lower()


def test_a_from_with_a_blank_before_its_colon_is_a_field() -> None:
    header = Header(b"From : Boss <boss@full.example>\r\n\r\nt\r\n")
    assert (header.envelope_line, header.has(b"from")) == (b"", True)
    assert Header(b"From x Mon\r\nA: b\r\n\r\n").envelope_line == b"From x Mon\r\n"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (b">From x Mon\r\n", b"A: b\r\n"),
        (b"From x Mon\r\n>From y\r\n>>From z\r\n", b"A: b\r\n"),
        (b"", b"From x Mon\r\n>From now on\r\n"),
        (b"", b"From now on we meet on Mondays\r\n"),
        (b"", b"From now on\r\n\r\nA: b\r\n"),
        (b"", b">From now on\r\n\r\nA: b\r\n"),
        (b"", b">From now on"),
        (b"", b">From : x\r\n\r\n"),
    ],
)
def test_mbox_lines_stay_on_top_where_a_header_follows_and_are_text_elsewhere(lines: bytes, text: bytes) -> None:
    header = Header(lines + text)
    assert header.envelope_line == lines
    header.add("To", "a@example.org")
    fields = text if text.startswith((b"A", b">From :")) else b""
    assert header.joined().startswith(
        lines + fields.removesuffix(b"\r\n\r\n").removesuffix(b"\r\n") + b"\r\n" * bool(fields) + b"To:"
    )


@pytest.mark.parametrize(
    ("message", "with_one_more"),
    [
        (b"", b"X: y\r\n\r\n"),
        (b"just text\r\n", b"X: y\r\n\r\njust text\r\n"),
        (b"\r\nbody\r\n", b"X: y\r\n\r\nbody\r\n"),
        (b"A: b\r\n", b"A: b\r\nX: y\r\n\r\n"),
        (b"A: b\r\nno field\r\n", b"A: b\r\nX: y\r\n\r\nno field\r\n"),
        (b"From x Mon\r\nA : b\r\n c\r\n\r\nt\r\n", b"From x Mon\r\nA : b\r\n c\r\nX: y\r\n\r\nt\r\n"),
        (b"From \t: a@b\r\n\r\nt\r\n", b"From \t: a@b\r\nX: y\r\n\r\nt\r\n"),
        (b" folded\r\n", b"X: y\r\n\r\n folded\r\n"),
    ],
)
def test_a_field_is_added_behind_the_others_wherever_they_end(message: bytes, with_one_more: bytes) -> None:
    header = Header(message)
    header.add("X", "y")
    assert header.joined() == with_one_more


@pytest.mark.parametrize(
    ("begun", "complete"),
    [
        (b"A: b\r\n", False),
        (b"A: b\r\nBcc: secr", False),
        (b"A: b\r\nBc", False),
        (b"A: b\r\n c", False),
        (b"A: b\r\n\r\n", True),
        (b"A: b\r\nno field\r\n", True),
        (b"A: b\r\nno field: ", True),
        (b"x" * 999, True),
    ],
)
def test_where_a_header_ends_shows_by_what_follows(begun: bytes, complete: bool) -> None:
    assert Header(begun).complete == complete


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "root"),
        ("CronDaemon", "CronDaemon <root>"),
        ("Jo (Ops)", '"Jo (Ops)" <root>'),
        ('a "b" \\', '"a \\"b\\" \\\\" <root>'),
        ("x\r\nBcc: y", '"x  Bcc: y" <root>'),
        ("Jörg", "=?utf-8?B?SsO2cmc=?= <root>"),
    ],
)
def test_a_full_name(name: str, expected: str) -> None:
    assert mailbox(name, "root") == expected


# --- the end ---


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("550 5.7.1 No", 77),
        ("554 5.7.1 No", 77),
        ("550 5.1.1 Who?", 67),
        ("550 Who?", 67),
        ("553 5.1.3 Odd", 65),
        ("553 5.6.7 UTF-8", 65),
        ("552 5.3.4 Large", 65),
        ("501 5.5.4 Syntax", 69),
        ("554 No", 69),
        ("450 4.2.0 Later", 75),
        ("421 Later", 75),
        ("no reply at all", 75),
    ],
)
def test_what_a_reply_means(reply: str, code: int) -> None:
    assert meaning(reply) == code


def test_a_session_gets_the_line_ends_its_first_line_asks_for() -> None:
    person, program, slow = Lines(), Lines(), Lines()
    assert person.ended(b"EHLO x\nDATA\n") + person.ended(b"a\r\nb\n") == b"EHLO x\r\nDATA\r\na\r\nb\r\n"
    assert program.ended(b"EHLO x\r\nDATA\r\n") + program.ended(b"a\n.\nb\r\n") == b"EHLO x\r\nDATA\r\na\n.\nb\r\n"
    assert slow.ended(b"EHLO x\r") + slow.ended(b"\na\n") == b"EHLO x\r\na\n"


def test_it_imports_hardly_anything() -> None:
    """What a message needs, on top of a bare Python: the figure is benchmarks/sendmail.py's."""
    program = (
        f"import sys; before = set(sys.modules); sys.path.insert(0, {str(SOURCES)!r}); sys.argv = ['sendmail', '-t']\n"
        "from sesrelay.sendmail import main; code = main()\n"
        "print(code, *sorted(name for name in set(sys.modules) - before if not name.startswith('sesrelay')))"
    )
    env = {"SESRELAY_SUBMIT": "127.0.0.1:1", "SESRELAY_MAILDROP": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-ISc", program], env=env, input=b"To: x@example.org\n\nx\n", capture_output=True, check=True
    )
    code, *modules = done.stdout.decode().split()
    assert code == "75", done.stderr
    allowed = {"os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc", "_socket", "pwd", "time", "posix"}
    assert set(modules) - allowed <= {"binascii", "errno"}
