"""What the listener withstands, shown on the process as a whole: smuggling, crowds, drips and loops."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_process import KEY, SECRET, Relay, StandIn, ses_transport, wait_for
from transcripts.listener_rig import LOOPS, Client, options, rig, run

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


def test_a_crowd_without_descriptors_is_turned_away_quietly(tmp_path: Path, ses: StandIn) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    relay = Relay(tmp_path, f"transports:\n{ses_transport('ses-main', ses.url)}\ndefault_route: {{transport: ses-main}}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        relay.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(relay.__exit__)
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
        assert len(relay.log.read_text().splitlines()) - before < 20


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


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hundred_and_fifty_who_drip_are_gone_and_the_good_are_served(loop: str) -> None:
    chosen = options(line_timeout=1.0, min_rate=500.0, command_timeout=30.0, message_size=10**6)
    ways = itertools.cycle([(), (b"DATA",), (b"BDAT 100000",)])

    async def drip(client: Client, way: tuple[bytes, ...]) -> bytes:
        await client.reply()
        if way:
            for command in (b"EHLO c.example", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>"):
                await client.do(command)
            client.writer.write(way[0] + b"\r\n")
        heard = asyncio.ensure_future(client.rest())
        while not heard.done():
            if not client.writer.is_closing():
                client.writer.write(b"N")
            await asyncio.wait({heard}, timeout=0.1)
        client.writer.close()
        return await heard

    async def main() -> None:
        async with rig(chosen) as at:
            drips = [asyncio.ensure_future(drip(await at.connect(), next(ways))) for _ in range(150)]
            served = 0
            while not all(each.done() for each in drips):
                client = await at.connect()
                await client.begin()
                assert (await client.do(b"Subject: x\r\n\r\nx\r\n.")).startswith("250")
                client.writer.close()
                served += 1
                await asyncio.sleep(0.05)
            assert all(b"421 4.4.2" in heard for heard in await asyncio.gather(*drips))
            assert served > 3
            assert len(at.intake.taken) == served

    run(loop, main())
