"""Whole sessions: who is let in, limits, what the intake's answers become, reload and drain."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import smtplib
import socket
import sys
from pathlib import Path

import pytest

from sesrelay.listener import ListenerServer, bind, peer
from sesrelay.listener.content import Incoming
from sesrelay.mail.envelope import Origin, Owner
from sesrelay.mail.reply import Reply
from somebody import ME
from transcripts.listener_rig import LOOPS, OPTIONS, Client, RecordingIntake, RecordingObserver, options, rig, run

both_loops = pytest.mark.parametrize("loop", LOOPS)


@both_loops
def test_a_stranger_is_turned_away_at_the_door(loop: str) -> None:
    async def main() -> None:
        async with rig(options(networks=(ipaddress.ip_network("192.0.2.0/24"),))) as at:
            assert (await at.say([])).startswith(b"554 5.7.1 ")
            assert at.observer.reasons == ["client"]
            assert (at.observer.connections, at.observer.open) == (0, 0)

    run(loop, main())


@both_loops
@pytest.mark.parametrize("limit", ["connections", "connections_per_client"])
def test_connections_are_limited(loop: str, limit: str) -> None:
    async def main() -> None:
        async with rig(options(**{limit: 2})) as at:
            first, second = await at.connect(), await at.connect()
            assert (await first.line()).startswith("220")
            assert (await second.line()).startswith("220")
            assert (await at.say([])).startswith(b"421 4.7.0 Too many connections")
            assert (await first.do(b"QUIT")).startswith("221")
            assert await first.rest() == b""
            while at.observer.open > 1:
                await asyncio.sleep(0.01)
            third = await at.connect()
            assert (await third.line()).startswith("220")
            for client in (first, second, third):
                client.writer.close()

    run(loop, main())


@both_loops
def test_the_origin_says_who_spoke(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            client = await at.connect()
            await client.begin()
            await client.do(b".")
            assert at.intake.taken[0][2] == Origin("127.0.0.1:0", "127.0.0.1", "client.example")
            client.writer.close()

    run(loop, main())


@both_loops
def test_an_ipv4_client_on_an_ipv6_socket_is_shown_as_ipv4(loop: str) -> None:
    async def main() -> None:
        try:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        sock.setblocking(False)
        observer = RecordingObserver()
        server = ListenerServer(RecordingIntake(), observer, lambda: OPTIONS)  # type: ignore[arg-type]
        await server.listen("[::]:0", sock)
        reader, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
        assert (await reader.readline()).startswith(b"220")
        assert [session.client for session in server.sessions] == ["127.0.0.1"]
        writer.close()
        await server.drain(0.2)

    run(loop, main())


@both_loops
def test_a_unix_socket_needs_no_network_and_knows_its_clients(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "submit.sock"
        observer, intake = RecordingObserver(), RecordingIntake()
        server = ListenerServer(intake, observer, lambda: options(networks=(), connections_per_client=2))  # type: ignore[arg-type]
        await server.listen(f"unix:{path}", bind(f"unix:{path}"))
        clients = [Client(*await asyncio.open_unix_connection(path)) for _ in range(3)]
        await clients[0].begin()
        assert (await clients[0].do(b".")).startswith("250")
        assert intake.taken[0][2] == Origin(f"unix:{path}", "", "client.example", owner=Owner(os.geteuid(), ME))
        assert (await clients[1].line()).startswith("220")
        assert (await clients[2].line()).startswith("421 4.7.0 Too many connections from this client")
        for client in clients:
            client.writer.close()
        server.unlisten(f"unix:{path}")
        while path.exists():
            await asyncio.sleep(0.01)
        await server.drain(0.2)
        assert observer.connections == 2
        assert not server.clients

    run(loop, main())


@both_loops
def test_an_owner_is_asked_for_where_somebody_wants_to_know(loop: str) -> None:
    async def main() -> None:
        wish = {"asks_owners": False}
        intake = RecordingIntake()
        server = ListenerServer(intake, RecordingObserver(), lambda: chosen[wish["asks_owners"]])  # type: ignore[arg-type]
        chosen = {wanted: options(asks_owners=wanted) for wanted in (False, True)}
        await server.listen("127.0.0.1:0", bind("127.0.0.1:0"))
        host, port = server.addresses()["127.0.0.1:0"][:2]  # type: ignore[index]

        async def owner_of(client: Client) -> Owner | None:
            assert (await client.do(b".")).startswith("250")
            return intake.taken[-1][2].owner

        early = Client(*await asyncio.open_connection(host, port))
        await early.begin()
        wish["asks_owners"] = True
        late = Client(*await asyncio.open_connection(host, port))
        await late.begin()
        assert await owner_of(early) is None  # its session began with rules that name nobody
        assert await owner_of(late) == Owner(os.geteuid(), ME)
        early.writer.close()
        late.writer.close()
        await server.drain(0.2)

    run(loop, main())


@both_loops
def test_who_hangs_up_before_he_is_known_is_turned_away(loop: str) -> None:
    async def main() -> None:
        async with rig(options(asks_owners=True)) as at:
            with socket.create_connection((at.host, at.port)) as client:
                client.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0)
                reader, writer = await asyncio.open_connection(sock=client.dup())
                assert (await reader.read()).startswith(b"421 4.7.0 The client process has ended")
                writer.close()
            assert at.observer.reasons == ["owner"]

    run(loop, main())


@both_loops
def test_a_kernel_that_does_not_tell_is_a_fault_of_ours(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_NETLINK_SOCK_DIAG", 31)  # no such protocol, as where a filter forbids it

    async def main() -> None:
        async with rig(options(asks_owners=True)) as at:
            assert (await at.say([])).startswith(b"421 4.3.0 ")
            assert at.observer.reasons == ["owner"]
            assert [type(trouble) for trouble in at.observer.troubles] == [OSError]
            at.observer.troubles.clear()

    run(loop, main())


@both_loops
@pytest.mark.parametrize("reply", [Reply(452, "4.3.1", "No room"), Reply(550, "5.7.1", "Not you"), Reply(554, "5.4.6", "Loop")])
def test_the_intakes_refusal_is_the_answer(loop: str, reply: Reply) -> None:
    async def main() -> None:
        async def answer() -> Reply:
            return reply

        async with rig(intake=RecordingIntake(answer=answer)) as at:
            client = await at.connect()
            await client.begin()
            assert await client.do(b".") == str(reply)
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith("250")
            assert at.observer.reasons == ["intake"]
            client.writer.close()

    run(loop, main())


@both_loops
def test_a_fault_of_the_intake_is_temporary_and_tells_nothing(loop: str) -> None:
    async def main() -> None:
        async def answer() -> Reply:
            raise OSError(28, "No space left on device", "/var/lib/secret/queue.db")

        async with rig(intake=RecordingIntake(answer=answer)) as at:
            client = await at.connect()
            await client.begin()
            assert await client.do(b".") == "451 4.3.0 Local error, try again later"
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith("250")
            assert len(at.observer.troubles) == 1
            client.writer.close()

    run(loop, main())


@both_loops
def test_long_lines_and_eight_bits_arrive_as_sent(loop: str) -> None:
    async def main() -> None:
        async with rig(options(message_size=10**6)) as at:
            client = await at.connect()
            await client.begin()
            content = b"x" * 300_000 + b"\r\n" + bytes(range(128, 256)) + b"\r\n"
            client.writer.write(content)
            assert (await client.do(b".")).startswith("250")
            assert at.intake.taken[0][1] == content
            client.writer.close()

    run(loop, main())


@both_loops
def test_a_client_library_is_served(loop: str) -> None:
    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            refused = client.sendmail("a@example.com", ["b@example.org", "nope@localhost"], "Subject: x\r\n\r\n.dot\r\n")
            assert list(refused) == ["nope@localhost"]
            assert client.has_extn("dsn")
            client.sendmail("ü@example.com", ["b@example.org"], b"\xc3\xbc", ["SMTPUTF8", "BODY=8BITMIME"])

    async def main() -> None:
        async with rig() as at:
            await asyncio.to_thread(send, at.port)
            assert [content for _, content, _ in at.intake.taken] == [b"Subject: x\r\n\r\n.dot\r\n", b"\xc3\xbc\r\n"]
            assert [envelope.smtputf8 for envelope, _, _ in at.intake.taken] == [False, True]

    run(loop, main())


@both_loops
def test_an_accepted_message_forgives_errors(loop: str) -> None:
    async def main() -> None:
        async with rig(options(junk=12)) as at:
            client = await at.connect()
            await client.begin()
            assert (await client.do(b".")).startswith("250")
            for _ in range(3):
                for _ in range(2):
                    assert (await client.do(b"XYZZY")).startswith("500")
                for command in (b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>", b"DATA", b"."):
                    assert (await client.do(command))[:1] in "23"
            client.writer.close()

    run(loop, main())


@both_loops
def test_a_reload_is_for_new_sessions(loop: str) -> None:
    async def main() -> None:
        chosen = options()
        server = ListenerServer(RecordingIntake(), RecordingObserver(), lambda: chosen)  # type: ignore[arg-type]
        await server.listen("a", bind("127.0.0.1:0"))
        port = server.addresses()["a"][1]  # type: ignore[index]
        old_reader, old_writer = await asyncio.open_connection("127.0.0.1", port)
        assert b"mail.example.com" in await old_reader.readline()
        chosen = options(hostname="new.example.com", message_size=10)
        new_reader, new_writer = await asyncio.open_connection("127.0.0.1", port)
        assert b"new.example.com" in await new_reader.readline()
        for writer in (old_writer, new_writer):
            writer.write(b"HELO x\r\nMAIL FROM:<a@example.com> SIZE=11\r\n")
        assert [(await old_reader.readline())[:3] for _ in range(2)] == [b"250", b"250"]
        assert [(await new_reader.readline())[:3] for _ in range(2)] == [b"250", b"552"]
        old_writer.close()
        new_writer.close()
        await server.drain(0.2)

    run(loop, main())


@both_loops
def test_listeners_come_and_go(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            client = await at.connect()
            assert (await client.line()).startswith("220")
            await at.server.listen("second", bind("127.0.0.1:0"))
            assert at.server.listening == ("127.0.0.1:0", "second")
            at.server.unlisten("127.0.0.1:0")
            await asyncio.sleep(0.05)
            with pytest.raises(OSError):
                await at.connect()
            assert (await client.do(b"NOOP")).startswith("250")
            client.writer.close()

    run(loop, main())


@both_loops
def test_drain_lets_transactions_finish(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            idle, busy = await at.connect(), await at.connect()
            await idle.line()
            await busy.begin()
            drained = asyncio.ensure_future(at.server.drain(3600))
            assert (await idle.line()).startswith("421 4.3.2")
            assert await idle.rest() == b""
            busy.writer.write(b"x\r\n.\r\n")
            assert (await busy.line()).startswith("250 2.0.0 Ok: queued as")
            assert (await busy.line()).startswith("421 4.3.2")
            assert await busy.rest() == b""
            await drained
            assert at.server.sessions == set()
            assert len(at.intake.taken) == 1
            idle.writer.close()
            busy.writer.close()

    run(loop, main())


@both_loops
def test_drain_cuts_what_does_not_finish(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            stuck = await at.connect()
            await stuck.begin()
            await at.server.drain(0.1)
            assert (await stuck.line()).startswith("421 4.3.2")
            assert await stuck.rest() == b""
            assert at.server.sessions == set()
            stuck.writer.close()

    run(loop, main())


@both_loops
def test_drain_without_sessions_is_over_at_once(loop: str) -> None:
    async def main() -> None:
        async with rig() as at:
            await asyncio.wait_for(at.server.drain(3600), 5)

    run(loop, main())


CROWD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (400, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
crowd = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(200)]
codes = [client.recv(100)[:3] for client in crowd]
assert codes.count(b"220") > 40, codes
assert codes.count(b"220") + codes.count(b"421") == 200, codes
crowd[0].sendall(b"NOOP\\r\\n")
assert crowd[0].recv(100)[:3] == b"250"
"""


