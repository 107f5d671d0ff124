"""Mail in: what the listener asks of the engine."""

from __future__ import annotations

from typing import Protocol

from sesrelay.mail.envelope import Envelope, Origin
from sesrelay.mail.filed import Large
from sesrelay.mail.reply import Reply
from sesrelay.policy.session_rules import NO_RULES, SessionRules


class Intake(Protocol):
    """Where the listener puts accepted mail."""

    def now(self) -> float:
        """Return the time by which mail is held back until its release. Units: Unix seconds."""

    def check_sender(self, envelope_sender: str, origin: Origin, rules: SessionRules = NO_RULES) -> Reply | None:
        """Return the refusal that is certain from the envelope sender alone (not his to use, a route that rejects), or None."""

    async def submit(
        self,
        envelope: Envelope,
        content: Large,
        origin: Origin,
        changes: tuple[str, ...] = (),
        rules: SessionRules = NO_RULES,
    ) -> Reply:
        """Store a message and answer for it.

        `content` has no Received line of ours yet; `changes` are the receipts of what made it canonical; `rules` say whether it
        may come in, and the configuration in force where it goes. A 250 (`Ok: queued as ID`) means that it is durable,
        anything else that nothing is stored. Raises nothing but CancelledError. Never cancel it.
        """
