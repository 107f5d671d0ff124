"""What the SMTP endpoint of Amazon SES means by its texts, where they say more than the reply code.

Invariant: nothing that is wrong with the account, its quota or the sender's identity fails a message.

Source: "Amazon SES SMTP response codes" in its developer guide; the texts are matched case aside, by their fixed part.
"""

from __future__ import annotations

import re

from sesrelay.mail.address import domain_of
from sesrelay.mail.delivery import Delivery
from sesrelay.mail.outcome import Deferred, Failed, Outcome, PauseReason, Scope, Trail
from sesrelay.transport.smtp_answers import Answer

_HOST = re.compile(r"email-smtp[.-][a-z0-9.-]+\.amazonaws\.com(?:\.cn)?\.?\Z", re.I)
_FAILED_IDENTITIES = re.compile(r"failed the check in region [A-Za-z0-9-]+:\s*(.+)\Z")
_ADDRESS = re.compile(r"[^\s<>,;\"]+@[^\s<>,;\"]+")


def is_ses(host: str) -> bool:
    """Tell whether the name is that of an SES SMTP endpoint."""
    return bool(_HOST.match(host))


def from_ses(answer: Answer, delivery: Delivery, trail: Trail) -> Outcome | None:
    """Return what the text means for a delivery, or None where the code says it all."""
    if answer.lost or answer.ours or answer.reply.positive:
        return None
    reply, text = answer.reply, answer.reply.text.lower()

    def pause(scope: Scope, reason: PauseReason, remedy: str) -> Deferred:
        return Deferred(reply, scope, reason, remedy, trail=trail)

    if "daily message quota exceeded" in text:
        return pause(Scope.NEXTHOP, PauseReason.QUOTA, "the account's 24-hour quota is used up; it frees as the window moves on")
    if "maximum sending rate exceeded" in text or "throttling failure" in text:
        return pause(Scope.NEXTHOP, PauseReason.THROTTLED, "")
    if "paused" in text or "suspended" in text:
        if "configuration set" in text:
            return pause(Scope.TRANSPORT, PauseReason.SUSPENDED, "sending is paused for the configuration set: resume it in SES")
        return pause(Scope.NEXTHOP, PauseReason.SUSPENDED, "AWS has paused sending for the account: see the SES console")
    if "configuration set" in text and "does not exist" in text:
        return pause(Scope.TRANSPORT, PauseReason.CONFIGURATION, "create the configuration set in this region, or name another")
    if "not authorized to perform" in text or "access denied" in text:
        scope = Scope.SENDER_DOMAIN if ":identity/" in text else Scope.NEXTHOP
        return pause(scope, PauseReason.CREDENTIALS, "allow ses:SendRawEmail to the IAM user of these SMTP credentials")
    if "not verified" in text:
        return _unverified(answer, delivery, trail)
    return None


def _unverified(answer: Answer, delivery: Delivery, trail: Trail) -> Outcome:
    message = delivery.message
    found = _FAILED_IDENTITIES.search(answer.reply.text)
    named = {address.lower() for address in _ADDRESS.findall(found[1])} if found else set()
    senders = {address.lower() for address in (message.sender, *message.header_from) if address}
    recipients = {recipient.address.lower() for recipient in message.envelope.recipients}
    if named and named <= recipients - senders:  # the sandbox delivers to verified recipients only
        if delivery.recipient.address.lower() in named:
            return Failed(answer.reply, Scope.RECIPIENT, "the SES account is in the sandbox: request production access", trail)
        return Deferred(answer.reply, Scope.MESSAGE, remedy="tried again without the recipients that are not verified", trail=trail)
    domain = domain_of(message.sender) or domain_of(next(iter(message.header_from), "")) or "the sender's domain"
    remedy = f"verify {domain} (or {message.sender or 'the From address'}) as an identity in SES (console, Identities)"
    return Deferred(answer.reply, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, remedy, trail=trail)
