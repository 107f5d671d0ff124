"""AUTH: the two mechanisms, when they may be used, wrong passwords and what they cost, on both event loops."""

from __future__ import annotations

import asyncio
import base64
import threading
from itertools import pairwise

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import HashingError, VerificationError

from guarded import CHEAP, PASSWORD, USERS, Authority, Counting, ehlo, guarded, plain, secured
from sesrelay.listener.login import Exchange, Malformed, decoded, login
from sesrelay.listener.login import plain as plain_mechanism
from sesrelay.listener.options import DoorOptions
from sesrelay.listener.passwords import ASLEEP_MAX, PATIENCE, WORKERS, Credentials, TooMany, Users, Verifier, make_hash, verify_hash
from sesrelay.listener.throttle import BASE, COUNTED, FORGET, LONGEST, TRUST_LOST, Throttle
from transcripts.listener_rig import LOOPS, Client, options, rig, run

both_loops = pytest.mark.parametrize("loop", LOOPS)
WELCOME = "235 2.7.0 Authentication successful"
WRONG = "535 5.7.8 Authentication credentials invalid"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("auth"))


def door(authority: Authority, auth: str = "required", tls: str = "starttls") -> DoorOptions:
    return DoorOptions(tls, auth, authority.server())  # type: ignore[arg-type]


def word(text: str) -> bytes:
    return base64.b64encode(text.encode())


async def log_in(client: Client, *said: bytes) -> list[str]:
    """Say these lines, one after each reply."""
    return [await client.do(line) for line in said]


GOOD = plain("blog", PASSWORD)
GOOD_DIALOGUES = {
    "plain, at once": [(b"AUTH PLAIN " + GOOD, WELCOME)],
    "plain, asked": [(b"AUTH PLAIN", "334 "), (GOOD, WELCOME)],
    "plain, for himself": [(b"AUTH PLAIN " + plain("blog", PASSWORD, "blog"), WELCOME)],
    "plain, in any case": [(b"auth plain " + GOOD, WELCOME)],
    "login": [(b"AUTH LOGIN", "334 VXNlcm5hbWU6"), (word("blog"), "334 UGFzc3dvcmQ6"), (word(PASSWORD), WELCOME)],
    "login, name at once": [(b"AUTH LOGIN " + word("blog"), "334 UGFzc3dvcmQ6"), (word(PASSWORD), WELCOME)],
    "login, a name with @": [(b"AUTH LOGIN " + word("shop@example.com"), "334 UGFzc3dvcmQ6"), (word("other"), WELCOME)],
}
BAD_DIALOGUES = {
    "wrong password": [(b"AUTH PLAIN " + plain("blog", "other"), WRONG)],
    "no password": [(b"AUTH PLAIN " + plain("blog", ""), WRONG)],
    "unknown user": [(b"AUTH PLAIN " + plain("nobody", PASSWORD), WRONG)],
    "nobody": [(b"AUTH PLAIN " + plain("", ""), WRONG)],
    "for another": [(b"AUTH PLAIN " + plain("blog", PASSWORD, "shop@example.com"), WRONG)],
    "login, unknown user": [(b"AUTH LOGIN", "334 *"), (word("nobody"), "334 UGFzc3dvcmQ6"), (word("x"), WRONG)],
    "login, no name": [(b"AUTH LOGIN =", "334 UGFzc3dvcmQ6"), (word("x"), WRONG)],
    "plain, empty": [(b"AUTH PLAIN =", "501 5.5.2 *")],
    "plain, empty when asked": [(b"AUTH PLAIN", "334 "), (b"", "501 5.5.2 *")],
    "plain, one field": [(b"AUTH PLAIN " + word("blog"), "501 5.5.2 *")],
    "plain, four fields": [(b"AUTH PLAIN " + word("\0blog\0x\0"), "501 5.5.2 *")],
    "no base64": [(b"AUTH PLAIN !!!!", "501 5.5.2 *")],
    "half of base64": [(b"AUTH PLAIN", "334 "), (GOOD[:-1], "501 5.5.2 *")],
    "no UTF-8": [(b"AUTH PLAIN " + base64.b64encode(b"\0\xff\0x"), "501 5.5.2 *")],
    "two responses": [(b"AUTH PLAIN " + GOOD + b" " + GOOD, "501 5.5.2 *")],
    "cancelled": [(b"AUTH PLAIN", "334 "), (b"*", "501 5.7.0 *")],
    "cancelled later": [(b"AUTH LOGIN", "334 *"), (word("blog"), "334 *"), (b"*", "501 5.7.0 *")],
    "unknown mechanism": [(b"AUTH CRAM-MD5", "504 5.5.4 *")],
    "no mechanism": [(b"AUTH", "501 5.5.4 *")],
    "too long": [(b"AUTH PLAIN", "334 "), (b"A" * 5000, "500 5.5.2 *")],
}


