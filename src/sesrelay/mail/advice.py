"""What a sender can do about an answer, in words for a person who has never heard of status codes.

Invariant: every answer has an advice; the more general one stands in where the exact status is not known.

Source: RFC 3463 §3 (what the digits mean), RFC 7505 (null MX), RFC 7372 and RFC 7504 (authentication, hosts without mail).
"""

from __future__ import annotations

import re

_REPLY = re.compile(r"(\d{3})(?: ([245])\.(\d{1,3}\.\d{1,3}))?")

EXPIRED = (
    "Check the part of the address after the @ for typing errors. If it is correct, tell the recipient, for example by telephone, "
    "and send the message again later: the receiving mail system could not be reached, or did not accept the message, before the "
    "time limit for delivery."
)
_NO_MAILBOX = (
    "Check the address for typing errors: the receiving mail system says that this mailbox does not exist. If the address is "
    "written correctly, ask the recipient, for example by telephone, for the current address."
)
_NO_DOMAIN = "Check the part of the address after the @ for typing errors: this domain does not accept mail."
_OLD_ADDRESS = (
    "Ask the recipient, for example by telephone, for the new address: the receiving mail system says that this one is no longer "
    "in use."
)
_SENDER = (
    "Forward this message to the mail administrator of your domain: the receiving mail system does not accept your own address as "
    "the sender."
)
_FULL = "Ask the recipient, for example by telephone, to delete mail from the full mailbox, and then send the message again."
_LARGE = (
    "Send a smaller message, or a link to the file instead of the file itself: the message is larger than the receiving mail "
    "system accepts."
)
_LOOP = "Forward this message to your mail administrator: mail for this address is sent in a loop between mail systems."
_LETTERS = (
    "Use another address of the recipient: the receiving mail system does not accept addresses with letters such as ä, é or 日."
)
_CONTENT = (
    "Send the message again as plain text, or without its attachments: the receiving mail system does not accept it in this form."
)
_REFUSED = (
    "Ask the recipient, for example by telephone, to allow mail from your address: the receiving mail system refused the message "
    "by one of its own rules, often a spam filter."
)
_UNPROVEN = (
    "Forward this message to the administrator of your domain: the receiving mail system cannot verify that the message comes "
    "from your domain (SPF, DKIM, DMARC)."
)
_GENERAL = (
    "Ask the recipient, for example by telephone, whether the address is correct and accepts mail from you. If so, forward this "
    "message to your mail administrator: the answer of the receiving mail system is shown below."
)

_BY_STATUS = {
    "1.1": _NO_MAILBOX,
    "1.2": _NO_DOMAIN,
    "1.3": "Check the address for typing errors: it is not a valid mail address.",
    "1.6": _OLD_ADDRESS,
    "1.7": _SENDER,
    "1.8": _SENDER,
    "1.10": _NO_DOMAIN,
    "2.1": _OLD_ADDRESS,
    "2.2": _FULL,
    "2.3": _LARGE,
    "3.4": _LARGE,
    "4.4": _NO_DOMAIN,
    "4.6": _LOOP,
    "4.7": EXPIRED,
    "6.7": _LETTERS,
    **{f"7.{detail}": _UNPROVEN for detail in (*range(20, 30), 509, 515)},
}
_BY_SUBJECT = {"1": _NO_MAILBOX, "6": _CONTENT, "7": _REFUSED}
_BY_CODE = {"550": _NO_MAILBOX, "551": _OLD_ADDRESS, "552": _LARGE, "553": _NO_MAILBOX}


def advice(reply: str) -> str:
    """Return what a sender can do about a failure; `reply` is the last answer, as `mail.reply.Reply` prints it."""
    found = _REPLY.match(reply)
    if found is None:
        return _GENERAL
    code, digit, status = found.groups()
    if code.startswith("4"):
        return EXPIRED  # it was put off until its time was over
    if digit is None:
        return _BY_CODE.get(code, _GENERAL)
    subject = status.partition(".")[0]
    return _BY_STATUS.get(status) or _BY_SUBJECT.get(subject, _GENERAL)
