"""Making the reports that verdicts call for: a DSN a kind, with all the recipients of one attempt that share it.

Invariant: a report that nobody is to get by mail (of automatic mail, to an address without a mailbox) lies in the folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sesrelay.delivery.ids import Ids
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.placing import place, rule_for
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail import dsn, headers
from sesrelay.mail.address import domain_of
from sesrelay.mail.delivery import Batch, Delivery, DeliveryId
from sesrelay.mail.envelope import Descent, Envelope, Message, Origin, Recipient, Rung
from sesrelay.mail.lineends import Canonical, canonical
from sesrelay.mail.outcome import Deferred, Failed, Held, Outcome
from sesrelay.mail.reply import Reply
from sesrelay.mail.trace import Event
from sesrelay.policy import ladder
from sesrelay.policy.admission import complete_recipient
from sesrelay.policy.verdict import Report, Verdict
from sesrelay.seams import Submission

Due = Mapping[Report, Sequence[dsn.Reported]]
Made = tuple[tuple[Submission, ...], list[Event]]


def due(
    deliveries: Sequence[Delivery],
    verdicts: Mapping[DeliveryId, Verdict],
    outcomes: Mapping[DeliveryId, Outcome],
    attempted: float | None,
) -> Due:
    """Return whom the sender is to be told about, by the kind of report; empty in the common case.

    Units: `attempted` Unix seconds of the attempt that calls for it, None where time alone does.
    """
    kinds: dict[Report, list[dsn.Reported]] = {}
    for delivery in deliveries:
        verdict = verdicts[delivery.id]
        if verdict.report is not None:
            outcome = outcomes.get(delivery.id)
            kinds.setdefault(verdict.report, []).append(_reported(delivery, verdict, outcome, attempted))
    return kinds


def make(kinds: Due, batch: Batch, content: Canonical, snapshot: Snapshot, pauses: Pauses, ids: Ids) -> Made:
    """Return the reports as messages of our own, placed and ready to be stored, and what the trace is told of them.

    `content` is that of the batch's message.
    """
    made: list[Submission] = []
    events: list[Event] = []
    automatic = _automatic(batch.message, content)
    for kind, reported in kinds.items():
        for those, by_mail in _told_how(reported, automatic=automatic):
            if kind == "lower":
                submission = _once_more(batch, those[0], content, snapshot, pauses, ids)
            elif by_mail or kind == "failed":
                submission = _new(kind, batch.message, content, those, by_mail, snapshot, pauses, ids)
            else:
                continue
            made.append(submission)
            now = submission.message.accepted
            events += [Event(now, "bounced", one.recipient.address, reply=submission.message.id) for one in those]
    return tuple(made), events


def _told_how(reported: Sequence[dsn.Reported], *, automatic: bool) -> list[tuple[Sequence[dsn.Reported], bool]]:
    """Split recipients into those whose report goes by mail and the others: of automatic mail only what it asked for."""
    if not automatic:
        return [(reported, True)]
    asked = [one for one in reported if one.recipient.notify is not None]
    rest = [one for one in reported if one.recipient.notify is None]
    return [(those, by_mail) for those, by_mail in ((asked, True), (rest, False)) if those]


def _automatic(message: Message, content: Canonical) -> bool:
    if message.report is not None:
        return False
    daemon = message.sender.lower().startswith("mailer-daemon@")
    return daemon or headers.automatic(content[: headers.head_length(content)])


def _new(
    kind: dsn.Kind,
    original: Message,
    content: Canonical,
    reported: Sequence[dsn.Reported],
    by_mail: bool,
    snapshot: Snapshot,
    pauses: Pauses,
    ids: Ids,
) -> Submission:
    """Return a report about `original`. It begins on the first rung that has a way; in the folder where not `by_mail`."""
    now, new_id = ids.clock.wall(), ids.new()
    recipient = complete_recipient(Recipient(original.sender, frozenset({"NEVER"})), snapshot.local)
    if isinstance(recipient, Reply) or recipient.hold:
        recipient, by_mail = Recipient(original.sender, frozenset({"NEVER"})), False
    sender = ladder.daemon_of(domain_of(original.sender) or snapshot.hostname)
    domains = tuple(dict.fromkeys(filter(None, map(domain_of, original.header_from))))
    first = Descent(Rung.ROUTE if by_mail else Rung.FOLDER, domains=domains)
    descent, sender = ladder.start(first, sender, snapshot.routing, snapshot.ladder)
    until = original.began + snapshot.retry.max_age if kind == "delayed" else None
    report = dsn.Report(kind, original, reported, sender, snapshot.hostname, new_id, now, until)
    text, _ = canonical(dsn.compose(report, content))
    message = Message(
        id=new_id,
        envelope=_envelope(recipient, text),
        origin=Origin(),
        size=len(text),
        accepted=now,
        header_from=(sender,),
        message_id=f"<{new_id}@{snapshot.hostname}>",
        subject=f"Report on {original.id}: {kind}",
        report=descent,
    )
    return _placed(message, text, snapshot, pauses)


def _once_more(batch: Batch, one: dsn.Reported, content: Canonical, snapshot: Snapshot, pauses: Pauses, ids: Ids) -> Submission:
    """Return a report of ours anew, for the next lower rung of its ladder."""
    former = batch.message
    descent, sender = ladder.below(
        former.report or Descent(), former.header_from[0], batch.lane.transport, one.reply, snapshot.routing, snapshot.ladder
    )
    text = content if sender == former.header_from[0] else Canonical(dsn.with_sender(content, sender))
    message = replace(
        former, id=ids.new(), size=len(text), accepted=ids.clock.wall(), header_from=(sender,), report=descent,
        changes=(*former.changes, f"From: {sender}") if text is not content else former.changes,
    )  # fmt: skip
    return _placed(message, text, snapshot, pauses)


def _envelope(recipient: Recipient, text: Canonical) -> Envelope:
    return Envelope("", (recipient,), "7BIT" if text.isascii() else "8BITMIME", not recipient.address.isascii())


def _placed(message: Message, text: Canonical, snapshot: Snapshot, pauses: Pauses) -> Submission:
    now, (recipient,) = message.accepted, message.envelope.recipients
    placement = place(message, recipient.address, rule_for(message, snapshot), snapshot, pauses, now)
    delivery = Delivery(DeliveryId(message.id, 0), message, recipient, placement, due=now)
    return Submission(message, text, (delivery,), (Event(now, "accepted", changes=message.changes),))


def _reported(delivery: Delivery, verdict: Verdict, outcome: Outcome | None, attempted: float | None) -> dsn.Reported:
    service, slash, rest = delivery.placement.lane.nexthop.partition("/")
    host = (outcome.trail.host if outcome is not None else None) or ""
    remedy = outcome.remedy if isinstance(outcome, Failed | Deferred | Held) else ""
    if host:
        answered, source = host, "smtp"
    elif slash and service == "ses":
        # Never the key that nexthops of one region are told apart by.
        answered, source = f"Amazon SES in {rest.partition('/')[0]}", "X-Amazon-SES"
    else:
        answered, source = "", "X-sesrelay"
    return dsn.Reported(delivery.recipient, verdict.reply or "", answered, remedy, host, source, attempted)
