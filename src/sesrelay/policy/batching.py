"""Cutting what waits before one nexthop into batches: one message each, at most `limit` deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sesrelay.mail.delivery import Batch, Delivery, LaneKey


def batches(lane: LaneKey, deliveries: Iterable[Delivery], limit: int) -> Iterator[Batch]:
    """Yield batches in the order in which their messages first appear."""
    by_message: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        by_message.setdefault(delivery.id.message, []).append(delivery)
    for group in by_message.values():
        for start in range(0, len(group), limit):
            yield Batch(lane, tuple(group[start : start + limit]))
