"""The Received line that is put in front of a message.

Source: RFC 5321 §4.4; RFC 3848 (ESMTP, ESMTPS, ESMTPA); RFC 6531 §4.3 (UTF8SMTP).
"""

from __future__ import annotations

import re

from sesrelay.mail.dates import rfc5322
from sesrelay.mail.envelope import Envelope, Origin

_NO_NAME = re.compile(r"[^A-Za-z0-9.:_\[\]-]")  # a client may say anything in EHLO; a comment or a space would change the field


def line(envelope: Envelope, origin: Origin, *, hostname: str, queue_id: str, at: float) -> bytes:
    """Return the field with its CRLF. The recipient is named only where there is one: a list would tell of Bcc.

    Units: `at` Unix seconds.
    """
    protocol = "UTF8SMTP" if envelope.smtputf8 else "ESMTP"
    protocol += ("S" if origin.tls else "") + ("A" if origin.user else "")
    client = f"[{origin.client}]" if origin.client else "local"
    recipient = f"\r\n\tfor <{envelope.recipients[0].address}>" if len(envelope.recipients) == 1 else ""
    helo = _NO_NAME.sub("?", origin.helo) or "localhost"
    text = (
        f"Received: from {helo} ({client})\r\n\tby {hostname} (sesrelay) with {protocol} id {queue_id}"
        f"{recipient};\r\n\t{rfc5322(at)}\r\n"
    )
    return text.encode("utf-8", "replace")
