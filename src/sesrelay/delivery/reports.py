"""Making the reports that verdicts call for: a DSN a kind, with all the recipients of one attempt that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sesrelay.delivery.ids import Ids
from sesrelay.delivery.pauses import Pauses
from sesrelay.delivery.placing import place, rule_for
from sesrelay.delivery.snapshot import Snapshot
from sesrelay.mail import dsn
from sesrelay.mail.address import domain_of
from sesrelay.mail.delivery import Delivery, DeliveryId, State
from sesrelay.mail.envelope import Envelope, Message, Origin, Recipient
from sesrelay.mail.lineends import canonical
from sesrelay.mail.outcome import Deferred, Failed, Held, Outcome
from sesrelay.mail.reply import Reply
from sesrelay.mail.trace import Event
from sesrelay.policy.admission import complete_recipient
from sesrelay.policy.verdict import Report, Verdict
from sesrelay.seams import Submission


def due(
    deliveries: Sequence[Delivery], verdicts: Mapping[DeliveryId, Verdict], outcomes: Mapping[DeliveryId, Outcome]
) -> dict[Report, list[dsn.Reported]]:
    """Return whom the sender is to be told about, by the kind of report; empty in the common case."""
    kinds: dict[Report, list[dsn.Reported]] = {}
    for delivery in deliveries:
        verdict = verdicts[delivery.id]
        if verdict.report is not None:
            kinds.setdefault(verdict.report, []).append(
                dsn.Reported(
                    delivery.recipient,
                    verdict.reply or "",
                    _who_answered(delivery.placement.lane.nexthop),
                    _remedy(outcomes.get(delivery.id)),
                )
            )
    return kinds


def compose(
    kind: Report,
    original: Message,
    content: bytes,
    reported: Sequence[dsn.Reported],
    snapshot: Snapshot,
    pauses: Pauses,
    ids: Ids,
) -> Submission:
    """Return the report as a message of our own, placed and ready to be stored."""
    now = ids.clock.wall()
    new_id = ids.new()
    until = original.began + snapshot.retry.max_age if kind == "delayed" else None
    text, _ = canonical(
        dsn.compose(kind, original, content, reported, hostname=snapshot.hostname, queue_id=new_id, now=now, until=until)
    )
    recipient = complete_recipient(Recipient(original.sender, frozenset({"NEVER"})), snapshot.local)
    if isinstance(recipient, Reply):
        recipient = Recipient(original.sender, frozenset({"NEVER"}), hold="no_alias")
    sender = f"mailer-daemon@{domain_of(original.sender) or snapshot.hostname}"
    message = Message(
        id=new_id,
        envelope=Envelope("", (recipient,), "8BITMIME", not recipient.address.isascii()),
        origin=Origin(),
        size=len(text),
        accepted=now,
        header_from=(sender,),
        message_id=f"<{new_id}@{snapshot.hostname}>",
        subject=f"Report on {original.id}: {kind}",
        report=True,
    )
    placement = place(message, recipient.address, rule_for(message, snapshot), snapshot, pauses, now)
    delivery = Delivery(DeliveryId(new_id, 0), message, recipient, placement, due=now)
    if recipient.hold:
        delivery = replace(delivery, state=State.HELD, reason=recipient.hold)
    return Submission(message, text, (delivery,), (Event(now, "accepted"),))


def _remedy(outcome: Outcome | None) -> str:
    return outcome.remedy if isinstance(outcome, Failed | Deferred | Held) else ""


def _who_answered(nexthop: str) -> str:
    """Return a nexthop for a person: its host name, or the service; never the key or the user it is told apart by."""
    kind, slash, rest = nexthop.partition("/")
    if not slash:
        return nexthop
    return f"Amazon SES in {rest.partition('/')[0]}" if kind == "ses" else rest.partition("/")[0].rpartition(":")[0]
