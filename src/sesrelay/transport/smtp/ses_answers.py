"""What the SMTP endpoint of Amazon SES means by its texts, where they say more than the reply code: as its API does, by one table.

A refusal that ends a delivery goes by its code, 4xx or 5xx, which the API does not have; and by SMTP there is a login.

Invariant: nothing that is wrong with the account, its quota or the sender's identity fails a message.
Invariant: an address, a domain or a value of the header that SES repeats does not choose what its answer means.

Source: "Amazon SES SMTP response codes" in its developer guide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sesrelay.mail import headers
from sesrelay.mail.address import comparable, domain_of
from sesrelay.mail.delivery import Batch, Delivery
from sesrelay.mail.filed import Large, opening
from sesrelay.mail.outcome import Deferred, Failed, Outcome, PauseReason, Scope, Trail
from sesrelay.mail.reply import Reply
from sesrelay.policy import ses_meaning
from sesrelay.policy.ses_hosts import region_of
from sesrelay.policy.ses_meaning import ENDS, Action, Meaning, by_smtp, meaning
from sesrelay.policy.ses_words import not_verified, region_named, repeated_fields
from sesrelay.transport.client.answers import Answer, Stage

OTHERS_GO = "tried again without the unverified recipients"


def about_an_address(outcome: Failed) -> bool:
    """Tell whether SES refused a message because of some address: a recipient's, or one in the header."""
    return outcome.scope is Scope.MESSAGE and _means(outcome).action is Action.SPLIT


def of_form(outcome: Failed) -> bool:
    """Tell whether an address was refused for how it is written, and not because SES sends nothing to it."""
    return _means(outcome) is not ses_meaning.UNWANTED


def rejected(outcomes: Iterable[Outcome]) -> bool:
    """Tell whether SES refused a message for what it is, as a virus in it."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed) and outcome.scope is Scope.MESSAGE]
    return any("message rejected" in one.reply.text.lower() and not about_an_address(one) for one in failed)


def _means(outcome: Outcome) -> Meaning:
    return meaning(by_smtp(outcome.reply.text), "smtp")


def wants_others(outcome: Outcome) -> bool:
    """Tell whether a recipient was refused for the sake of others only, and may be tried again without them."""
    return isinstance(outcome, Deferred) and outcome.remedy == OTHERS_GO


def unverified_senders(outcomes: Iterable[Outcome]) -> frozenset[str]:
    """Return the addresses, by `comparable`, for which SES refused a message as a whole: senders in it that are not verified."""
    waiting = (outcome for outcome in outcomes if isinstance(outcome, Deferred) and outcome.reply.permanent)
    refused = (outcome for outcome in waiting if outcome.remedy != OTHERS_GO)
    texts = (outcome.reply.text for outcome in refused)
    return frozenset(address for text in texts if region_named(text) for address in not_verified(text))


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


def from_ses(answer: Answer, delivery: Delivery, trail: Trail, host: str = "", login: str | None = None) -> Outcome | None:
    """Return what the text means for a delivery, or None where the code says it all. `host`, `login`: who said it to whom."""
    if answer.lost or answer.ours or answer.reply.positive:
        return None
    reply, refused = answer.reply, by_smtp(answer.reply.text)
    means = meaning(refused, "smtp")
    facts = {
        "region": region_named(refused.text) or region_of(host) or "REGION",
        "credential_id": login or "the login",
        "endpoint": host,
        "configuration_set": "NAME",
        "sender_domain": domain_of(delivery.message.sender) or "the sender's domain",
    }
    if means.action is Action.UNVERIFIED:
        # Without the region, what follows is a sentence of SES's and no list of addresses.
        named = not_verified(refused.text) if region_named(refused.text) else frozenset[str]()
        return _unverified(reply, named, delivery, trail, facts)
    if means.action in ENDS or means is ses_meaning.UNKNOWN:
        if answer.stage is not Stage.AUTH or reply.code != 535:
            return None
        means = NOT_SIGNED_UP if "not subscribed" in refused.text.lower() else WRONG_LOGIN
    elif means is ses_meaning.BAD_CREDENTIALS:
        means = DENIED
    elif means is ses_meaning.MISCONFIGURED:
        means = NOT_THERE
    return _deferred(reply, means, trail, facts)


WRONG_LOGIN = Meaning(
    Action.DEFER, Scope.NEXTHOP, "7.8", PauseReason.CREDENTIALS,
    "SES refuses the login: username and password must be SMTP credentials of this region (SES console, SMTP settings), not an "
    "access key and its secret; `sesrelay smtp-password --region REGION` derives the password from a secret key; then reload",
)  # fmt: skip
NOT_SIGNED_UP = replace(
    WRONG_LOGIN,
    remedy="the AWS account of this SMTP user is not signed up for SES: open the SES console of this region once with this "
    "account; then reload",
)
NOT_THERE = replace(ses_meaning.MISCONFIGURED, remedy="create the configuration set or tenant in this region, or set another")
DENIED = replace(
    WRONG_LOGIN,
    remedy="allow ses:SendRawEmail for the IAM user of these SMTP credentials (`sesrelay iam-policy` prints the policy)",
)


def _deferred(reply: Reply, means: Meaning, trail: Trail, facts: Mapping[str, str]) -> Deferred:
    remedy = ses_meaning.remedy(means, facts)
    return Deferred(reply, means.scope, means.reason, remedy, means.retry_after, trail=trail, tolerance=means.tolerance)


def _unverified(reply: Reply, named: frozenset[str], delivery: Delivery, trail: Trail, facts: Mapping[str, str]) -> Outcome:
    message = delivery.message
    senders = {comparable(address) for address in (message.sender, *message.header_from) if address}
    recipients = {comparable(recipient.address) for recipient in message.envelope.recipients}
    if named and named <= recipients - senders:  # the sandbox delivers to verified recipients only
        if not reply.permanent:
            return Deferred(reply, Scope.MESSAGE, remedy=ses_meaning.remedy(ses_meaning.SANDBOX, facts), trail=trail)
        if comparable(delivery.recipient.address) in named:
            return Failed(reply, Scope.RECIPIENT, ses_meaning.remedy(ses_meaning.SANDBOX, facts), trail)
        return Deferred(reply, Scope.MESSAGE, remedy=OTHERS_GO, trail=trail)
    own = domain_of(message.sender) or domain_of(next(iter(message.header_from), ""))
    theirs = sorted({domain_of(address) for address in named - recipients | named & senders})
    # A header From or Sender of somebody else's domain is this message's fault, not its envelope sender's.
    foreign = bool(theirs) and own not in theirs
    facts = {**facts, "sender_domain": theirs[0] if foreign else own or facts["sender_domain"]}
    waits = _deferred(reply, ses_meaning.UNVERIFIED, trail, facts)
    return replace(waits, scope=Scope.MESSAGE, reason=None) if foreign else waits