async def hold_to(client: Client, dialogue: list[tuple[bytes, str]]) -> None:
    for said, wanted in dialogue:
        heard = await client.do(said)
        assert heard == wanted or (wanted.endswith("*") and heard.startswith(wanted[:-1])), (said, heard)


@both_loops
@pytest.mark.parametrize("name", GOOD_DIALOGUES)
def test_who_logs_in_is_known_by_name(name: str, loop: str, authority: Authority) -> None:
    dialogue = GOOD_DIALOGUES[name]

    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await secured(at, authority.client())
            await hold_to(client, dialogue)
            user = "shop@example.com" if "@" in name else "blog"
            assert (await client.do(b"MAIL FROM:<a@refused.example>")).startswith("550")
            assert at.observer.refusals[-1][0].user == user, "at once: few greet a second time"
            assert (await client.do(b"AUTH PLAIN " + GOOD)) == "503 5.5.1 Already authenticated"
            assert (await client.do(b"RSET")).startswith("250")
            assert (await client.do(b"EHLO again.example")).startswith("250")
            assert (await client.do(b"MAIL FROM:<a@refused.example>")).startswith("550")
            origin = at.observer.refusals[-1][0]
            assert origin.user == user
            assert origin.helo == "again.example"
            assert origin.tls is not None
            client.writer.close()

    run(loop, main())


