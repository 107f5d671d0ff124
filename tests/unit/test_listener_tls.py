"""TLS at the door: STARTTLS and from the first octet, what is forgotten, what fails, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import warnings
import weakref
from pathlib import Path

import pytest

from guarded import Authority, ehlo, guarded, secured
from sesrelay.listener.options import DoorOptions
from sesrelay.listener.passwords import NOBODY
from sesrelay.listener.tls import CertificateError, server_context
from sesrelay.mail.reply import Reply
from transcripts.listener_rig import LOOPS, RecordingIntake, Rig, run

both_loops = pytest.mark.parametrize("loop", LOOPS)
both_ways = pytest.mark.parametrize("tls", ["starttls", "implicit"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def door(authority: Authority, tls: str = "starttls") -> DoorOptions:
    return DoorOptions(tls, "none", authority.server())  # type: ignore[arg-type]


async def gone(at: Rig) -> None:
    """Wait until the server holds no session."""
    async with asyncio.timeout(10):
        while at.observer.open or at.server.sessions:
            await asyncio.sleep(0.005)


@both_loops
@both_ways
def test_a_message_under_tls(loop: str, tls: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority, tls), message_size=300_000) as at:
            client = await secured(at, authority.client(), implicit=tls == "implicit")
            for _ in range(2):
                body = b"x" * 70 + b"\r\n"
                client.writer.write(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
                assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
                client.writer.write(body * 3000 + b".\r\n")
                assert (await client.reply()).startswith("250 2.0.0 Ok: queued")
            assert (await client.do(b"QUIT")).startswith("221")
            assert await client.rest() == b""
            client.writer.close()
            await gone(at)
        (_, content, origin), _ = at.intake.taken
        assert content == body * 3000
        assert origin.tls is not None
        assert origin.tls.startswith("TLSv1.3 TLS_")
        assert origin.helo == "client.example"
        assert at.observer.refusals == []

    run(loop, main())


@both_loops
def test_what_is_offered_when(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await at.connect()
            await client.reply()
            assert "STARTTLS" in await ehlo(client)
            assert (await client.do(b"HELP")).endswith(" QUIT STARTTLS")
            client.writer.close()
            client = await secured(at, authority.client(), greet=False)
            assert "STARTTLS" not in await ehlo(client)
            assert (await client.do(b"HELP")).endswith(" QUIT")
            assert await client.do(b"STARTTLS") == "503 5.5.1 TLS is already active"
            client.writer.close()
        async with guarded(door(authority, "implicit")) as at:
            client = await secured(at, authority.client(), implicit=True, greet=False)
            assert "STARTTLS" not in await ehlo(client)
            assert await client.do(b"STARTTLS") == "503 5.5.1 TLS is already active"
            client.writer.close()
        async with guarded(DoorOptions()) as at:
            client = await at.connect()
            await client.reply()
            assert "STARTTLS" not in await ehlo(client)
            assert (await client.do(b"STARTTLS")).startswith("502 5.5.1 ")
            client.writer.close()

    run(loop, main())


@both_loops
def test_starttls_takes_no_argument(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await at.connect()
            await client.reply()
            assert (await client.do(b"STARTTLS now")).startswith("501 5.5.4 ")
            assert (await client.do(b"NOOP")).startswith("250")
            client.writer.close()

    run(loop, main())


@both_loops
def test_what_was_said_in_clear_text_is_forgotten(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await at.connect()
            await client.reply()
            for command in (b"EHLO spoofed.example", b"MAIL FROM:<spoofed@example.com>", b"RCPT TO:<b@example.org>"):
                assert (await client.do(command)).startswith("250")
            assert (await client.do(b"STARTTLS")).startswith("220")
            await client.writer.start_tls(authority.client(), server_hostname="localhost")
            assert (await client.do(b"DATA")).startswith("503 5.5.1 Send EHLO")
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith("503 5.5.1 Send EHLO")
            assert (await client.do(b"EHLO client.example")).startswith("250")
            assert (await client.do(b"RCPT TO:<b@example.org>")).startswith("503 5.5.1 Send MAIL")
            client.writer.close()
            await gone(at)
        assert at.observer.refusals[-1][0].helo == "client.example"

    run(loop, main())


@both_loops
@pytest.mark.parametrize("behind", [b"RSET\r\n", b"MAIL FROM:<injected@example.com>\r\n", b"NOOP", b"NOOP\r\n" * 30_000])
def test_what_is_pipelined_behind_starttls_is_dropped(loop: str, behind: bytes, authority: Authority) -> None:
    """CVE-2011-0411: what a man in the middle injects before the handshake must not be answered under TLS."""

    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await at.connect()
            await client.reply()
            await client.do(b"EHLO client.example")
            # One segment for the short ones: the octets are in the buffer when the verb is answered.
            client.writer.write(b"STARTTLS\r\n" + behind)
            assert (await client.reply()).startswith("220 2.0.0 ")
            if len(behind) > 1000:
                # What comes later meets the handshake, which it is not.
                assert b"250 " not in await client.rest()
                client.writer.close()
                return
            await client.writer.start_tls(authority.client(), server_hostname="localhost")
            client.writer.write(b"EHLO after.example\r\n")
            assert await client.line() == "250-mail.example.com"
            client.writer.close()

    run(loop, main())


@both_loops
@both_ways
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x16\x03\x01\x00\x05hello", "?"),
        (b"EHLO client.example\r\n" * 20, "?"),
        (b"GET / HTTP/1.1\r\n\r\n", "?"),
        (b"", "the client closed the connection"),
    ],
)
def test_a_handshake_that_fails_is_one_line(
    loop: str, tls: str, said: bytes, reason: str, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with guarded(door(authority, tls)) as at:
            client = await at.connect()
            if tls == "starttls":
                await client.reply()
                await client.do(b"STARTTLS")
            client.writer.write(said)
            if not said:
                client.writer.write_eof()
            answer = await client.rest()
            assert b"220" not in answer
            client.writer.close()
            await gone(at)
            assert at.observer.reasons == ["tls"]
            text = at.observer.refusals[0][1].text
            assert text.startswith("TLS handshake failed: ")
            assert reason == "?" or text.endswith(reason)
        assert at.observer.troubles == []

    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        run(loop, main())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@both_loops
@both_ways
def test_a_reset_in_the_handshake_leaves_nothing_behind(loop: str, tls: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority, tls)) as at:
            for _ in range(5):
                client = await at.connect()
                if tls == "starttls":
                    await client.reply()
                    await client.do(b"STARTTLS")
                client.writer.write(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
                await asyncio.sleep(0.01)
                sock = client.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                client.writer.transport.abort()
            await gone(at)
            assert at.observer.connections == 5
            assert at.observer.reasons == ["tls"] * 5

    run(loop, main())


@both_loops
@both_ways
def test_a_handshake_that_never_comes_is_cut(loop: str, tls: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority, tls), line_timeout=0.2) as at:
            client = await at.connect()
            if tls == "starttls":
                await client.reply()
                await client.do(b"STARTTLS")
            assert await client.rest() == b""
            client.writer.close()
            await gone(at)
            assert [refused[1].text for refused in at.observer.refusals] == ["TLS handshake failed: not done in time"]

    run(loop, main())


@both_loops
@both_ways
def test_a_drain_does_not_wait_for_handshakes(loop: str, tls: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority, tls)) as at:
            client = await at.connect()
            if tls == "starttls":
                await client.reply()
                await client.do(b"STARTTLS")
            while not at.server.sessions:
                await asyncio.sleep(0.005)
            await at.server.drain(0.05)
            assert at.server.sessions == set()
            assert await client.rest() == b""
            client.writer.close()

    run(loop, main())


@both_loops
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1])
def test_no_tls_before_1_2(loop: str, version: ssl.TLSVersion, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority)) as at:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context = authority.client(maximum_version=version, minimum_version=version)
            context.set_ciphers("ALL:@SECLEVEL=0")
            if version is ssl.TLSVersion.TLSv1_2:
                client = await secured(at, context)
                client.writer.close()
                await gone(at)
                return
            with pytest.raises(OSError):
                await secured(at, context)
            await gone(at)
            assert at.observer.refusals[0][1].text == "TLS handshake failed: unsupported protocol"

    run(loop, main())


@both_loops
@pytest.mark.parametrize("end", ["notify", "abort"])
def test_a_client_that_leaves_after_its_last_command_has_its_message_stored(loop: str, end: str, authority: Authority) -> None:
    """Its reply is lost, its message is not; and nothing complains."""
    held = asyncio.Event()

    async def slow() -> Reply:
        await held.wait()
        return Reply(250, "2.0.0", "Ok: queued as 0123456789AB")

    async def main() -> None:
        intake = RecordingIntake(answer=slow)
        async with guarded(door(authority), intake=intake) as at:
            client = await secured(at, authority.client())
            client.writer.write(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
            assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "354"]
            client.writer.write(b"x\r\n.\r\n")
            await client.writer.drain()
            await asyncio.sleep(0.02)
            if end == "notify":
                client.writer.close()
            else:
                client.writer.transport.abort()
            await asyncio.sleep(0.05)
            held.set()
            await gone(at)
            assert len(at.intake.taken) == 1
            assert at.observer.troubles == []

    run(loop, main())


@both_loops
def test_a_stranger_at_an_implicit_door_hears_nothing_in_clear_text(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority, "implicit"), networks=()) as at:
            assert await at.say([]) == b""
            assert at.observer.reasons == ["client"]

    run(loop, main())


@both_loops
def test_many_sessions_under_tls_at_once(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority, "implicit")) as at:
            context = authority.client()

            async def one() -> None:
                client = await secured(at, context, implicit=True)
                assert (await client.do(b"QUIT")).startswith("221")
                await client.rest()
                client.writer.close()

            await asyncio.gather(*(one() for _ in range(20)))
            await gone(at)

    run(loop, main())


@both_loops
@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_a_session_that_has_ended_waits_for_no_collection(loop: str, tls: str, authority: Authority) -> None:
    async def main() -> None:
        chosen = DoorOptions() if tls == "none" else door(authority, tls)
        async with guarded(chosen) as at:
            for _ in range(3):
                if tls == "none":
                    client = await at.connect()
                    await client.reply()
                else:
                    client = await secured(at, authority.client(), implicit=tls == "implicit")
                known = weakref.WeakSet(at.server.sessions)
                assert len(known) == 1
                assert (await client.do(b"QUIT")).startswith("221")
                await client.rest()
                client.writer.close()
                await gone(at)
                async with asyncio.timeout(10):
                    while known:
                        await asyncio.sleep(0.005)

    gc.collect()
    gc.disable()
    try:
        run(loop, main())
    finally:
        gc.enable()


def test_a_context_that_cannot_serve_says_which_files(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    with pytest.raises(CertificateError, match=r"cert\.pem and .*key\.pem cannot serve TLS: key values mismatch"):
        server_context(authority.certificate, stranger.key)
    with pytest.raises(CertificateError, match="No such file"):
        server_context(tmp_path / "gone.pem", stranger.key)


def test_the_context_keeps_to_what_is_promised(authority: Authority) -> None:
    context = authority.server()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode is ssl.CERT_NONE
    assert not any(name in cipher["name"] for cipher in context.get_ciphers() for name in ("NULL", "RC4", "DES", "MD5", "ADH"))
    assert NOBODY.to_verify("anybody") is None


class Wired:
    """A client whose TLS is made by hand, so that what it says goes out together with the end of the handshake."""

    def __init__(self, at: Rig, authority: Authority) -> None:
        self._at, self._loop = at, asyncio.get_running_loop()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = authority.client()
        context.check_hostname = False
        self._tls = context.wrap_bio(self._in, self._out)
        self.sock = socket.socket()
        self.sock.setblocking(False)

    async def connect(self) -> None:
        await self._loop.sock_connect(self.sock, (self._at.host, self._at.port))

    async def say(self, octets: bytes) -> None:
        await self._loop.sock_sendall(self.sock, octets)

    async def clear_until(self, last: bytes) -> bytes:
        heard = b""
        while not heard.endswith(last):
            heard += await asyncio.wait_for(self._loop.sock_recv(self.sock, 65536), 10)
        return heard

    async def handshake(self, behind: bytes, *, leave: bool = False) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                self._in.write(await asyncio.wait_for(self._loop.sock_recv(self.sock, 65536), 10))
        self._tls.write(behind)
        if leave:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
        await self._flush()

    async def do(self, command: bytes, *, replies: int = 1) -> bytes:
        """Say it under TLS, and return what is heard up to so many lines."""
        if command:
            self._tls.write(command)
            await self._flush()
        heard = b""
        while heard.count(b"\n") < replies:
            try:
                heard += self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._in.write(await asyncio.wait_for(self._loop.sock_recv(self.sock, 65536), 10))
        return heard

    async def _flush(self) -> None:
        await self.say(self._out.read())


@both_loops
@both_ways
def test_what_comes_with_the_end_of_the_handshake_stops_nothing(loop: str, tls: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority, tls), junk=10**9) as at:
            at.server._doors["127.0.0.1:0"].sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
            client = Wired(at, authority)
            with client.sock:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
                await client.connect()
                if tls == "starttls":
                    await client.clear_until(b"\r\n")
                    await client.say(b"STARTTLS\r\n")
                    await client.clear_until(b"\r\n")
                await client.handshake(b"NOOP\r\n" * 40_000)
                greeted = tls == "implicit"
                assert (await client.do(b"", replies=40_000 + greeted)).count(b"250 2.0.0 Ok") == 40_000
                assert (await client.do(b"HELO later\r\n")).startswith(b"250 ")

    run(loop, main())


@both_loops
def test_who_has_not_read_the_replies_before_it_gets_no_tls(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority), junk=10**9) as at:
            client = Wired(at, authority)
            with client.sock:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await client.connect()
                while not at.server.sessions:
                    await asyncio.sleep(0.001)
                (session,) = at.server.sessions
                assert session.transport is not None
                answer, said, heard = session.command, 0, list[bytearray]()
                session.command = lambda line: heard.append(line) or answer(line)  # type: ignore[method-assign,func-returns-value]
                while (waiting := session.transport.get_write_buffer_size()) <= 65536 - 26:  # a further reply is too much
                    more = 100 if waiting < 60_000 else 1
                    said += more
                    await client.say(b"NOOP\r\n" * more)
                    while len(heard) < said:
                        await asyncio.sleep(0.001)
                assert not session._clogged
                await client.say(b"STARTTLS\r\n")
                await client.clear_until(b"220 2.0.0 Ready to start TLS\r\n")
                await gone(at)
                assert at.observer.reasons == ["tls"]

    run(loop, main())


@both_loops
@both_ways
def test_who_leaves_with_the_end_of_the_handshake_is_let_go(
    loop: str, tls: str, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with guarded(door(authority, tls)) as at:
            client = Wired(at, authority)
            with client.sock:
                await client.connect()
                if tls == "starttls":
                    await client.clear_until(b"\r\n")
                    await client.say(b"STARTTLS\r\n")
                    await client.clear_until(b"\r\n")
                await client.handshake(b"QUIT\r\n", leave=True)
                await gone(at)

    run(loop, main())
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
