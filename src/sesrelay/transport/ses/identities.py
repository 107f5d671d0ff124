"""What the account has verified, kept at hand so that MAIL can be answered without asking anybody.

Invariant: nobody is refused by a list that could not be fetched, or that is older than GOOD_FOR.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sesrelay.mail.address import domain_of
from sesrelay.mail.reply import Reply
from sesrelay.policy.ses_meaning import about_asking
from sesrelay.policy.ses_senders import covered
from sesrelay.seams import Clock

REFRESH_EVERY = 120.0  # seconds
GOOD_FOR = 300.0  # seconds in which a list may refuse somebody
CANNOT_LIST = "the verified identities of the SES account cannot be listed, so no sender is refused or rewritten because of them"
_ALLOW = "allow ses:ListEmailIdentities, or ses:ListIdentities and ses:GetIdentityVerificationAttributes"
LOOK_AGAIN = 5.0  # seconds; a sender that the list lacks may have been verified just now


def list_remedy(error: Exception) -> str:
    """Return what to do where they cannot be listed."""
    return about_asking(str(error), _ALLOW)


class Identities:
    """The verified identities of one account in one region.

    `ask` fetches them; `trouble` is told once that it cannot. `before`: what was fetched last, and when, by the monotonic
    clock, so that nobody slips in after each reload.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[frozenset[str]]],
        clock: Clock,
        trouble: Callable[[Exception], None],
        before: tuple[frozenset[str], float] | None = None,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._trouble = trouble
        self._known: frozenset[str] | None
        self._known, self._known_at = before or (None, 0.0)
        self._said = False
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fetch the list now and from then on. Runs on: the loop."""
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="ses identities")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None

    def verified(self, address: str) -> bool | None:
        """Tell whether the account may send from `address`, None where that is not known. May be called from any thread."""
        known, age = self._known, self._clock.monotonic() - self._known_at
        if known is None or age > GOOD_FOR:
            return None
        return covered(address, known)

    def refusal(self, address: str, region: str) -> Reply | None:
        """Return the refusal of a sender that is certainly not verified. A list that is not brand-new is then fetched again."""
        if self.verified(address) is not False:
            return None
        if self._clock.monotonic() - self._known_at > LOOK_AGAIN:
            self._wanted.set()
        domain = domain_of(address) or address
        return Reply(
            550, "5.7.1",
            f"{domain} is not a verified identity of the SES account in {region}: verify it (`sesrelay domain add {domain}`, "
            "or SES console, Identities) and publish its DKIM records, or route it through another transport",
        )  # fmt: skip

    async def _keep(self) -> None:
        while True:
            self._wanted.clear()
            try:
                self._known, self._said = await self._ask(), False
            except Exception as error:
                self._known = None
                if not self._said:
                    self._said = True
                    self._trouble(error)
            self._known_at = self._clock.monotonic()
            try:
                async with asyncio.timeout(REFRESH_EVERY):
                    await self._wanted.wait()
            except TimeoutError:
                continue
