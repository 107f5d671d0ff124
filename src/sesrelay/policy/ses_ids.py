"""The ids that SES gives to messages.

Source: SES developer guide, "Header fields in Amazon SES": it puts a Message-ID of its own, its id at REGION.amazonses.com.
"""

from __future__ import annotations

import re

_MESSAGE_ID = re.compile(r"([0-9a-z-]+)@(?:[a-z0-9-]+\.)?amazonses\.com\Z", re.I)


def meant(any_id: str) -> tuple[str, ...]:
    """Return the remote ids that an id may stand for: itself, and SES's where it is a Message-ID of SES's.

    `any_id` has no angle brackets.
    """
    found = _MESSAGE_ID.match(any_id)
    return (any_id, found[1]) if found else (any_id,)
