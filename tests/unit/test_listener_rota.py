"""Whose turn it is: who goes ahead, who waits in line and for how long, and that nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loops import LOOPS
from sesrelay.listener.rota import AHEAD, ATTENTION, CROWDED, LATELY, MUCH, Place, Rota
from sesrelay.listener.session import SmtpSession
from transcripts.listener_rig import options, rig, run


class Speaker:
    """Notes in `said` when it is answered."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self.said = name, said
        self.place = Place()

    def proceed(self) -> None:
        self.said.append(self.name)


class Clients:
    """Nine that have brought much, and `one` that has brought nothing yet."""

    def __init__(self, size: int = MUCH // 4) -> None:
        self.rota, self.said = Rota(), list[str]()
        self.busy = [Speaker(f"busy {n}", self.said) for n in range(9)]
        self.one = Speaker("one", self.said)
        for _ in range(9):
            self.all_busy(size)
        self.said.clear()

    def all_busy(self, octets: int) -> None:
        for speaker in self.busy:
            self.rota.ask(speaker, octets)

    def are_joined_by(self, number: int) -> None:
        """Let so many new ones speak, and be answered."""
        for n in range(number):
            self.rota.ask(Speaker(f"new {n}", self.said), 30)
        assert self.heard() == [f"new {n}" for n in range(number)]

    def heard(self) -> list[str]:
        said, self.said[:] = list(self.said), []
        return said


async def until_quiet(clients: Clients) -> list[list[str]]:
    """Return who is answered in each turn of the loop, until there is a turn without an answer."""
    turns = []
    while True:
        await asyncio.sleep(0)
        if not clients.said:
            return turns
        turns.append(clients.heard())


async def test_clients_that_bring_alike_are_all_answered_as_they_come() -> None:
    clients = Clients()
    for _ in range(200):
        clients.all_busy(4096)
        assert len(clients.heard()) == 9


async def test_who_has_brought_little_is_answered_at_once_and_the_others_one_in_a_turn() -> None:
    clients = Clients()
    clients.rota.ask(clients.one, 30)
    clients.all_busy(4096)
    assert clients.heard() == ["one", "busy 0"]
    clients.rota.ask(clients.one, 30)
    assert clients.heard() == ["one"]
    turns = await until_quiet(clients)
    assert turns == [[f"busy {n}"] for n in range(1, 9)]
    clients.all_busy(4096)
    clients.all_busy(4096)  # who is in line has a place already
    assert [clients.heard(), *await until_quiet(clients)] == [[f"busy {n}"] for n in (0, *range(1, 9), 0)]


async def test_who_waited_for_something_waits_for_its_turn_too() -> None:
    clients = Clients()
    clients.rota.ask(clients.one, 30)
    clients.heard()
    for speaker in (*clients.busy, clients.one):
        clients.rota.ask(speaker, 0)
    assert clients.heard() == ["busy 0", "one"]
    assert len(await until_quiet(clients)) == 8


async def test_the_others_are_answered_as_they_come_again_once_nobody_has_gone_ahead_for_long() -> None:
    clients = Clients()
    clients.rota.ask(clients.one, 30)
    clients.heard()
    answered = 0
    while True:
        clients.all_busy(10)
        at_once = clients.heard()
        if len(at_once) == 9:
            break
        answered += len(at_once) + sum(map(len, await until_quiet(clients)))
    assert ATTENTION <= answered < ATTENTION + 9


async def test_who_goes_ahead_does_so_until_it_has_brought_half_as_much() -> None:
    clients = Clients()
    brought = clients.busy[-1].place.octets
    ahead = 0
    while not clients.one.place.in_line:
        clients.rota.ask(clients.busy[0], 0)  # so that one is answered already in this turn
        clients.rota.ask(clients.one, 1024)
        ahead += clients.heard().count("one")
        await until_quiet(clients)
        clients.rota.ask(clients.busy[0], 0)
        clients.rota.ask(clients.one, 0)
        clients.heard()
    assert brought // 2048 - 1 <= ahead <= brought // 2048 + 1
    assert await until_quiet(clients)


async def test_where_more_would_go_ahead_than_wait_all_are_answered_as_they_come() -> None:
    clients = Clients()
    clients.rota.ask(clients.one, 30)
    clients.all_busy(4096)  # one is answered, eight are in line
    clients.heard()
    clients.are_joined_by(AHEAD)  # all in one turn of the loop
    clients.all_busy(4096)
    assert len(clients.heard()) == 9
    assert await until_quiet(clients) == [[f"busy {n}"] for n in range(1, 9)]  # what was in line
    for _ in range((CROWDED - 9) // 10):
        clients.all_busy(4096)
        clients.rota.ask(Speaker("new", clients.said), 30)
        assert clients.heard()[-1] == "new"
        assert await until_quiet(clients) == []
    clients.all_busy(4096)
    clients.rota.ask(clients.one, 30)
    clients.all_busy(4096)
    assert len(clients.heard()) == 11, "one goes ahead again"
    assert len(await until_quiet(clients)) == 8
    clients.are_joined_by(AHEAD - 1)
    clients.all_busy(4096)
    assert len(clients.heard()) == 1, "as many as before may go ahead"
    assert len(await until_quiet(clients)) == 8


async def test_who_goes_ahead_now_and_then_may_do_so_without_an_end() -> None:
    clients = Clients()
    for _ in range(3 * AHEAD):
        clients.rota.ask(clients.one, 1)
        clients.rota.ask(clients.busy[0], 100)
        clients.rota.ask(clients.busy[1], 100)
        assert clients.heard() == ["one", "busy 0"]
        assert await until_quiet(clients) == [["busy 1"]]
    clients.are_joined_by(AHEAD)  # of what is not used no more than that is kept
    clients.all_busy(4096)
    assert len(clients.heard()) == 9


async def test_nobody_goes_ahead_of_who_has_brought_little_too() -> None:
    clients = Clients(size=MUCH // 9 - 1)
    clients.rota.ask(clients.one, 30)
    clients.all_busy(10)
    assert len(clients.heard()) == 10


async def test_what_was_brought_long_ago_counts_for_nothing() -> None:
    clients = Clients()
    bulk = Speaker("bulk", clients.said)
    clients.rota.ask(bulk, 8 * MUCH)
    for _ in range(40):  # each a halving
        clients.rota.ask(clients.busy[0], LATELY)
    clients.heard()
    clients.rota.ask(clients.busy[0], 0)
    clients.rota.ask(clients.busy[1], 0)
    clients.rota.ask(bulk, 0)
    assert clients.heard() == ["busy 0", "busy 1", "bulk"]
    assert bulk.place.octets == 0
    await until_quiet(clients)


async def test_what_all_have_brought_counts_half_at_the_same_time() -> None:
    """A measure, or a client, that was halved later than the others would let everybody go ahead who has brought a little less."""
    clients = Clients()
    for _ in range(3 * LATELY // (9 * 4096)):
        for n, speaker in enumerate(clients.busy):
            clients.rota.ask(speaker, 4096 - 100 * n)
        for speaker in clients.busy:
            clients.rota.ask(speaker, 0)
        assert len(clients.heard()) == 18  # nobody went ahead, or others would be in line


async def test_what_is_brought_after_a_halving_counts_whole() -> None:
    clients = Clients()
    one, *_ = clients.busy
    clients.rota.ask(one, LATELY)
    clients.rota.ask(one, 0)
    before = one.place.octets
    clients.rota.ask(one, 4096)
    clients.rota.ask(one, 4096)
    assert one.place.octets == before + 8192


async def test_the_measure_is_what_those_have_brought_who_are_answered_in_turn() -> None:
    clients = Clients()
    clients.rota.ask(clients.one, 30)
    clients.all_busy(MUCH)  # which more than halves what `one` has to have brought
    await until_quiet(clients)
    clients.rota.ask(clients.busy[0], 0)
    clients.rota.ask(clients.one, 9 * MUCH // 8)  # half of what they had brought before, and more
    assert clients.heard() == ["busy 0", "one"]
    await until_quiet(clients)


async def test_what_is_halved_while_somebody_is_in_line_is_halved_for_him_too() -> None:
    clients = Clients()
    first, second, third, *_ = clients.busy
    third.place.octets -= 100
    clients.rota.ask(clients.one, 30)
    clients.rota.ask(first, 0)
    clients.rota.ask(second, 0)  # in line
    clients.rota.ask(clients.one, LATELY)  # from now on it waits too
    clients.rota.ask(clients.one, 0)  # what all have brought is halved here
    clients.heard()
    await asyncio.sleep(0)
    clients.rota.ask(third, 0)
    assert clients.heard() == ["busy 1"]  # and not the third, as one that had brought little beside it
    await until_quiet(clients)


EVENTS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 100, 4096, MUCH, LATELY])) | st.none(), max_size=200)


@given(events=EVENTS)
def test_whoever_asks_is_answered_in_time_and_at_most_one_in_a_turn_is_answered_late(
    events: list[tuple[int, int] | None],
) -> None:
    async def main() -> None:
        rota, said = Rota(), list[str]()
        speakers = [Speaker(str(n), said) for n in range(6)]
        unanswered: dict[str, int] = {}  # by name: turns of the loop since it asked

        def note() -> list[str]:
            noted, said[:] = list(said), []
            for name in noted:
                unanswered.pop(name, None)
            return noted

        for event in events:
            if event is not None:
                who, octets = event
                unanswered.setdefault(str(who), 0)
                rota.ask(speakers[who], octets)
                assert note() in ([], [str(who)])
            else:
                await asyncio.sleep(0)
                assert len(note()) <= 1
                unanswered = {name: turns + 1 for name, turns in unanswered.items()}
                assert all(turns <= len(speakers) for turns in unanswered.values())
        for _ in speakers:
            await asyncio.sleep(0)
        note()
        assert not unanswered

    asyncio.run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_with_one_message_is_answered_ahead_of_those_with_many(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[SmtpSession] = []
    command = SmtpSession.command

    def noting(session: SmtpSession, line: bytearray) -> object:
        heard.append(session)
        return command(session, line)

    async def main() -> None:
        async with rig(options(message_size=10 * MUCH)) as at:
            clients = [await at.connect() for _ in range(10)]
            for client in clients:
                await client.begin()
            *busy, one = clients
            for client in busy:
                assert (await client.do(b"x" * 2 * MUCH + b"\r\n.")).startswith("250")
            assert (await one.do(b"Subject: x\r\n\r\nx\r\n.")).startswith("250")
            session = min(at.server.sessions, key=lambda session: session.place.octets)
            monkeypatch.setattr(SmtpSession, "command", noting)
            for client in (*busy, one):
                client.writer.write(b"NOOP\r\n")
            for client in clients:
                assert (await client.reply()).startswith("250")
            assert len(heard) == 10
            assert heard.index(session) <= 1
            for client in clients:
                client.writer.close()

    run(loop, main())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("begun", [b"", b"NO"], ids=["whole lines", "lines in pieces"])
def test_what_a_client_waits_in_line_is_not_its_own_time(loop: str, begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[Rota] = []
    next_turn = Rota._next_turn

    def no_turn(rota: Rota) -> None:
        turns.append(rota)

    async def main() -> None:
        async with rig(options(command_timeout=1.0, message_size=10 * MUCH)) as at, asyncio.timeout(10):
            client, busy, one = [await at.connect() for _ in range(3)]
            await client.begin()
            assert (await client.do(b"x" * 2 * MUCH + b"\r\n.")).startswith("250")
            session = max(at.server.sessions, key=lambda session: session.place.octets)
            await busy.begin()
            await one.begin()  # ahead of the others, which are answered in turn from now on
            client.writer.write(begun)
            while session.in_a_line != bool(begun):
                await asyncio.sleep(0.001)
            with monkeypatch.context() as patch:
                patch.setattr(Rota, "_next_turn", no_turn)
                busy.writer.write(b"x" * 2 * MUCH)
                while not turns:
                    await asyncio.sleep(0.001)
                client.writer.write(b"NOOP\r\n"[len(begun) :])
                await asyncio.sleep(1.2)
                assert session.place.in_line
            next_turn(turns.pop())
            assert (await client.reply()).startswith("250")
            assert session._watch._spent < 1.0
            for each in (client, busy, one):
                each.writer.close()

    run(loop, main())
