"""Mail made fit for SES without holding up the loop, whichever way to SES it takes."""

from __future__ import annotations

import asyncio

from sesrelay.mail.filed import Large
from sesrelay.mail.outcome import Failed
from sesrelay.policy.ses_shape import Facts, Rules, Shaped, shape

OFF_LOOP = 128 * 1024  # octets from which going through all of a message may take longer than a hop to a thread


async def shaped(stored: Large, rules: Rules, facts: Facts) -> Shaped | Failed:
    """Return the message as SES takes it."""
    return await asyncio.to_thread(shape, stored, rules, facts) if len(stored) > OFF_LOOP else shape(stored, rules, facts)
