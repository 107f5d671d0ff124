"""The stand-in for tests that have no loop of their own: in a thread, with a way to wait for what arrives."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from sesrelay.testing.ses import SesStandIn
from sesrelay.testing.ses_faults import Fault
from sesrelay.testing.ses_journal import Taken
from sesrelay.testing.ses_rules import Account

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # AWS's own examples


class SesServer:
    """SES on a free port of loopback, from `with` to its end. `options`: those of SesStandIn.

    Every method may be called from any thread.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("keys", {KEY: SECRET})
        self.ses = SesStandIn(**options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True, name="ses stand-in")
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._stop = asyncio.Event()

    def __enter__(self) -> SesServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Listen and return the URL. Raises: OSError where the port is taken"""
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed
        return self.url

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return self.ses.url

    @property
    def account(self) -> Account:
        return self.ses.account

    @property
    def taken(self) -> list[Taken]:
        """What was accepted, oldest first; a copy."""
        return list(self.ses.journal)

    def environment(self) -> dict[str, str]:
        """Return the variables by which boto3 and the AWS command line come here instead of to AWS."""
        key, secret = next(iter((self.ses.keys or {KEY: SECRET}).items()))
        return {
            "AWS_ENDPOINT_URL_SES": self.url,
            "AWS_ENDPOINT_URL_SESV2": self.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": self.account.region,
        }

    def fail(self, *faults: str | Fault) -> None:
        """Let the next sends go wrong, in this order; what can: `sesrelay.testing.ses_faults.FAULTS`."""
        self._do(lambda: self.ses.fail(*faults))

    def control(self, **wishes: Any) -> None:
        """Change behaviour as POST /control does: `rate=14`, `verified=["example.com"]`, `chances={"500": 0.1}`, `clear=True`, …

        Raises: ValueError, TypeError
        """
        self._do(lambda: self.ses.control(wishes))

    def wait_for(self, number: int, timeout: float = 10.0) -> list[Taken]:
        """Return the messages taken once there are at least so many. Raises: TimeoutError. Units: seconds."""
        until = time.monotonic() + timeout
        while len(self.ses.journal) < number:
            if time.monotonic() > until:
                raise TimeoutError(f"SES took {len(self.ses.journal)} messages and not {number} within {timeout:g} s")
            time.sleep(0.01)
        return self.taken

    def _do(self, change: Callable[[], object]) -> None:
        """Make a change in the loop, where nothing else looks meanwhile."""

        async def run() -> None:
            change()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        try:
            await self.ses.start()
        except BaseException as error:
            self._failed = error
            return
        finally:
            self._ready.set()
        await self._stop.wait()
        await self.ses.stop()
