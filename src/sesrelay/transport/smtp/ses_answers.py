"""What the SMTP endpoint of Amazon SES means by its texts, where they say more than the reply code.

Invariant: nothing that is wrong with the account, its quota or the sender's identity fails a message.
Invariant: an address, a domain or a value of the header that SES repeats does not choose what its answer means.

Source: "Amazon SES SMTP response codes" in its developer guide; the texts are matched case aside, by their fixed part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sesrelay.mail import headers
from sesrelay.mail.address import domain_of
from sesrelay.mail.delivery import Batch, Delivery
from sesrelay.mail.filed import Large, opening
from sesrelay.mail.outcome import Deferred, Failed, Outcome, PauseReason, Scope, Trail
from sesrelay.policy.ses_words import (
    ADDRESS_TEXT,
    HEADER_TEXT,
    UNWANTED_TEXT,
    denies_an_identity,
    not_verified,
    own_words,
    region_named,
    repeated_fields,
)
from sesrelay.transport.client.answers import Answer, Stage

_FORM = re.compile(r"\Atransaction failed|illegal address|invalid (?:recipient|address|domain name)", re.I)
OTHERS_GO = "tried again without the recipients that are not verified"


def about_an_address(outcome: Failed) -> bool:
    """Tell whether SES refused a message because of some address: a recipient's, or one in the header."""
    text, words = outcome.reply.text, own_words(outcome.reply.text)
    if outcome.scope is not Scope.MESSAGE or HEADER_TEXT.search(words):
        return False
    return bool(UNWANTED_TEXT.search(words) or (_FORM.search(text) and ADDRESS_TEXT.search(words)))


def of_form(outcome: Failed) -> bool:
    """Tell whether an address was refused for how it is written, and not because SES sends nothing to it."""
    return not UNWANTED_TEXT.search(own_words(outcome.reply.text))


