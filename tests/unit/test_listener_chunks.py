"""BDAT over a real connection: its deadlines, what it holds of the memory, and clients that leave in the middle."""

from __future__ import annotations

import asyncio

import pytest

from sesrelay.mail.reply import Reply
from sesrelay.policy.budget import ByteBudget
from transcripts.listener_rig import LOOPS, Client, RecordingIntake, options, rig, run

both_loops = pytest.mark.parametrize("loop", LOOPS)


async def envelope(client: Client, more: bytes = b"") -> None:
    await client.reply()
    for command in (b"EHLO client.example", b"MAIL FROM:<a@example.com>" + more, b"RCPT TO:<b@example.org>"):
        assert (await client.do(command)).startswith("250")


@both_loops
@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"1.5", b"1 LATE", b"1 LAST LAST", b"9" * 21, b"0x10", "\u0663".encode()])
def test_a_size_that_is_none_ends_the_session(loop: str, argument: bytes) -> None:
    async def main() -> None:
        async with rig() as at:
            client = await at.connect()
            await envelope(client)
            assert (await client.do(b"BDAT " + argument + b"\r\nMAIL FROM:<late@example.com>")).startswith("501 5.5.4")
            assert await client.rest() == b""
            client.writer.close()

    run(loop, main())


@both_loops
def test_a_chunk_that_drips_is_cut_and_a_steady_one_is_not(loop: str) -> None:
    chosen = options(line_timeout=0.5, min_rate=200.0, message_size=9999)

    async def drip(client: Client) -> bytes:
        await envelope(client)
        client.writer.write(b"BDAT 9000\r\n")
        heard = asyncio.ensure_future(client.rest())
        while not heard.done():
            if not client.writer.is_closing():
                client.writer.write(b"x")
            await asyncio.wait({heard}, timeout=0.02)
        client.writer.close()
        return await heard

    async def steady(client: Client) -> str:
        await envelope(client)
        client.writer.write(b"BDAT 1500 LAST\r\n")
        for _ in range(60):
            client.writer.write(b"x" * 25)
            await asyncio.sleep(0.025)
        said = await client.reply()
        client.writer.close()
        return said

    async def main() -> None:
        async with rig(chosen) as at:
            cut, good = await asyncio.gather(drip(await at.connect()), steady(await at.connect()))
            assert b"421 4.4.2" in cut
            assert good.startswith("250 2.0.0 Ok")
            assert at.observer.reasons == ["timeout"]

    run(loop, main())


@both_loops
def test_chunks_without_end_are_a_message_without_end(loop: str) -> None:
    async def main() -> None:
        async with rig(options(content_time=0.4, message_size=10**6)) as at:
            client = await at.connect()
            await envelope(client)
            heard = asyncio.ensure_future(client.rest())
            while not heard.done():
                if not client.writer.is_closing():
                    client.writer.write(b"BDAT 10\r\n0123456789")
                await asyncio.wait({heard}, timeout=0.02)
            said = (await heard).splitlines()
            assert said.pop() == b"421 4.4.2 Timeout: the connection is closed"
            assert {line[:4] for line in said} == {b"250 "}, "no octet of a chunk is a command"
            client.writer.close()

    run(loop, main())


@both_loops
@pytest.mark.parametrize("end", [b"RSET", b"EHLO again.example", b"QUIT"])
def test_chunks_that_come_to_nothing_give_their_memory_back(loop: str, end: bytes) -> None:
    async def main() -> None:
        share = ByteBudget(10_000).incoming
        async with rig(memory=share) as at:
            client = await at.connect()
            await envelope(client)
            assert await client.do(b"BDAT 1000\r\n" + b"x" * 998) == "250 2.0.0 1000 octets received"
            assert share.used >= 1000
            assert (await client.do(end))[0] == "2"
            while share.used:
                await asyncio.sleep(0.01)
            client.writer.close()

    run(loop, main())


@both_loops
def test_a_client_that_leaves_in_a_chunk_gives_its_memory_back(loop: str) -> None:
    async def main() -> None:
        share = ByteBudget(10_000).incoming
        async with rig(memory=share) as at:
            client = await at.connect()
            await envelope(client)
            client.writer.write(b"BDAT 1000\r\n" + b"x" * 600)
            while not share.used:
                await asyncio.sleep(0.01)
            client.writer.transport.abort()
            while share.used or at.observer.open:
                await asyncio.sleep(0.01)
            assert at.intake.taken == []

    run(loop, main())


