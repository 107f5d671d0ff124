"""What the listener withstands, shown on the process as a whole: smuggling, crowds, drips and loops."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import re
import resource
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from guarded import Authority, guarded
from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for
from sesrelay.listener.options import DoorOptions
from transcripts.listener_rig import LOOPS, Client, Rig, options, rig, run

MARKS = [
    b"\n.\n",
    b"\r.\r",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\0\n.\n",
]
HIDDEN = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"


@pytest.fixture
def ses() -> Iterator[StandIn]:
    with StandIn({"keys": {KEY: SECRET}}) as made:
        yield made


@pytest.fixture
def relay(tmp_path: Path, ses: StandIn) -> Iterator[Relay]:
    with Relay(tmp_path, f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}") as made:
        yield made


class Raw:
    """A client that says exactly what it is told to."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, 20)
        self.replies = self.sock.makefile("rb")

    def reply(self) -> bytes:
        while True:
            line = self.replies.readline()
            if line[3:4] != b"-":
                return line.rstrip()

    def do(self, command: bytes) -> bytes:
        self.sock.sendall(command + b"\r\n")
        return self.reply()

    def begin(self, recipient: bytes = b"b@example.org") -> None:
        """Go as far as RCPT."""
        assert self.reply().startswith(b"220")
        for command in (b"EHLO client.example", b"MAIL FROM:<a@example.com>", b"RCPT TO:<" + recipient + b">"):
            assert self.do(command).startswith(b"250")

    def close(self) -> None:
        self.replies.close()
        self.sock.close()


@pytest.mark.parametrize("by", ["data", "bdat"])
def test_no_mark_but_one_makes_a_second_message(relay: Relay, ses: StandIn, by: str) -> None:
    for mark in MARKS:
        client = Raw(relay.smtp)
        client.begin()
        content = b"Subject: first\r\n\r\nline" + mark + HIDDEN
        if by == "data":
            assert client.do(b"DATA").startswith(b"354")
            for octet in content:  # at every split of the stream
                client.sock.sendall(bytes([octet]))
            client.sock.sendall(b"\r\n.\r\n")
        else:
            client.sock.sendall(b"BDAT %d LAST\r\n" % len(content) + content)
        assert client.reply().startswith(b"250 2.0.0 Ok: queued as")
        assert client.do(b"QUIT").startswith(b"221")
        client.close()
    taken = wait_for("all are out", lambda: (found := ses.journal()) and len(found) >= len(MARKS) and found)
    assert len(taken) == len(MARKS)
    for one in taken:
        raw = one["raw"]
        assert b"smuggled" in raw  # as text of the first message
        assert one["destinations"] == ["b@example.org"]
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", raw)


