"""One message to one SMTP host: over a connection that was kept or a new one, in as many transactions as the host wants.

Invariant: a kept connection that turns out to be stale is replaced by a new one, once, and only while the host had accepted
nothing of the transaction.
Invariant: recipients that are too many for one transaction are offered again only after the host took the former ones.
Invariant: a host that wants no second transaction in one connection, in whatever words, makes no message fail; it is offered in
another connection.
Invariant: a host that does not know the BDAT that it announced has taken nothing, and is offered the message by DATA, in another
connection.
Invariant: what goes wrong in a later transaction changes nothing for those whom a former one served, or whom it was not for.

Source: RFC 5321 §4.5.3.1.10 (too many recipients), RFC 9422 (LIMITS RCPTMAX).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from sesrelay.mail.delivery import Batch, Delivery, DeliveryId
from sesrelay.mail.reply import Reply
from sesrelay.seams import SpoolError
from sesrelay.transport.client.answers import Answer, Stage
from sesrelay.transport.client.connect import Endpoint, Unreached
from sesrelay.transport.client.content import Payload, unreadable
from sesrelay.transport.client.pool import Pool
from sesrelay.transport.client.session import Session, Transaction

TOO_MANY = ("", "4.5.3")


class _Line:
    """The connection to one host that is in use."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def at_hand(self) -> Session:
        """Return it, or a new one in its place where the host has ended it or wants no more in it. Raises: Unreached"""
        if self.session.spent or not self.session.usable:
            self.session.leave()
            self.session = await Session.open(self.session.endpoint)
        return self.session

    async def transact(self, batch: Batch, payload: Payload) -> Transaction:
        """Offer over the connection at hand; over a new one, by DATA, where the host does not know the BDAT that it announced.

        Raises: SpoolError.
        """
        done = await self.session.transact(batch, payload)
        if not self.session.chunk_unknown:
            return done
        try:
            session = await self.at_hand()
        except Unreached as error:
            told = {key: answer if answer.stage is Stage.RCPT else error.answer for key, answer in done.answers.items()}
            return replace(done, answers=told)
        session.forget_chunks()
        return await session.transact(batch, payload)


async def over_kept(pool: Pool, endpoint: Endpoint, batch: Batch, payload: Payload) -> Transaction | None:
    """Offer the message over a kept connection; None where a new one is wanted. Raises: SpoolError, as `converse`."""
    session = pool.take(endpoint)
    if session is None:
        return None
    done = await converse(pool, session, batch, payload)
    refused = done.at_mail
    return done if refused is None or not (refused.service_gone or refused.reply.permanent) else None


async def converse(pool: Pool, session: Session, batch: Batch, payload: Payload) -> Transaction:
    """Offer the message to the host for every delivery of the batch, and give the connection to the pool.

    Raises: SpoolError, where the host has taken it for nobody.
    """
    line = _Line(session)
    try:
        limit = session.recipient_limit or len(batch)
        if len(batch) <= limit:
            done = await line.transact(batch, payload)
            if not _too_many(done, batch.deliveries):
                return done
        else:
            done = await line.transact(Batch(batch.lane, batch.deliveries[:limit]), payload)
        return await _go_on(line, done, batch, payload, limit)
    finally:
        pool.put(line.session)


async def _go_on(line: _Line, done: Transaction, batch: Batch, payload: Payload, limit: int) -> Transaction:
    """Offer to the recipients that were too many, as long as each transaction serves some."""
    answers, in_doubt = dict(done.answers), set[DeliveryId]()
    while True:
        waiting = [one for one in batch.deliveries if one.id not in answers or (done.taken and _is_too_many(answers[one.id]))]
        if not waiting or not (done.taken or done.about_recipients):
            break
        asked = waiting[:limit]
        try:
            session = await line.at_hand()
            offered = await line.transact(Batch(batch.lane, tuple(asked)), payload)
        except Unreached:
            break
        except SpoolError as error:  # whatever it is, those who have the message must not get it again
            unread = Answer(Stage.RCPT, unreadable(error))
            answers.update((one.id, unread) for one in waiting)
            break
        except asyncio.CancelledError as cut:
            left = {one.id for one in asked} if payload.left else set()
            untried = frozenset(one.id for one in waiting) - left
            kept = {key: answer for key, answer in answers.items() if key not in untried | left}
            return replace(done, answers=kept, fault=cut, untried=untried)
        except Exception as error:
            done, in_doubt = replace(done, fault=error), {one.id for one in asked}
            break
        if offered.at_mail is not None:
            if session.transactions > 1:
                continue  # over a new connection, once
            break
        done = offered
        answers.update(done.answers)
    not_offered = Answer(Stage.RCPT, Reply(452, "4.5.3", f"{line.session.endpoint.name} accepts no more recipients at the moment"))
    for_all = next((answer for answer in answers.values() if answer.stage is Stage.MAIL), not_offered)  # of the first transaction
    for delivery in batch.deliveries:
        answers.setdefault(delivery.id, for_all)
    return replace(done, answers={key: answer for key, answer in answers.items() if key not in in_doubt})


def _too_many(done: Transaction, deliveries: Sequence[Delivery]) -> bool:
    return len(deliveries) > 1 and done.taken and any(_is_too_many(done.answers[one.id]) for one in deliveries)


def _is_too_many(answer: Answer) -> bool:
    return answer.stage is Stage.RCPT and answer.reply.code == 452 and answer.reply.enhanced in TOO_MANY and not answer.lost
