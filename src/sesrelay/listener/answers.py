"""What the wire asks of the session that it carries."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeAlias

from sesrelay.listener.lines import Fault
from sesrelay.mail.reply import Reply

Work: TypeAlias = Coroutine[Any, Any, None]
"""What takes longer than the callback in which it begins; `steps.Steps` carries it on."""


class Answers:
    """Half of a session: `wire.Wire` calls these, `session.SmtpSession` answers."""

    def admit(self, transport: asyncio.BaseTransport) -> Reply | None:
        """Return the refusal of the whole connection, or None."""
        raise NotImplementedError

    @property
    def awaits_tls(self) -> bool:
        """Tell whether TLS is to begin before anything is said."""
        return False

    def begin(self) -> Work | None:
        """Greet the client; return what is to be done before, if anything is."""
        raise NotImplementedError

    def command(self, line: bytearray) -> Work | None:
        """Answer one command line, given without its end; return what that takes, where it cannot be done at once."""
        raise NotImplementedError

    def fault(self, error: BaseException) -> bytes:
        """Return the answer to a command that met a fault of ours."""
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
        """Take note that a connection that was let in is closed, and nothing is under way any more."""