@pytest.fixture(params=LOOPS)
def loop_env(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """What makes a daemon run on that loop: where uvloop cannot be imported, it runs on asyncio's own."""
    if request.param == "uvloop":
        return {}
    hidden = tmp_path / "without"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text("raise ImportError\n")
    return {"PYTHONPATH": str(hidden)}


def test_a_crowd_without_descriptors_is_turned_away_quietly(tmp_path: Path, ses: StandIn, loop_env: dict[str, str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}"
    relay = Relay(tmp_path, more, env=loop_env)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        relay.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(relay.__exit__)
        assert relay.process is not None
        assert ("uvloop/loop" in Path(f"/proc/{relay.process.pid}/maps").read_text()) == (not loop_env)
        before = len(relay.log.read_text().splitlines())
        good = Raw(relay.smtp)
        good.begin()
        crowd = [socket.create_connection(relay.smtp, 20) for _ in range(200)]
        greetings = [one.recv(100)[:3] for one in crowd]
        assert greetings.count(b"220") + greetings.count(b"421") == 200
        assert greetings.count(b"421") > 50
        assert good.do(b"DATA").startswith(b"354")
        assert good.do(b"Subject: x\r\n\r\nstill here\r\n.").startswith(b"250")
        for one in crowd:
            one.close()
        wait_for("others are served again", lambda: served(relay.smtp), 5.0)
        wait_for("SES has it", ses.journal)
        good.close()
        assert len(relay.log.read_text().splitlines()) - before < 20
        refused = int(metric(relay, 'sesrelay_messages_refused_total{reason="limits"}'))
        assert refused >= greetings.count(b"421")  # the metrics count all


def metric(relay: Relay, name: str) -> float:
    (found,) = [line for line in relay.get("/metrics").decode().splitlines() if line.startswith(name)]
    return float(found.rpartition(" ")[2])


@pytest.mark.parametrize(
    "at", [b"", b"EHLO c\r\n", b"EHLO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nx\r\n."]
)
def test_clients_that_connect_and_reset_leave_nothing_behind(relay: Relay, at: bytes, loop_env: dict[str, str]) -> None:
    relay.stop()
    relay.env |= loop_env
    relay.start()
    assert relay.process is not None
    assert served(relay.smtp)
    descriptors = Path(f"/proc/{relay.process.pid}/fd")
    before, lines = len(list(descriptors.iterdir())), len(relay.log.read_text().splitlines())
    for _ in range(1000):
        with socket.create_connection(relay.smtp, 20) as one:
            one.sendall(at)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert served(relay.smtp)
    wait_for("all are closed", lambda: metric(relay, "sesrelay_smtp_connections{") == 0)
    wait_for("all are given back", lambda: len(list(descriptors.iterdir())) <= before + 2)  # asking it takes some
    assert len(relay.log.read_text().splitlines()) - lines < 20
    assert not relay.events("trouble") + relay.events("library")
    relay.submit("a@example.com", "b@example.org")


def served(address: tuple[str, int]) -> bool:
    client = Raw(address)
    try:
        return client.reply().startswith(b"220")
    finally:
        client.close()


def test_mail_in_circles_ends(relay: Relay) -> None:
    for received, code in ((50, b"250"), (51, b"554 5.4.6")):
        client = Raw(relay.smtp)
        client.begin()
        assert client.do(b"DATA").startswith(b"354")
        trace = b"".join(b"Received: from a by b; Mon, 1 Jan 2024 00:00:%02d +0000\r\n" % (n % 60) for n in range(received))
        assert client.do(trace + b"From: a@example.com\r\n\r\nx\r\n.").startswith(code)
        client.close()


@pytest.mark.parametrize(
    "said",
    [b"EHLO a\rb", b"EHLO a\x1b[2Jb", b"EHLO a\x00b", b"EHLO \xff\xfe", b"MAIL FROM:<a\x1b@example.com>", b"MAIL FROM:<\xff@example.com>", b"RCPT TO:<a\tb@example.com>"],
)  # fmt: skip
def test_what_is_no_text_is_refused_and_stays_on_its_line_of_the_log(relay: Relay, said: bytes) -> None:
    client = Raw(relay.smtp)
    client.reply()
    if not said.startswith(b"EHLO"):
        client.do(b"EHLO client.example")
    before = len(relay.events("refused"))
    assert client.do(said)[:1] == b"5"
    client.close()
    wait_for("one line tells of it", lambda: len(relay.events("refused")) == before + 1)  # and each line is JSON
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", relay.log.read_bytes())


def test_names_in_a_login_stay_out_of_log_and_header(tmp_path: Path, ses: StandIn) -> None:
    more = f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}"
    relay = Relay(tmp_path, more)
    relay.config.write_text(relay.config.read_text().replace('"127.0.0.1:0"}]', '"127.0.0.1:0", auth: any}]', 1))
    with relay:
        client = Raw(relay.smtp)
        client.reply()
        assert client.do("EHLO h\u00e9\u202e.example".encode()).startswith(b"250")
        name = base64.b64encode(b"\0eve\r\nX-Evil: yes\x1b[2J\xe2\x80\xae\0c4nary-word")
        assert client.do(b"AUTH PLAIN " + name).startswith(b"235")
        for command, code in ((b"MAIL FROM:<a@example.com>", b"250"), (b"RCPT TO:<b@example.org>", b"250"), (b"DATA", b"354")):
            assert client.do(command).startswith(code)
        assert client.do(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250")
        client.close()
        (one,) = wait_for("SES has it", ses.journal)
        assert one["raw"].partition(b"\r\n\r\n")[0].isascii()
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n|[\x00\x1b]|(?m:^X-Evil)", one["raw"])
        log = relay.log.read_bytes()
        assert len(relay.events("accepted")) == 1
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xe2\x80\xae|c4nary|X-Evil", log)


CLIENT_HELLO = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"  # of 16 KiB, which take their time
GREETING = (b"EHLO c.example",)
ENVELOPE = (*GREETING, b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>")
WAYS: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "command": (ENVELOPE, b""),
    "data": ((*ENVELOPE, b"DATA"), b""),
    "bdat": (ENVELOPE, b"BDAT 100000\r\n"),
    "auth": ((*GREETING, b"AUTH LOGIN"), b""),
    "auth, second": ((*GREETING, b"AUTH LOGIN", b"eA=="), b""),
    "handshake": ((b"STARTTLS",), CLIENT_HELLO),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hundred_and_fifty_who_drip_are_gone_and_the_good_are_served(loop: str, tmp_path: Path) -> None:
    door = DoorOptions("starttls", "any", Authority(tmp_path).server())
    limits = {"line_timeout": 1.0, "min_rate": 500.0, "command_timeout": 30.0, "message_size": 10**7}

    async def drip(client: Client, commands: tuple[bytes, ...], begun: bytes) -> bytes:
        await client.reply()
        for command in commands:
            assert (await client.do(command))[0] in "23"
        client.writer.write(begun)
        heard = asyncio.ensure_future(client.rest())
        while not heard.done():
            if not client.writer.is_closing():
                client.writer.write(b"N")
            await asyncio.wait({heard}, timeout=0.1)
        client.writer.close()
        return await heard

    async def steady(at: Rig) -> str:
        """Upload for longer than the drips live, at ten times the minimum rate."""
        client = await at.connect()
        await client.begin()
        for _ in range(50):
            client.writer.write((b"x" * 98 + b"\r\n") * 3)
            await asyncio.sleep(0.05)
        reply = await client.do(b".")
        client.writer.close()
        return reply

    async def main() -> None:
        async with guarded(door, **limits) as at:
            upload = asyncio.ensure_future(steady(at))
            ways = list(itertools.islice(itertools.cycle(WAYS), 150))
            drips = [asyncio.ensure_future(drip(await at.connect(), *WAYS[way])) for way in ways]
            served = 0
            while not all(each.done() for each in drips):
                client = await at.connect()
                await client.begin()
                assert (await client.do(b"Subject: x\r\n\r\nx\r\n.")).startswith("250")
                client.writer.close()
                served += 1
                await asyncio.sleep(0.05)
            for way, heard in zip(ways, await asyncio.gather(*drips), strict=True):
                assert way == "handshake" or b"421 4.4.2" in heard  # who has asked for TLS hears nothing in clear text
            assert served > 3
            assert (await upload).startswith("250")
            assert len(at.intake.taken) == served + 1
            assert sorted(set(at.observer.reasons)) == ["timeout", "tls"]
            while at.observer.open:
                await asyncio.sleep(0.01)

    run(loop, main())


def splits(mark: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield a content with a mark and commands behind it, cut in two at each place in and beside the mark."""
    content = b"Subject: first\r\n\r\nline" + mark + HIDDEN
    start = content.index(b"line" + mark) + 3
    for at in range(start, start + len(mark) + 3):
        yield content[:at], content[at:]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("by", ["data", "bdat"])
def test_no_mark_makes_a_second_message_however_it_is_cut(loop: str, by: str) -> None:
    async def send(at: Rig, first: bytes, second: bytes) -> None:
        client = await at.connect()
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await client.reply()
        for command in ENVELOPE:
            assert (await client.do(command)).startswith("250")
        if by == "data":
            assert (await client.do(b"DATA")).startswith("354")
            client.writer.write(first)
            await asyncio.sleep(0.002)  # the session is in this very process: it has read by then
            assert (await client.do(second + b"\r\n.")).startswith("250 2.0.0 Ok: queued as")
        else:
            client.writer.write(b"BDAT %d\r\n" % len(first) + first)
            assert (await client.reply()).startswith("250 2.0.0 ")
            client.writer.write(b"BDAT %d LAST\r\n" % len(second) + second)
            assert (await client.reply()).startswith("250 2.0.0 Ok: queued as")
        assert (await client.do(b"QUIT")).startswith("221")
        client.writer.close()

    async def main() -> None:
        async with rig(options(message_size=10**6)) as at:
            cases = [case for mark in MARKS for case in splits(mark)]
            for first, second in cases:
                await send(at, first, second)
            assert len(at.intake.taken) == len(cases)
            for envelope, content, _ in at.intake.taken:
                assert [one.address for one in envelope.recipients] == ["b@example.org"]
                assert b"Subject: smuggled" in content
                assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content)
            assert at.observer.reasons == []

    run(loop, main())
