"""What the listener says: each reply that is not made from what the client said.

Invariant: a refusal has an enhanced status code; a fault of ours is 4xx.

Source: RFC 5321 §4.2; RFC 3463; RFC 5248.
"""

from __future__ import annotations

from sesrelay.mail.reply import Reply

_ONE_LINE = bytes(octet if 32 <= octet < 127 else 32 for octet in range(256))


def encode(reply: Reply) -> bytes:
    """Return `reply` as one line of ASCII (RFC 5321 §4.5.3.1.5: at most 512 octets)."""
    return str(reply).encode("ascii", "backslashreplace").translate(_ONE_LINE)[:510] + b"\r\n"


OK = b"250 2.0.0 Ok\r\n"
SENDER_OK = b"250 2.1.0 Ok\r\n"
RECIPIENT_OK = b"250 2.1.5 Ok\r\n"
GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
BYE = b"221 2.0.0 Bye\r\n"
CANNOT_VERIFY = b"252 2.0.0 Cannot verify, but will take mail and try\r\n"

# --- faults of ours, and limits ---
LOCAL_ERROR = Reply(451, "4.3.0", "Local error, try again later")
TIMED_OUT = Reply(421, "4.4.2", "Timeout: the connection is closed")
JUNK = Reply(421, "4.7.0", "Too many errors or idle commands: the connection is closed")
LEAVING = Reply(421, "4.3.2", "The relay is shutting down: try again later")
GONE = Reply(421, "4.4.2", "The client has already closed the connection")
TOO_MANY = Reply(421, "4.7.0", "Too many connections: try again later")
TOO_MANY_OF_YOURS = Reply(421, "4.7.0", "Too many connections from this client: try again later")
OWNERLESS = Reply(421, "4.7.0", "The client process has ended: a client must stay connected until it has read the replies")
OWNER_NOT_TOLD = Reply(421, "4.3.0", "The owner of this connection cannot be determined right now: try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients in one transaction")

# --- syntax ---
NOT_HTTP = Reply(421, "4.7.0", "This is SMTP, not HTTP: the connection is closed")
NO_COMMAND = Reply(421, "4.7.0", "This is a header field, not a command: the connection is closed")
BAD_OCTETS = Reply(501, "5.5.2", "The command contains control characters or invalid UTF-8")
LINE_TOO_LONG = Reply(500, "5.5.2", "Command line too long")
BARE_LF = Reply(500, "5.5.2", "A command line must end with CR LF")
UNKNOWN = Reply(500, "5.5.1", "Command not recognised")
NOT_OFFERED = Reply(502, "5.5.1", "Command not offered")
NO_ARGUMENT = Reply(501, "5.5.4", "The command has no arguments")
NEED_NAME = Reply(501, "5.5.4", "Syntax: EHLO hostname")
BDAT_SYNTAX = Reply(
    501, "5.5.4", "Syntax: BDAT octets [LAST]; content and commands can no longer be told apart: the connection is closed"
)
ORCPT_WANTS_UTF8 = Reply(501, "5.5.4", "A non-ASCII ORCPT requires the SMTPUTF8 parameter of MAIL")
NEED_ADDRESS = Reply(501, "5.5.4", "Syntax: VRFY address")

# --- sequence ---
NEED_HELO = Reply(503, "5.5.1", "Send EHLO first")
NEED_MAIL = Reply(503, "5.5.1", "Send MAIL first")
NESTED_MAIL = Reply(503, "5.5.1", "A transaction is already in progress")
RCPT_AFTER_BDAT = Reply(503, "5.5.1", "The content has begun: no more recipients are accepted")
DATA_AFTER_BDAT = Reply(503, "5.5.1", "The content was begun with BDAT: end it with BDAT LAST or RSET")
DISCARDED = Reply(503, "5.5.1", "Discarded because an earlier chunk was refused")
NEED_RCPT = Reply(554, "5.5.1", "No valid recipients")
