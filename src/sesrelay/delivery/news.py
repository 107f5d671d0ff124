"""What is heard later of an attempt whose answer was lost: an event of the next hop's ends the doubt, and nothing is sent again.

SES is told the queue id of each message (the tag `sesrelay-id`), and its events give it back with SES's own id. Nobody fetches
events yet; who does calls `believe`.

Invariant: only what is in doubt is settled so: what was never in doubt has an answer of its own, or one under way.
Invariant: news says what was, not what is: it lifts no pause.

Source: docs/decisions/0032.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sesrelay.delivery.content import MessageContent
from sesrelay.delivery.settle import Settler
from sesrelay.mail.address import comparable
from sesrelay.mail.delivery import Batch, Delivery
from sesrelay.mail.outcome import Delivered
from sesrelay.mail.reply import Reply
from sesrelay.seams import Spool, SpoolAdmin

LONG_AGO = 0.0  # Unix seconds: when an attempt began that is to lift nothing


@dataclass(frozen=True, slots=True)
class Taken:
    """The next hop says that it took a message. `recipients`: for whom, as it wrote them; empty: for all."""

    queue_id: str
    remote_id: str | None = None
    recipients: Sequence[str] = ()


async def believe(news: Taken, spool: Spool, admin: SpoolAdmin, settler: Settler) -> int:
    """End those deliveries of the message that are in doubt as delivered; return how many. Raises: SpoolError

    Durability: on stable storage on return. What waits in a lane is not opened any more; what is under way again goes, and its
    answer changes nothing.
    """
    record = await admin.show(news.queue_id)
    if record is None:
        return 0
    meant = {comparable(address) for address in news.recipients}
    doubtful = [
        each.delivery
        for each in record.deliveries
        if _in_doubt(each.delivery) and (not meant or comparable(each.delivery.recipient.address) in meant)
    ]
    content = MessageContent(spool, record.message.id, record.message.size)
    said = f"Ok {news.remote_id}" if news.remote_id else "Ok"
    reply = Reply(250, "2.0.0", f"{said}, as the remote side reported later")
    for lane, group in groupby(doubtful, key=lambda delivery: delivery.placement.lane):
        batch = Batch(lane, tuple(group))
        outcomes = batch.for_all(Delivered(reply, news.remote_id))
        judged = await settler.judge(batch, dict(outcomes), content, began=LONG_AGO, seconds=0.0)
        told = tuple(event._replace(event="feedback") if event.event == "attempt" else event for event in judged.settlement.events)
        await spool.settle(replace(judged.settlement, events=told))
        settler.announce(judged)
    return len(doubtful)


def _in_doubt(delivery: Delivery) -> bool:
    return delivery.pinned is not None and not delivery.state.final