@both_loops
@pytest.mark.parametrize("name", BAD_DIALOGUES)
def test_who_does_not_is_not(name: str, loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await secured(at, authority.client())
            await hold_to(client, BAD_DIALOGUES[name])
            assert await client.do(b"MAIL FROM:<a@example.com>") == "530 5.7.0 Authentication required"
            # One mistake is forgiven.
            assert await client.do(b"AUTH PLAIN " + GOOD) == WELCOME
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith("250")
            client.writer.close()

    run(loop, main())


@both_loops
def test_before_tls(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await at.connect()
            await client.reply()
            assert not any(line.startswith("AUTH") for line in await ehlo(client))
            assert await client.do(b"AUTH PLAIN " + GOOD) == "538 5.7.11 Encryption required: issue STARTTLS first"
            assert await client.do(b"MAIL FROM:<a@example.com>") == "530 5.7.0 Must issue a STARTTLS command first"
            client.writer.close()
        async with guarded(door(authority, "optional")) as at:
            client = await at.connect()
            await client.reply()
            assert not any(line.startswith("AUTH") for line in await ehlo(client))
            assert (await client.do(b"AUTH PLAIN " + GOOD)).startswith("538 5.7.11 ")
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith("250")
            client.writer.close()

    run(loop, main())


@both_loops
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("auth", ["optional", "required"])
def test_under_tls(auth: str, tls: str, loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority, auth, tls)) as at:
            client = await secured(at, authority.client(), implicit=tls == "implicit", greet=False)
            assert (await client.do(b"AUTH PLAIN " + GOOD)) == "503 5.5.1 Send EHLO first"
            assert "AUTH PLAIN LOGIN" in await ehlo(client)
            assert (await client.do(b"HELP")).endswith(" QUIT AUTH")
            wanted = "250" if auth == "optional" else "530 5.7.0 Authentication required"
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith(wanted)
            if auth == "optional":
                assert (await client.do(b"AUTH PLAIN " + GOOD)) == "503 5.5.1 AUTH is not permitted during a transaction"
                await client.do(b"RSET")
            assert await client.do(b"AUTH PLAIN " + GOOD) == WELCOME
            client.writer.close()

    run(loop, main())


@both_loops
def test_any_takes_every_password_and_believes_none(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(DoorOptions(auth="any")) as at:
            for said in (b"AUTH PLAIN " + plain("blog", "x", "root"), b"AUTH PLAIN " + plain("", "")):
                client = await at.connect()
                await client.reply()
                assert "AUTH PLAIN LOGIN" in await ehlo(client)
                assert await client.do(said) == WELCOME
                assert (await client.do(said)).startswith("503")
                assert (await client.do(b"MAIL FROM:<a@refused.example>")).startswith("550")
                assert at.observer.refusals[-1][0].user is None
                client.writer.close()
            client = await at.connect()
            await client.reply()
            await client.do(b"EHLO client.example")
            assert (await client.do(b"MAIL FROM:<a@example.com>")).startswith("250")
            client.writer.close()

    run(loop, main())


@both_loops
def test_five_wrong_passwords_end_a_session(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await secured(at, authority.client())
            for number in range(5):
                assert await client.do(b"AUTH PLAIN " + plain("blog", f"guess {number}")) == WRONG
            assert await client.rest() == b"421 4.7.0 Too many failed logins: the connection is closed\r\n"
            client.writer.close()
            assert set(at.observer.reasons) == {"auth"}

    run(loop, main())


@both_loops
def test_a_response_that_drips_is_cut(loop: str) -> None:
    async def main() -> None:
        async with rig(options(auth="any", line_timeout=0.3)) as at:
            client = await at.connect()
            await client.reply()
            await client.do(b"EHLO client.example")
            assert (await client.do(b"AUTH LOGIN")).startswith("334")
            heard = asyncio.ensure_future(client.rest())
            while not heard.done():
                if not client.writer.is_closing():
                    client.writer.write(b"Y")
                await asyncio.wait({heard}, timeout=0.02)
            assert b"421 4.4.2" in await heard
            client.writer.close()

    run(loop, main())


@both_loops
def test_answers_cannot_be_pipelined_past_a_login(loop: str, authority: Authority) -> None:
    """What follows the exchange in the same segment is read as commands, each under what the login came to."""

    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await secured(at, authority.client())
            client.writer.write(b"AUTH LOGIN\r\n" + word("blog") + b"\r\n" + word("bad") + b"\r\nMAIL FROM:<a@example.com>\r\n")
            heard = [await client.reply() for _ in range(4)]
            assert heard[2:] == [WRONG, "530 5.7.0 Authentication required"]
            client.writer.close()

    run(loop, main())


# --- what a wrong password costs ---


@both_loops
def test_an_unknown_user_costs_what_a_wrong_password_costs(loop: str, authority: Authority) -> None:
    counting = Counting()
    verifier_of = Verifier(counting)

    async def main() -> None:
        for user in ("blog", "nobody", "", "shop@example.com", "x" * 300):
            assert not await verifier_of.fits(Credentials(user, "wrong"), user, USERS)
        assert counting.costs == ["$argon2id$v=19$m=8,t=1,p=1"] * 5

    run(loop, main())


def test_the_decoy_has_the_costs_of_a_configured_hash() -> None:
    dear = PasswordHasher(time_cost=2, memory_cost=16, parallelism=2).hash("p")
    users = Users({"dear": dear})
    decoy = users.to_verify("nobody")
    assert decoy is not None
    assert decoy.startswith("$argon2id$v=19$m=16,t=2,p=2$")
    assert len(decoy) == len(dear)
    assert not verify_hash(decoy, b"p")
    assert users.to_verify("dear") == dear


@pytest.mark.parametrize("kind", ["i", "d", "id"])
def test_every_kind_of_argon2_is_verified(kind: str) -> None:
    from argon2.low_level import Type, hash_secret

    types = {"i": Type.I, "d": Type.D, "id": Type.ID}
    encoded = hash_secret(b"p", b"saltsalt", time_cost=1, memory_cost=8, parallelism=1, hash_len=16, type=types[kind]).decode()
    assert encoded.startswith(f"$argon2{kind}$")
    assert verify_hash(encoded, b"p")
    assert not verify_hash(encoded, b"q")


def test_a_hash_of_our_making_is_argon2id_and_fits() -> None:
    assert make_hash("p").startswith("$argon2id$")
    assert verify_hash(make_hash("Öp"), "Öp".encode())


@pytest.mark.parametrize(
    ("chosen", "typed"),
    [
        ("p\u00f6\u00df", "po\u0308\u00df"),  # composed and decomposed
        ("po\u0308\u00df", "p\u00f6\u00df"),
        ("a b\u00e9", "a\u00a0b\u00e9"),  # the space bar with AltGr held
        ("p\u00e9\u00ad", "p\u00e9"),
        ("\uff50\uff11", "p1"),
    ],
)
def test_a_password_fits_however_its_characters_were_typed(chosen: str, typed: str) -> None:
    async def main() -> None:
        users = Users({"blog": make_hash(chosen), "shop": CHEAP.hash(chosen)})
        assert await Verifier().fits(Credentials("blog", typed), "192.0.2.1", users)
        assert await Verifier().fits(Credentials("shop", chosen), "192.0.2.1", users), "a hash that another program made"
        assert not await Verifier().fits(Credentials("blog", f"{typed}\u00e9"), "192.0.2.1", users)

    asyncio.run(main())


@both_loops
def test_a_flood_of_logins_verifies_two_at_a_time(loop: str) -> None:
    running, most, lock, gate = 0, 0, threading.Lock(), threading.Event()

    def slow(encoded: str, password: bytes) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(10)
        with lock:
            running -= 1
        return True

    async def main() -> None:
        verifier = Verifier(slow)
        tasks = [asyncio.create_task(verifier.fits(Credentials("blog", "x"), f"192.0.2.{n}", USERS)) for n in range(40)]
        ticks = 0
        while running < WORKERS:
            await asyncio.sleep(0)
        for _ in range(100):  # the loop goes on meanwhile
            await asyncio.sleep(0)
            ticks += 1
        gate.set()
        assert all(await asyncio.gather(*tasks))
        assert (most, ticks) == (WORKERS, 100)

    run(loop, main())


@both_loops
def test_a_client_that_drops_still_pays_for_its_guess(loop: str) -> None:
    gate = threading.Event()

    def slow(encoded: str, password: bytes) -> bool:
        gate.wait(10)
        return False

    async def main() -> None:
        throttle = Throttle()
        verifier = Verifier(slow, throttle)
        task = asyncio.create_task(verifier.fits(Credentials("blog", "x"), "192.0.2.1", USERS))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(10):
            while throttle.wait(throttle.keys("192.0.2.1", "elsewhere"), now()) <= 0:
                await asyncio.sleep(0.005)
        assert throttle.wait(throttle.keys("192.0.2.2", "blog"), now()) > 0

    run(loop, main())


@both_loops
def test_clients_that_ask_and_leave_do_not_fill_the_line_before_the_threads(loop: str) -> None:
    gate, asked = threading.Event(), []

    def slow(encoded: str, password: bytes) -> bool:
        asked.append(password)
        gate.wait(10)
        return False

    async def main() -> None:
        verifier = Verifier(slow)
        for number in range(50):
            task = asyncio.create_task(verifier.fits(Credentials(f"user{number}", "x"), "127.0.0.1", USERS))
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        gate.set()
        async with asyncio.timeout(10):
            while verifier._running:
                await asyncio.sleep(0.005)
        assert len(asked) == WORKERS
        assert not await verifier.fits(Credentials("blog", "x"), "127.0.0.1", USERS)

    run(loop, main())


@both_loops
def test_a_session_that_drops_while_its_password_is_verified_ends(loop: str, authority: Authority) -> None:
    gate, begun = threading.Event(), threading.Event()

    def slow(encoded: str, password: bytes) -> bool:
        begun.set()
        gate.wait(10)
        return True

    async def main() -> None:
        async with guarded(door(authority), verifier=Verifier(slow)) as at:
            client = await secured(at, authority.client())
            client.writer.write(b"AUTH PLAIN " + GOOD + b"\r\n")
            while not begun.is_set():
                await asyncio.sleep(0.005)
            client.writer.transport.abort()
            async with asyncio.timeout(10):
                while at.server.sessions:
                    await asyncio.sleep(0.005)
            gate.set()
            assert at.observer.troubles == []
            assert at.observer.open == 0

    run(loop, main())


@both_loops
@pytest.mark.parametrize("error", [VerificationError("Memory allocation error"), HashingError("threads")])
def test_a_fault_of_ours_is_temporary(loop: str, error: Exception, authority: Authority) -> None:
    def broken(encoded: str, password: bytes) -> bool:
        raise error

    async def main() -> None:
        async with guarded(door(authority), verifier=Verifier(broken)) as at:
            client = await secured(at, authority.client())
            assert (await client.do(b"AUTH PLAIN " + GOOD)).startswith("454 4.7.0 ")
            assert at.observer.troubles == [error]
            client.writer.close()

    run(loop, main())


# --- who waits, and for how long ---


def test_each_failure_doubles_the_wait_and_time_takes_it_back() -> None:
    throttle = Throttle()
    keys = throttle.keys("192.0.2.1", "blog")
    assert throttle.wait(keys, 0.0) == 0
    waits = []
    for _ in range(int(COUNTED) + 3):
        throttle.failed(keys, 0.0)
        waits.append(throttle.wait(keys, 0.0))
    assert waits[:4] == [BASE, 2 * BASE, 4 * BASE, 8 * BASE]
    assert waits[-1] == LONGEST
    assert all(before <= after for before, after in pairwise(waits))
    later = COUNTED * FORGET
    assert throttle.wait(keys, later) == 0
    throttle.failed(keys, later)
    assert throttle.wait(keys, later) == BASE


def test_others_do_not_wait() -> None:
    throttle = Throttle()
    for _ in range(8):
        throttle.failed(throttle.keys("192.0.2.1", "blog"), 0.0)
    assert throttle.wait(throttle.keys("192.0.2.2", "shop"), 0.0) == 0
    assert throttle.wait(throttle.keys("192.0.2.1", "shop"), 0.0) > 0
    assert throttle.wait(throttle.keys("192.0.2.2", "blog"), 0.0) > 0


def test_nobody_is_locked_out_by_others_failing_in_his_name_or_beside_him() -> None:
    throttle = Throttle()
    throttle.succeeded("192.0.2.7", "blog")
    for user in ("blog", "shop"):
        for client in ("192.0.2.1", "192.0.2.7"):
            if (client, user) != ("192.0.2.7", "blog"):
                for _ in range(8):
                    throttle.failed(throttle.keys(client, user), 0.0)
    assert throttle.wait(throttle.keys("192.0.2.7", "blog"), 0.0) == 0


def test_who_is_known_and_then_fails_waits_like_others_in_the_end() -> None:
    throttle = Throttle()
    throttle.succeeded("192.0.2.7", "blog")
    for _ in range(int(TRUST_LOST)):
        keys = throttle.keys("192.0.2.7", "blog")
        assert keys[0][0] == "pair"
        throttle.failed(keys, 0.0)
        assert throttle.wait(keys, 0.0) > 0
    assert [key[0] for key in throttle.keys("192.0.2.7", "blog")] == ["user", "client"]


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", ""])
def test_programs_of_this_machine_do_not_wait_for_each_other(client: str) -> None:
    throttle = Throttle()
    for _ in range(8):
        throttle.failed(throttle.keys(client, "shop"), 0.0)
    assert throttle.wait(throttle.keys(client, "shop"), 0.0) > 0
    assert throttle.wait(throttle.keys(client, "blog"), 0.0) == 0


def test_an_ipv6_client_is_its_network() -> None:
    throttle = Throttle()
    throttle.failed(throttle.keys("2001:db8::1", "a"), 0.0)
    assert throttle.wait(throttle.keys("2001:db8::ffff", "b"), 0.0) > 0
    assert throttle.wait(throttle.keys("2001:db8:0:1::1", "b"), 0.0) == 0
    assert throttle.keys("fe80::1%eth0", "b") == throttle.keys("fe80::2%eth1", "b")


def test_the_table_is_bounded() -> None:
    throttle = Throttle(size=100)
    for number in range(1000):
        throttle.failed(throttle.keys("192.0.2.1", f"user{number}"), 0.0)
        throttle.succeeded("192.0.2.1", f"user{number}")
    assert len(throttle._records) == len(throttle._trusted) == 100
    assert throttle.wait(throttle.keys("192.0.2.1", "new"), 0.0) > 0  # the one who does it is not what is forgotten


@both_loops
def test_a_login_waits_for_those_that_failed_before_it(loop: str) -> None:
    """Told by the loop's own clock: no login under a key begins before the wait that its failures bring is over."""
    began: list[tuple[float, str]] = []

    async def main() -> None:
        loop_time = asyncio.get_running_loop().time

        def verify(encoded: str, password: bytes) -> bool:
            began.append((loop_time(), password.decode()))
            return False

        verifier = Verifier(verify)
        tasks = [asyncio.create_task(verifier.fits(Credentials("blog", "guess"), "192.0.2.1", USERS)) for _ in range(3)]
        await asyncio.sleep(0.05)
        other = await verifier.fits(Credentials("shop@example.com", "other"), "192.0.2.2", USERS)
        assert not other
        await asyncio.gather(*tasks)

    run(loop, main())
    guesses = [at for at, word in began if word == "guess"]
    stranger = next(at for at, word in began if word == "other")
    # Two begin at once, before either has failed; the third waits for both.
    assert guesses[2] - guesses[1] >= 2 * BASE * 0.9
    assert stranger < guesses[2]


@both_loops
def test_a_wait_that_is_too_long_is_refused(loop: str, authority: Authority) -> None:
    class Endless(Throttle):
        def wait(self, keys: object, now: float) -> float:
            return PATIENCE + 1

    counting = Counting()

    async def main() -> None:
        async with guarded(door(authority), verifier=Verifier(counting, Endless())) as at:
            client = await secured(at, authority.client())
            assert (await client.do(b"AUTH PLAIN " + GOOD)).startswith("454 4.7.0 Too many failed logins")
            assert (await client.do(b"NOOP")).startswith("250")
            client.writer.close()
        assert counting.costs == []

    run(loop, main())


@both_loops
def test_few_wait_under_one_key(loop: str) -> None:
    class Long(Throttle):
        def wait(self, keys: object, now: float) -> float:
            return 10.0

    async def main() -> None:
        verifier = Verifier(Counting(), Long())
        tasks = [asyncio.create_task(verifier.fits(Credentials("blog", "x"), "192.0.2.1", USERS)) for _ in range(ASLEEP_MAX + 5)]
        await asyncio.sleep(0.05)
        refused = [task for task in tasks if task.done()]
        assert len(refused) == 5
        assert all(isinstance(task.exception(), TooMany) for task in refused)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not verifier._asleep

    run(loop, main())


# --- secrets ---


def test_no_password_in_any_repr() -> None:
    shown = repr(Credentials("blog", PASSWORD)) + repr(USERS) + repr(DoorOptions()) + repr(Users({"a": CHEAP.hash("x")}))
    assert PASSWORD not in shown
    assert "argon2" not in shown


@both_loops
def test_no_password_is_told_to_the_observer_or_the_client(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async with guarded(door(authority)) as at:
            client = await secured(at, authority.client())
            said = [GOOD, plain("blog", PASSWORD + "x"), plain(PASSWORD, "x"), GOOD[:-3], b"A" * 5000 + GOOD]
            heard = [await client.do(b"AUTH PLAIN " + one) for one in reversed(said)]
            client.writer.close()
        shown = repr(at.observer) + "".join(heard)
        assert not any(secret in shown for secret in (PASSWORD, GOOD.decode(), GOOD.decode()[:-4], PASSWORD.partition(" ")[0]))

    run(loop, main())


# --- the mechanisms alone ---


def finish(exchange: Exchange, *responses: bytes) -> Credentials:
    """Go through an exchange and return what it comes to."""
    try:
        next(exchange)
        for response in responses:
            exchange.send(response)
    except StopIteration as end:
        found: Credentials = end.value
        return found
    raise AssertionError("it wants more")


def test_mechanisms() -> None:
    assert finish(plain_mechanism(b"\0u\0p")) == Credentials("u", "p")
    assert finish(plain_mechanism(None), b"z\0u\0p") == Credentials("u", "p", "z")
    assert finish(login(None), b"u", b"p") == Credentials("u", "p")
    assert finish(login(b"u"), b"p") == Credentials("u", "p")
    for bad in (b"", b"u", b"\0u", b"\0u\0p\0", b"\xff\0u\0p"):
        with pytest.raises(Malformed):
            finish(plain_mechanism(bad))


@pytest.mark.parametrize("bad", ["A", "====", "AAAA AAAA", "é", "AA=A", "A\x00AA"])
def test_only_base64_is_decoded(bad: str) -> None:
    with pytest.raises(Malformed):
        decoded(bad)
