"""One client's connection: what is said to it and when, how long it may take, and what it may undo."""

from __future__ import annotations

import asyncio
import gc
import itertools
import resource
import socket
import struct
import weakref
from typing import Any

import pytest

from sesrelay.listener.lines import LINE_MAX, SKIP_MAX
from sesrelay.listener.replies import encode
from sesrelay.listener.rota import Rota
from sesrelay.listener.session import SmtpSession
from sesrelay.listener.wire import AT_ONCE, READ_LIMIT, Wire
from sesrelay.mail.reply import Reply
from transcripts.listener_rig import LOOPS, RecordingIntake, options, rig, run

both_loops = pytest.mark.parametrize("loop", LOOPS)
GREETED = b"HELO client\r\n"


class Noting:
    """A transport that notes what is written to it."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@both_loops
def test_pipelined_replies_leave_in_one_write(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            client = await at.connect()
            await client.reply()
            writes: list[bytes] = []
            (session,) = at.server.sessions
            session.transport = Noting(session.transport, writes)  # type: ignore[assignment]
            client.writer.write(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
            for code in ("250", "250", "250", "354"):
                assert (await client.reply()).startswith(code)
            assert len(writes) == 1
            client.writer.close()

    run(loop, main())


@both_loops
def test_a_line_without_an_end_is_cut(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            heard = await at.say([GREETED, *[b"x" * 1000] * (2 + (LINE_MAX + SKIP_MAX) // 1000)])
            assert heard.split(b"\r\n")[2:] == [b"500 5.5.2 Command line too long"] * 2 + [b""]

    run(loop, main())


@both_loops
@pytest.mark.parametrize(("length", "code"), [(LINE_MAX - 2, b"250"), (LINE_MAX - 1, b"500"), (LINE_MAX + 9000, b"500")])
def test_a_long_line_gets_one_reply_and_the_session_goes_on(loop: str, length: int, code: bytes) -> None:
    async def main() -> None:
        async with rig() as at:
            line = b"NOOP ".ljust(length, b"x") + b"\r\n"
            for step in (len(line), 100):
                pieces = [line[i : i + step] for i in range(0, len(line), step)]
                heard = (await at.say([GREETED, *pieces, b"QUIT\r\n"])).split(b"\r\n")
                assert [reply[:3] for reply in heard] == [b"220", b"250", code, b"221", b""]

    run(loop, main())


@both_loops
def test_commands_before_a_half_close_are_answered(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            client = await at.connect()
            client.writer.write(GREETED + b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nx\r\n.\r\n")
            client.writer.write_eof()
            heard = await client.rest()
            assert [line[:3] for line in heard.split(b"\r\n")] == [b"220", b"250", b"250", b"250", b"354", b"250", b""]
            assert len(at.intake.taken) == 1
            client.writer.close()

    run(loop, main())


@both_loops
def test_half_a_message_is_none(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            client = await at.connect()
            await client.begin()
            client.writer.write(b"x\r\n.\r")
            client.writer.write_eof()
            assert await client.rest() == b""
            assert at.intake.taken == []
            client.writer.close()

    run(loop, main())


@both_loops
def test_dripping_clients_are_cut_and_steady_ones_are_not(loop: str) -> None:
    chosen = options(command_timeout=30.0, line_timeout=0.5, min_rate=200.0, message_size=9999)

    async def drip(at: Any, *, in_data: bool, text: bytes = b"N") -> bytes:
        client = await at.connect()
        if in_data:
            await client.begin()
        heard = asyncio.ensure_future(client.rest())
        for octet in itertools.cycle(text):
            if heard.done():
                break
            if not client.writer.is_closing():
                client.writer.write(bytes((octet,)))
            await asyncio.wait({heard}, timeout=0.02)
        client.writer.close()
        return await heard

    async def steady(at: Any) -> str:
        client = await at.connect()
        await client.begin()
        for _ in range(60):  # 1.5 seconds in all: longer than what it starts with, at many times the minimum rate
            client.writer.write(b"x" * 38 + b"\r\n")
            await asyncio.sleep(0.025)
        return await client.do(b".")

    async def main() -> None:
        async with rig(chosen) as at:
            line, lines, content, good = await asyncio.gather(
                drip(at, in_data=False), drip(at, in_data=False, text=b"EHLO slow.example\r\n"), drip(at, in_data=True), steady(at)
            )
            assert b"421 4.4.2" in line
            assert b"421 4.4.2" in lines
            assert b"421 4.4.2" in content
            assert good.startswith("250 2.0.0")
            assert at.observer.reasons == ["timeout"] * 3

    run(loop, main())


@both_loops
def test_however_it_comes_a_message_ends_in_time(loop: str) -> None:
    async def main() -> None:
        async with rig(options(content_time=0.3, min_rate=1.0, message_size=10**9)) as at:
            client = await at.connect()
            await client.begin()
            heard = asyncio.ensure_future(client.rest())
            while not heard.done():
                if not client.writer.is_closing():
                    client.writer.write(b"x" * 100)
                await asyncio.wait({heard}, timeout=0.02)
            assert b"421 4.4.2" in await heard

    run(loop, main())


@both_loops
def test_silence_ends_a_session(loop: str) -> None:
    async def main() -> None:
        async with rig(options(command_timeout=0.1)) as at:
            heard = await at.say([GREETED])
            assert heard.endswith(b"421 4.4.2 Timeout: the connection is closed\r\n")

    run(loop, main())


@both_loops
def test_a_client_that_reads_nothing_is_cut(loop: str) -> None:
    async def main() -> None:
        async with rig(options(command_timeout=0.3, line_timeout=0.3, junk=10**9)) as at:
            client = await at.connect()
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            while at.observer.open or not at.observer.connections:
                if not client.writer.is_closing():
                    client.writer.write(b"HELP\r\n" * 10_000)
                await asyncio.sleep(0.01)
            client.writer.close()

    run(loop, main())


@both_loops
def test_what_comes_while_replies_wait_is_answered(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            client = await at.connect()
            await client.reply()
            (session,) = at.server.sessions
            session.pause_writing()
            client.writer.write(b"NOOP\r\n")
            while not session._buffer:
                await asyncio.sleep(0.001)
            session.resume_writing()
            assert (await client.reply()).startswith("250")
            client.writer.close()

    run(loop, main())


@both_loops
def test_content_over_the_limit_is_not_held(loop: str) -> None:
    async def main() -> None:
        async with rig(options(message_size=100_000)) as at:
            client = await at.connect()
            await client.begin()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(600):
                client.writer.write(b"x" * 99_998 + b"\r\n")
                await client.writer.drain()
            assert (await client.do(b".")).startswith("552 5.3.4")
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB, of 60 MB sent
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith("250")
            client.writer.close()

    run(loop, main())


@both_loops
@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_drops_undoes_no_commit(loop: str, reset: bool) -> None:
    async def main() -> None:
        committing, go = asyncio.Event(), asyncio.Event()

        async def commit() -> Reply:
            committing.set()
            await go.wait()
            return Reply(250, "2.0.0", "Ok: queued as 0123456789AB")

        intake = RecordingIntake(answer=commit)
        async with rig(options(command_timeout=0.1), intake) as at:
            client = await at.connect()
            await client.begin()
            client.writer.write(b"x\r\n.\r\nMAIL FROM:<late@example.com>\r\n")
            await committing.wait()
            if reset:  # with a reset, not only an end of what it sends, the connection is lost at once
                client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.writer.transport.abort()
            await asyncio.sleep(0.3)  # longer than the time-out, which a commit is not held to
            assert at.observer.open == 1
            go.set()
            if not reset:
                assert (await client.reply()).startswith("250 2.0.0 Ok: queued as")
                client.writer.close()
            while at.observer.open:
                await asyncio.sleep(0.01)
            assert len(intake.taken) == 1
            assert at.observer.troubles == []

    run(loop, main())


@both_loops
def test_a_fault_is_told_of_though_the_client_has_gone(loop: str) -> None:
    async def main() -> None:
        committing, go = asyncio.Event(), asyncio.Event()

        async def commit() -> Reply:
            committing.set()
            await go.wait()
            raise RuntimeError("a fault of ours")

        async with rig(intake=RecordingIntake(answer=commit)) as at:
            client = await at.connect()
            await client.begin()
            client.writer.write(b"x\r\n.\r\n")
            await committing.wait()
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.transport.abort()
            await asyncio.sleep(0.05)
            go.set()
            while at.observer.open:
                await asyncio.sleep(0.01)
            assert [str(error) for error in at.observer.troubles] == ["a fault of ours"]

    run(loop, main())


@both_loops
def test_a_client_that_does_not_read_is_not_answered_until_it_does(loop: str) -> None:
    async def main() -> None:
        async with rig(options(junk=10**9)) as at:
            client = await at.connect()
            await client.reply()
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            (session,) = at.server.sessions
            asked = most = 0
            while client.writer.transport.get_write_buffer_size() < 1_000_000:  # until the kernel takes nothing more
                # Long lines, as it takes as many to fill the kernel; no more of them than are answered at once.
                client.writer.write((b"HELP ".ljust(2000, b"x") + b"\r\n") * 16)
                asked += 16
                await asyncio.sleep(0)
                most = max(most, len(session._buffer))
            assert 2 * READ_LIMIT < most < 4 * READ_LIMIT, "what the client goes on to send stays with the kernel"
            client.reader._transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(asked):
                assert (await client.line()).startswith("214")
            client.writer.close()

    run(loop, main())


@both_loops
@pytest.mark.parametrize("last", [b"QUIT\r\n", None])
def test_a_client_that_reads_in_the_end_hears_it_all(loop: str, last: bytes | None) -> None:
    async def main() -> None:
        async with rig(options(junk=10**9)) as at:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, (at.host, at.port))
                asked = 0
                while not any(session._clogged for session in at.server.sessions):
                    await asyncio.get_running_loop().sock_sendall(sock, b"HELP\r\n" * 200)
                    asked += 200
                    await asyncio.sleep(0.001)
                if last is None:
                    sock.shutdown(socket.SHUT_WR)
                else:
                    await asyncio.get_running_loop().sock_sendall(sock, last)
                await asyncio.sleep(0.05)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
                sock.setblocking(True)
                heard = await asyncio.to_thread(lambda: b"".join(iter(lambda: sock.recv(1 << 20), b"")))
            assert heard.count(b"\r\n214 ") == asked
            assert heard.endswith(b"221 2.0.0 Bye\r\n") == (last is not None)
            while at.observer.open:
                await asyncio.sleep(0.01)

    run(loop, main())


@both_loops
def test_whoever_leaves_without_reading_is_cut_in_the_end(loop: str) -> None:
    async def main() -> None:
        async with rig(options(junk=10**9, line_timeout=0.3)) as at:
            at.server._doors["127.0.0.1:0"].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, (at.host, at.port))
                await asyncio.get_running_loop().sock_sendall(sock, b"HELP\r\n" * 500 + b"QUIT\r\n")
                while not at.observer.connections:
                    await asyncio.sleep(0.001)
                async with asyncio.timeout(5):
                    while at.observer.open:
                        await asyncio.sleep(0.01)

    run(loop, main())


@both_loops
def test_many_chunks_in_one_piece(loop: str) -> None:
    async def main() -> None:
        async with rig(options(junk=10**9, message_size=10**6)) as at:
            begin = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
            heard = await at.say([GREETED + begin + b"BDAT 0\r\nBDAT 1\r\nx" * 2000 + b"BDAT 0 LAST\r\nQUIT\r\n"])
            assert heard.count(b"250 2.0.0 1 octets received") == 2000
            assert heard.endswith(b"221 2.0.0 Bye\r\n")
            assert [content for _, content, _ in at.intake.taken] == [b"x" * 2000 + b"\r\n"]

    run(loop, main())


@both_loops
@pytest.mark.parametrize("command", [b"BDAT 0\r\n", b"RCPT TO:<b@example.org>\r\n"])
def test_others_are_looked_at_while_one_has_very_much_to_be_answered(
    loop: str, command: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[SmtpSession] = []
    answer = SmtpSession.command

    def noting(session: SmtpSession, line: bytearray) -> Any:
        heard.append(session)
        return answer(session, line)

    async def main() -> None:
        async with rig() as at:
            clients = [await at.connect() for _ in range(2)]
            for client in clients:
                await client.reply()
                for begun in (b"HELO x", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>"):
                    assert (await client.do(begun)).startswith("250")
            monkeypatch.setattr(SmtpSession, "command", noting)
            many, one = clients
            many.writer.write(command * 2000)
            many.writer.write_eof()
            assert (await one.do(b"NOOP")).startswith("250")
            assert (await many.rest()).count(b"250 2.") == 2000
            session = min(set(heard), key=heard.count)
            assert heard.index(session) <= 2 * AT_ONCE
            one.writer.close()

    run(loop, main())


@both_loops
def test_a_session_with_very_much_to_be_answered_ends_where_the_relay_does(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_again = Rota.ask_again

    def told_to_leave(rota: Rota, session: SmtpSession) -> None:
        ask_again(rota, session)
        session.leave()

    async def main() -> None:
        monkeypatch.setattr(Rota, "ask_again", told_to_leave)
        async with rig(options(junk=10**9)) as at:
            lines = (await at.say([GREETED + b"NOOP\r\n" * AT_ONCE * 3])).split(b"\r\n")
            assert [lines.count(b"250 2.0.0 Ok"), lines[-2][:9]] == [AT_ONCE, b"421 4.3.2"]

    run(loop, main())


@both_loops
def test_a_fault_outside_of_a_command_ends_the_session_and_is_told(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            at.observer.refused = failing  # type: ignore[method-assign]
            heard = await at.say([GREETED + b"NOOP\nNOOP\r\nNOOP\r\n"])
            assert heard.count(b"250 ") == 1
            assert [str(error) for error in at.observer.troubles] == ["a fault of ours"]

    def failing(*what: object) -> None:
        raise RuntimeError("a fault of ours")

    run(loop, main())


@both_loops
@pytest.mark.parametrize("error", [BrokenPipeError("the store's"), asyncio.CancelledError()], ids=["connection", "cancelled"])
def test_what_ends_the_storing_is_not_taken_for_the_client(loop: str, error: BaseException) -> None:
    async def main() -> None:
        async def commit() -> Reply:
            raise error

        async with rig(intake=RecordingIntake(answer=commit)) as at:
            client = await at.connect()
            await client.begin()
            assert (await client.do(b"x\r\n.")).startswith("451 4.3.0")
            assert at.observer.troubles == [error]
            assert (await client.do(b"NOOP")).startswith("250")
            client.writer.close()

    run(loop, main())


@both_loops
def test_nothing_is_left_of_who_was_not_let_in(loop: str) -> None:
    async def main() -> None:
        async with rig(options(connections=0)) as at:
            made: list[weakref.ref[Wire]] = []

            def noted(session: Wire, *what: Any) -> None:
                made.append(weakref.ref(session))
                begin(session, *what)

            begin = Wire.__init__
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Wire, "__init__", noted)
                gc.collect()
                gc.disable()
                try:
                    for _ in range(5):
                        assert (await at.say([])).startswith(b"421 4.7.0")
                    await asyncio.sleep(0.05)
                    assert [ref() for ref in made] == [None] * 5
                finally:
                    gc.enable()

    run(loop, main())


def test_replies_are_one_line_of_ascii() -> None:
    assert encode(Reply(550, "5.1.1", "no\r\n250 ü\x00")) == b"550 5.1.1 no  250 \\xfc \r\n"
    assert len(encode(Reply(550, "5.1.1", "x" * 2000))) == 512