@both_loops
@pytest.mark.parametrize("by", ["data", "bdat"])
def test_who_does_not_fit_is_told_so_and_succeeds_later(loop: str, by: str) -> None:
    async def main() -> None:
        holding, go = asyncio.Event(), asyncio.Event()

        async def store() -> Reply:
            holding.set()
            await go.wait()
            return Reply(250, "2.0.0", "Ok: queued as 0123456789AB")

        budget = ByteBudget(3000)
        async with rig(intake=RecordingIntake(answer=store), memory=budget.incoming) as at:
            first, second = await at.connect(), await at.connect()
            await first.begin()
            first.writer.write(b"x" * 1000 + b"\r\n.\r\n")
            await holding.wait()
            held = budget.incoming.used
            content = b"y" * 1000 + b"\r\n"
            whole = b"DATA\r\n" + content + b"." if by == "data" else b"BDAT 1002 LAST\r\n" + content[:-2]
            await envelope(second)
            said = await second.do(whole)
            if by == "data":
                assert said.startswith("354")
                said = await second.reply()
            assert said.startswith("452 4.3.1 ")
            assert at.observer.reasons == ["memory"]
            assert budget.incoming.used == held
            go.set()
            assert (await first.reply()).startswith("250")
            for command in (b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>"):
                assert (await second.do(command)).startswith("250")
            said = await second.do(whole)
            assert (await second.reply() if by == "data" else said).startswith("250 2.0.0 Ok: queued")
            assert [content for _, content, _ in at.intake.taken][1] == content
            assert budget.incoming.used == 0
            first.writer.close()
            second.writer.close()

    run(loop, main())


@both_loops
def test_what_is_temporary_stays_so_for_the_chunks_that_follow(loop: str) -> None:
    async def main() -> None:
        async with rig(memory=ByteBudget(1000).incoming) as at:
            client = await at.connect()
            await envelope(client)
            client.writer.write(b"BDAT 900\r\n" + b"x" * 900 + b"BDAT 5\r\nQUIT\rBDAT 6 LAST\r\nQUIT\r\n")
            assert [(await client.reply())[:9] for _ in range(3)] == ["452 4.3.1"] * 3
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith("250")
            assert at.intake.taken == []
            client.writer.close()

    run(loop, main())


@both_loops
def test_the_octet_that_does_not_fit_may_be_the_last(loop: str) -> None:
    async def main() -> None:
        share = ByteBudget(20).incoming
        async with rig(memory=share) as at:
            client = await at.connect()
            await envelope(client)
            # A CR is held back until it is known what it is: it takes its room only at the end.
            assert (await client.do(b"BDAT 11 LAST\r\n0123456789\r" + b"NOOP")).startswith("452 4.3.1")
            assert (await client.reply()).startswith("250")
            assert at.intake.taken == []
            client.writer.close()

    run(loop, main())


@both_loops
def test_a_large_size_that_cannot_fit_now_is_refused_before_it_comes(loop: str) -> None:
    async def main() -> None:
        chosen = options(message_size=10**8)
        async with rig(chosen, memory=ByteBudget(10**7).incoming) as at:
            client = await at.connect()
            await client.reply()
            assert (await client.do(b"HELO client.example")).startswith("250")
            assert (await client.do(b"MAIL FROM:<a@example.com> SIZE=20000000")).startswith("452 4.3.1")
            assert (await client.do(b"MAIL FROM:<a@example.com> SIZE=2000000")).startswith("250")
            assert (await client.do(b"RCPT TO:<b@example.org>")).startswith("250")
            other = await at.connect()
            await envelope(other, b" SIZE=4000000")
            assert (await client.do(b"DATA")).startswith("354")
            assert (await other.do(b"DATA")).startswith("452 4.3.1")  # of two that may come, one
            assert at.observer.reasons == ["memory", "memory"]
            client.writer.close()
            other.writer.close()

    run(loop, main())
