"""Passwords and their argon2 hashes, verified on threads of their own, a few at once.

Invariant: an unknown user costs what a wrong password does, with the costs of a configured user's hash.
Invariant: however many ask, no more than `WORKERS` verifications take memory (64 MiB each by argon2's defaults).
Invariant: neither a password nor a hash stands in any repr.

Source: RFC 9106 (argon2).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from sesrelay.listener.throttle import Key, Throttle
from sesrelay.mail.saslprep import prepared

WORKERS = 2
PATIENCE = 20.0  # seconds that a login may wait for those that failed before it; beyond, the client is to come back
ASLEEP_MAX = 8  # logins that wait under one key

Verify = Callable[[str, bytes], bool]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client gives. `on_behalf_of`: the identity to act as, empty for its own (RFC 4616: authzid)."""

    user: str
    password: str = field(repr=False)
    on_behalf_of: str = ""


class Users:
    """Those who may log in, with the hashes of their passwords."""

    __slots__ = ("_decoys", "_hashes")

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)
        self._decoys = tuple(_decoy(one) for one in hashes.values())

    def __repr__(self) -> str:
        return f"<{len(self._hashes)} users>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Users) and self._hashes == other._hashes

    def __hash__(self) -> int:
        return hash(frozenset(self._hashes))

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    def to_verify(self, name: str) -> str | None:
        """Return the hash to verify for `name`; for an unknown one, one that no password fits; None: nobody is known."""
        if name in self._hashes:
            return self._hashes[name]
        # hash() differs from process to process, so that nobody can tell from the time which costs a name would have.
        return self._decoys[hash(name) % len(self._decoys)] if self._decoys else None


NOBODY = Users({})


def make_hash(password: str) -> str:
    """Return an argon2id hash with the costs that argon2-cffi recommends."""
    return PasswordHasher().hash(prepared(password).encode())


def verify_hash(encoded: str, password: bytes) -> bool:
    """Tell whether the password fits. Raises: argon2.exceptions.Argon2Error, where that could not be found out"""
    try:
        return PasswordHasher().verify(encoded, password)
    except VerifyMismatchError:
        return False


def _decoy(encoded: str) -> str:
    """Return a hash with the same costs that no password fits."""
    costs, digest = encoded.rsplit("$", 1)
    return f"{costs}${'A' * len(digest)}"


class TooMany(Exception):
    """So much has failed from there, or in that name, that the wait would be too long."""


class Verifier:
    """Verifies on threads, at the pace that what failed before allows. Runs on: one event loop."""

    def __init__(self, verify: Verify = verify_hash, throttle: Throttle | None = None) -> None:
        self._verify = verify
        self._throttle = throttle or Throttle()
        self._asleep: Counter[Key] = Counter()
        self._slots = asyncio.Semaphore(WORKERS)
        self._pool: ThreadPoolExecutor | None = None  # made when it is first wanted: most relays know no passwords
        self._running: set[asyncio.Task[bool]] = set()

    async def fits(self, credentials: Credentials, client: str, users: Users) -> bool:
        """Tell whether user and password belong together, after the wait that is due.

        Raises: TooMany; argon2.exceptions.Argon2Error, where it could not be found out. Cancelled, a verification under
        way still counts, so that nothing is gained by leaving early.
        """
        now = asyncio.get_running_loop().time
        patience = now() + PATIENCE
        keys = self._throttle.keys(client, credentials.user)
        while True:
            wait = self._throttle.wait(keys, now())
            if wait > 0:
                await self._sleep(keys[-1], wait, patience - now())
                continue
            await self._slots.acquire()
            if self._throttle.wait(keys, now()) > 0:
                self._slots.release()
                continue  # others failed while this one waited for its turn
            task = asyncio.ensure_future(self._judge(credentials, client, users, keys))
            self._running.add(task)
            task.add_done_callback(self._judged)
            return await asyncio.shield(task)

    def _judged(self, task: asyncio.Task[bool]) -> None:
        # Not before: clients that ask and leave would fill the line before the threads.
        self._slots.release()
        self._running.discard(task)

    async def _sleep(self, key: Key, wait: float, patience: float) -> None:
        if wait > patience or self._asleep[key] >= ASLEEP_MAX:
            raise TooMany
        self._asleep[key] += 1
        try:
            await asyncio.sleep(wait)
        finally:
            self._asleep[key] -= 1
            if not self._asleep[key]:
                del self._asleep[key]

    async def _judge(self, credentials: Credentials, client: str, users: Users, keys: tuple[Key, ...]) -> bool:
        loop = asyncio.get_running_loop()
        encoded = users.to_verify(credentials.user)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="passwords")
        fits = (
            encoded is not None
            and await loop.run_in_executor(self._pool, self._verified, encoded, credentials.password)
            and credentials.user in users
            and credentials.on_behalf_of in ("", credentials.user)
        )
        if fits:
            self._throttle.succeeded(client, credentials.user)
        else:
            self._throttle.failed(keys, loop.time())
        return fits

    def _verified(self, encoded: str, password: str) -> bool:
        # As it is first: other programs make hashes of passwords as they were typed.
        return any(self._verify(encoded, form.encode()) for form in dict.fromkeys((password, prepared(password))))

    def close(self) -> None:
        """Begin no more verifications."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
