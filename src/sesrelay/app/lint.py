"""What would become of a message on its way into SES, found without sending it or asking anybody.

Source: docs/ses.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sesrelay.app.ses_access import leads_to_ses
from sesrelay.config import transports as configured
from sesrelay.config.loading import Loaded
from sesrelay.config.model import Limits
from sesrelay.mail import headers
from sesrelay.mail.address import AddressError, domain_of
from sesrelay.mail.address import check as check_address
from sesrelay.mail.ascii_fields import ascii_address
from sesrelay.mail.authors import authors
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient
from sesrelay.mail.filed import opening
from sesrelay.mail.lineends import Canonical, canonical
from sesrelay.mail.outcome import Failed, Held
from sesrelay.mail.recoding import LEFT
from sesrelay.mail.reply import Reply
from sesrelay.policy import ses_addressing as addressing
from sesrelay.policy.admission import (
    FROM_TOO_LARGE,
    HEADER_MAX,
    HEADER_TOO_LARGE,
    HOPS_MAX,
    LOOP,
    TOO_LARGE,
    LocalMail,
    complete_recipient,
    complete_sender,
)
from sesrelay.policy.routing import REJECTED
from sesrelay.policy.ses_shape import Facts, Rules, shape, why
from sesrelay.transport.ses.call import most, too_large


@dataclass(frozen=True, slots=True)
class Change:
    change: str
    why: str


@dataclass(slots=True)
class Finding:
    """`problems`: why SES, or this relay before it, would not take the message, or not for a recipient. `notes`: what else
    to know. `content`: as SES would get it, None where it would not.
    """

    sender: str
    source: str | None = None
    recipients: list[str] = field(default_factory=list)
    route: str | None = None
    transport: str | None = None
    size: int = 0
    changes: list[Change] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    content: Canonical | None = None

    @property
    def verdict(self) -> str:
        changed = any(not each.change.startswith(LEFT) for each in self.changes)
        return "refused" if self.problems else "changed" if changed else "unchanged"


def lint(data: bytes, sender: str, recipients: Sequence[str], now: float, loaded: Loaded | None, transport: str | None) -> Finding:
    """Follow a message from acceptance to the call of SES. `loaded` None: as if everything went through SES.

    Raises: KeyError for a `transport` that the configuration does not have, or that is not SES.
    """
    local = loaded.local if loaded else LocalMail("localhost", "localhost")
    sender = complete_sender(sender, local)
    found = Finding(sender)
    # A file of Unix is sent with the line ends of mail; where they are mixed, the application did that.
    sent = data if b"\r\n" in data else data.replace(b"\n", b"\r\n")
    content, head, receipts = _arrived(sent, local, sender)
    facts = headers.facts(head)
    refusal = _refusal(sent, head, facts, loaded.config.limits if loaded else Limits())
    if refusal is not None:
        found.problems.append(str(refusal))
        return found
    if loaded:
        _speaker(found, (sender, *facts.header_from, *authors(head)), loaded)
    config = _transport(found, facts.header_from, loaded, transport)
    _note(found, receipts)
    api = config.api if isinstance(config, configured.SesTransport) else "auto"
    message = Message("lint", Envelope(sender, ()), Origin(), len(content), now, facts.header_from)
    source = addressing.source(message, loaded.stood_in_for if loaded else frozenset())
    _recipients(found, recipients, local)
    if isinstance(source, Failed | Held):
        found.problems.append(f"{source.reply} ({source.remedy})")
        return found
    found.source = source
    rules = Rules(rewrite_from=config.rewrite_from if config else None)
    if isinstance(config, configured.SesTransport):
        rules = Rules(frozenset(map(str.lower, config.trusted_headers)), config.thread_ids, config.rewrite_from)
    made = shape(content, rules, Facts(source, now))
    if isinstance(made, Failed):
        found.problems.append(f"{made.reply} ({made.remedy})")
        return found
    _note(found, made.changes)
    found.source, found.size, found.content = made.source, len(made.content), Canonical(opening(made.content))
    if found.size > most(api):
        found.problems.append(str(too_large(api, found.size).reply))
    _identities(found, facts.header_from, config)
    return found


def _refusal(sent: bytes, head: bytes, facts: headers.Facts, limits: Limits) -> Reply | None:
    """Return what acceptance says to a message for its size or its way here, or None."""
    if len(sent) + (0 if sent.endswith(b"\r\n") else 2) > limits.message_size:
        return TOO_LARGE
    if len(head) > HEADER_MAX:
        return HEADER_TOO_LARGE
    if facts.endless_from:
        return FROM_TOO_LARGE
    return LOOP if facts.received > HOPS_MAX else None


def _speaker(found: Finding, senders: Sequence[str], loaded: Loaded) -> None:
    kept = loaded.senders.kept(senders)
    if kept:
        found.notes.append(f"only the users that access names may send as {', '.join(kept)}; lint does not know who will")


def _arrived(sent: bytes, local: LocalMail, sender: str) -> tuple[Canonical, bytes, tuple[str, ...]]:
    """Return a message as acceptance stores it, but for the Received line."""
    content, changes = canonical(sent)
    content, removed = headers.without_envelope_line(content)
    end = headers.head_length(content)
    head = content[:end]
    facts = headers.facts(head)
    completed: tuple[str, ...] = ()
    if facts.unqualified or not facts.header_from:
        head, completed = headers.completed(head, local.domain, sender)
    head, private = headers.without_private(head)
    return headers.with_head(content, end, head), head, changes + removed + completed + private


def _transport(
    found: Finding, authors: tuple[str, ...], loaded: Loaded | None, wanted: str | None
) -> configured.SesTransport | configured.SmtpTransport | None:
    """Find the transport to SES that the message would take: the one `wanted`, or the route's first; None where there is none."""
    if loaded is None:
        if wanted is not None:
            raise KeyError(wanted)
        found.notes.append("no configuration was read: a transport of type ses with default settings is assumed")
        return None
    rule = loaded.routing.route(found.sender, authors)
    found.route = rule.name
    names = [name for name in rule.transports if leads_to_ses(loaded.config.transports[name])]
    if rule.reject:
        found.problems.append(str(REJECTED))
    elif not names and wanted is None:
        found.notes.append(f"its route goes through {', then '.join(rule.transports)}, not SES; this is what SES would do with it")
    name = wanted or (names[0] if names else None)
    if name is None:
        return None
    config = loaded.config.transports[name]
    if not leads_to_ses(config):
        raise KeyError(name)
    found.transport = name
    return config if isinstance(config, configured.SesTransport | configured.SmtpTransport) else None