def rejected(outcomes: Iterable[Outcome]) -> bool:
    """Tell whether SES refused a message for what it is, as a virus in it."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed) and outcome.scope is Scope.MESSAGE]
    return any("message rejected" in outcome.reply.text.lower() and not about_an_address(outcome) for outcome in failed)


def wants_others(outcome: Outcome) -> bool:
    """Tell whether a recipient was refused for the sake of others only, and may be tried again without them."""
    return isinstance(outcome, Deferred) and outcome.remedy == OTHERS_GO


def unverified_senders(outcomes: Iterable[Outcome]) -> frozenset[str]:
    """Return the addresses, in lower case, for which SES refused a message as a whole: senders in it that are not verified."""
    refused = (outcome for outcome in outcomes if isinstance(outcome, Deferred) and outcome.remedy != OTHERS_GO)
    texts = (outcome.reply.text for outcome in refused)
    return frozenset(address.lower() for text in texts if region_named(text) for address in not_verified(text))


def duplicate_headers(outcomes: Iterable[Outcome], content: Large) -> frozenset[str]:
    """Return the fields of the header of `content`, in lower case, for whose standing twice SES refused the message."""
    texts = {outcome.reply.text for outcome in outcomes if isinstance(outcome, Failed)}
    if not texts:
        return frozenset()
    head = headers.split(opening(content))[0]
    return frozenset(name for text in texts for name in repeated_fields(text, head))


def with_source(batch: Batch, source: str) -> Batch:
    """Return a batch with the envelope sender that SES is given."""
    message = batch.message
    if message.sender == source:
        return batch
    spoken = replace(message, envelope=replace(message.envelope, sender=source))
    return replace(batch, deliveries=tuple(replace(delivery, message=spoken) for delivery in batch.deliveries))


def from_ses(answer: Answer, delivery: Delivery, trail: Trail) -> Outcome | None:
    """Return what the text means for a delivery, or None where the code says it all."""
    if answer.lost or answer.ours or answer.reply.positive:
        return None
    reply, words = answer.reply, own_words(answer.reply.text).lower()
    if "not verified" in words and "mail from domain" not in words:
        return _unverified(answer, delivery, trail)
    means = _account_trouble(words) or _identity_trouble(words, answer.reply.text, delivery)
    if means is None and answer.stage is Stage.AUTH and answer.reply.code == 535:
        means = _Means(Scope.NEXTHOP, PauseReason.CREDENTIALS, NOT_SIGNED_UP if "not subscribed" in words else WRONG_LOGIN)
    if means is None:
        return None
    return Deferred(reply, means.scope, means.reason, means.remedy, means.after, trail=trail, tolerance=means.tolerance)


WRONG_LOGIN = (
    "SES does not take the login: username and password are SMTP credentials of this region (SES console, SMTP settings), not an access "
    "key and its secret; `sesrelay smtp-password --region REGION` makes the password of a secret key; then reload"
)
NOT_SIGNED_UP = (
    "the AWS account of this SMTP user is not signed up for SES: open the SES console of this region with it once; then reload"
)
SANDBOX = (
    "the account is in the SES sandbox and sends to verified addresses only: `sesrelay account request-production` "
    "(or SES console, Account dashboard)"
)


@dataclass(frozen=True, slots=True)
class _Means:
    """Units: `after` seconds. `tolerance`: so many in a row before it pauses; see `Deferred`."""

    scope: Scope
    reason: PauseReason
    remedy: str
    after: float | None = None
    tolerance: int = 1


def _account_trouble(words: str) -> _Means | None:
    if re.search(r"daily (?:message |sending )?quota", words):
        return _Means(
            Scope.NEXTHOP, PauseReason.QUOTA,
            "the account's 24-hour quota is used up; mail goes on as it frees; ask for a higher one (SES console, Account dashboard)", 60.0,
        )  # fmt: skip
    if "maximum sending rate exceeded" in words or "throttling" in words:
        remedy = "nothing to do: the pace was lowered; if it stays, ask for a higher rate, or lower `rate` where other hosts use the account"
        return _Means(Scope.NEXTHOP, PauseReason.THROTTLED, remedy, tolerance=3)
    if re.search(r"temporary (?:service|authentication) failure|internal failure|service unavailable", words):
        remedy = "SES has a fault of its own; it is tried again. See https://health.aws.amazon.com/health/status."
        return _Means(Scope.NEXTHOP, PauseReason.UNAVAILABLE, remedy, tolerance=5)
    tenant = re.search(r"\btenant\b", words) is not None
    paused = re.search(r"\b(?:paused|suspended|disabled|shut ?down)\b", words) is not None
    if paused and (tenant or re.search(r"sending|account|configuration set", words)):
        if "configuration set" in words:
            remedy = "sending is paused for the configuration set: resume it in SES"
            return _Means(Scope.TRANSPORT, PauseReason.SUSPENDED, remedy, 300.0)
        if tenant:
            remedy = "sending is paused for the tenant: read the SES console (Tenants), and resume it there or name another"
            return _Means(Scope.TRANSPORT, PauseReason.SUSPENDED, remedy, 300.0)
        remedy = "AWS or you have paused sending for the account: read the SES console and the account's mailbox"
        return _Means(Scope.NEXTHOP, PauseReason.SUSPENDED, remedy, 300.0)
    if tenant or re.search(r"configuration set\b.*\bdoes not exist|does not exist.*configuration set", words):
        remedy = "create the configuration set or tenant in this region, or name another"
        return _Means(Scope.TRANSPORT, PauseReason.CONFIGURATION, remedy)
    return None


def _identity_trouble(words: str, text: str, delivery: Delivery) -> _Means | None:
    if "not authorized to perform" in words or "access denied" in words:
        scope = Scope.SENDER_DOMAIN if denies_an_identity(text) else Scope.NEXTHOP
        return _Means(
            scope,
            PauseReason.CREDENTIALS,
            "allow ses:SendRawEmail to the IAM user of these SMTP credentials (`sesrelay iam-policy` prints the policy)",
        )
    if "mail from domain" in words and "not verified" in words:
        domain = domain_of(delivery.message.sender) or "the sender's domain"
        remedy = f"the custom MAIL FROM domain of {domain} is not verified: see to its MX and SPF records (SES console, Identities)"
        return _Means(Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, remedy)
    return None


def _unverified(answer: Answer, delivery: Delivery, trail: Trail) -> Outcome:
    message = delivery.message
    region = region_named(answer.reply.text)
    named = frozenset(address.lower() for address in not_verified(answer.reply.text)) if region else frozenset[str]()
    senders = {address.lower() for address in (message.sender, *message.header_from) if address}
    recipients = {recipient.address.lower() for recipient in message.envelope.recipients}
    if named and named <= recipients - senders:  # the sandbox delivers to verified recipients only
        if delivery.recipient.address.lower() in named:
            return Failed(answer.reply, Scope.RECIPIENT, SANDBOX, trail)
        return Deferred(answer.reply, Scope.MESSAGE, remedy=OTHERS_GO, trail=trail)
    own = domain_of(message.sender) or domain_of(next(iter(message.header_from), "")) or "the sender's domain"
    theirs = sorted({domain_of(address) for address in named - recipients | named & senders})
    # A header From or Sender of somebody else's domain is this message's fault, not its envelope sender's.
    foreign = bool(theirs) and own not in theirs
    domain = theirs[0] if foreign else own
    where = f" --region {region}" if region else ""
    remedy = (
        f"{domain} is not a verified identity of this account: `sesrelay domain add {domain}{where}` (or SES console, Identities), "
        "publish the DKIM records it shows, and its mail goes out"
    )
    if foreign:
        return Deferred(answer.reply, Scope.MESSAGE, remedy=remedy, trail=trail)
    return Deferred(answer.reply, Scope.SENDER_DOMAIN, PauseReason.CONFIGURATION, remedy, trail=trail)
