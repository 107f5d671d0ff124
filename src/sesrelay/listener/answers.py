"""What the wire asks of the session that it carries."""

from __future__ import annotations

import asyncio

from sesrelay.listener.lines import Fault
from sesrelay.mail.reply import Reply


class Answers:
    """Half of a session: `wire.Wire` calls these, `session.SmtpSession` answers."""

    def admit(self, transport: asyncio.BaseTransport) -> Reply | None:
        """Return the refusal of the whole connection, or None."""
        raise NotImplementedError

    @property
    def awaits_tls(self) -> bool:
        """Tell whether TLS is to begin before anything is said."""
        return False

    async def begin(self) -> bool:
        """Do what comes before the banner; False: it came to nothing, and so does the session."""
        return True

    def banner(self) -> bytes:
        raise NotImplementedError

    async def command(self, line: bytearray) -> None:
        """Answer one command line, given without its end."""
        raise NotImplementedError

    def malformed(self, fault: Fault) -> None:
        """Answer a line that is none."""
        raise NotImplementedError

    def after_command(self) -> None:
        """Take note that a command is done."""

    def timed_out(self) -> None:
        """Take note that a deadline has passed."""

    def failed(self, error: BaseException) -> None:
        """Take note of a fault of ours that ended the session."""

    def ended(self) -> None:
        """Take note that an admitted connection is closed and its handler done."""