def _recipients(found: Finding, recipients: Sequence[str], local: LocalMail) -> None:
    for given in recipients:
        completed = complete_recipient(Recipient(given), local)
        if not isinstance(completed, Recipient):
            found.problems.append(f"{given}: {completed}")
            continue
        if completed.hold:
            found.problems.append(f"{given}: held for the operator: local.aliases has no alias for it")
            continue
        try:
            address = ascii_address(check_address(completed.address))
        except AddressError as error:
            found.problems.append(f"{given}: 553 5.1.3 Malformed address: {error}")
            continue
        if address is None:
            found.problems.append(f"{given}: {addressing.NOT_ASCII.reply} ({addressing.NOT_ASCII.remedy})")
        else:
            found.recipients.append(address)


def _identities(
    found: Finding, authors: tuple[str, ...], config: configured.SesTransport | configured.SmtpTransport | None
) -> None:
    domains = dict.fromkeys(domain_of(address) for address in (found.source or "", *authors))
    named = ", ".join(domain for domain in domains if domain)
    found.notes.append(f"{named} must be verified in the account; lint does not check this")
    if config is not None and config.rewrite_from:
        found.notes.append(f"a From, Sender or envelope sender that is not verified would become {config.rewrite_from}")


def _note(found: Finding, receipts: Sequence[str]) -> None:
    found.changes += [Change(receipt, why(receipt)) for receipt in receipts]
