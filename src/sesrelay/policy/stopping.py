"""What becomes of an attempt that is cut at the end of the process before the message has left as a whole.

Invariant: it is in no doubt: it goes again at once after the next start, by whatever way, and no attempt was spent.
"""

from __future__ import annotations

from sesrelay.mail.outcome import Deferred, PauseReason, Scope
from sesrelay.mail.reply import Reply

CUT = Deferred(
    Reply(451, "4.3.2", "The relay was stopped before the message was sent"),
    Scope.NEXTHOP,
    PauseReason.UNAVAILABLE,
    retry_after=0.0,  # nothing was tried: it says nothing of the next hop either, and pauses nothing
)