@both_loops
def test_a_crowd_leaves_descriptors_for_the_queue(loop: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        async with rig() as at:
            crowd = await asyncio.create_subprocess_exec(sys.executable, "-c", CROWD, str(at.port))
            assert await crowd.wait() == 0
            while at.observer.open:
                await asyncio.sleep(0.01)
            client = await at.connect()
            assert (await client.line()).startswith("220")
            client.writer.close()

    try:
        run(loop, main())  # no accept has failed: the loop has not complained
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@both_loops
@pytest.mark.parametrize("begin", [b"DATA\r\n", b"BDAT 200 LAST\r\n"])
def test_what_follows_a_fault_of_ours_in_the_middle_of_content_is_not_taken_for_commands(
    loop: str, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Incoming, data: bytes) -> None:
        raise RuntimeError("a bug of ours")

    async def main() -> None:
        async with rig() as at:
            client = await at.connect()
            for command in (b"EHLO client.example", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>"):
                await client.do(command)
            monkeypatch.setattr(Incoming, "add", broken)
            heard = asyncio.ensure_future(client.rest())
            client.writer.write(begin)
            while not heard.done():
                if not client.writer.is_closing():
                    client.writer.write(b"MAIL FROM:<c@example.com>\r\nRCPT TO:<d@example.org>\r\n")
                await asyncio.wait({heard}, timeout=0.01)
            said = (await heard).decode().splitlines()
            assert [line[:3] for line in said[said.index("250 2.1.5 Ok") + 1 :]] == ["354"] * (begin == b"DATA\r\n") + ["451"]
            assert len(at.observer.troubles) == 1
            client.writer.close()

    run(loop, main())
