"""A desk with papers on it: implements `seams.Desk` over documents that a test wrote down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sesrelay.seams import Document, Filter, SpoolError, Verb

HOSTILE = '<script>document.title="taken"</script><img src=x onerror=alert(1)>'
REVERSED = "invoice \u202egpj.exe\u202c paid"
CONTROLS = "bell\x07 null\x00 escape\x1b[31m line\nbreak"
LONG = "Lang" + "o" * 500 + "g"

DELIVERY: Document = {
    "id": "", "state": "queued", "outcome": None, "sender": "blog@example.com", "recipient": "reader@example.org",
    "route": "example", "transport": "ses-main", "nexthop": "us-east-1", "priority": "normal", "size": 4096,
    "accepted": "2027-01-15T07:59:30Z", "attempts": 0, "next_attempt": None, "reason": None, "reply": None, "remote_id": None,
}  # fmt: skip


def delivery(**changes: Any) -> Document:
    return {**DELIVERY, **changes}


def message(queue_id: str, subject: str, *deliveries: Document, **changes: Any) -> Document:
    """Return a document of `recent`."""
    return {
        "id": queue_id,
        "message_id": f"<{queue_id}@example.com>",
        "sender": "blog@example.com",
        "header_from": "blog@example.com",
        "size": 4096,
        "accepted": "2027-01-15T07:59:30Z",
        "listener": "127.0.0.1:25",
        "client": "127.0.0.1",
        "user": None,
        "deliveries": [{**paper, "id": queue_id} for paper in deliveries or (delivery(),)],
        "subject": subject,
        **changes,
    }


class PaperDesk:
    """`broken`: every question is answered by SpoolError."""

    def __init__(self, papers: list[Document] | None = None, /, **summary: Any) -> None:
        self.messages = papers or []
        self.broken = False
        self.figures: Document = {
            "messages": 0, "deliveries": 0, "bytes": 0, "oldest_seconds": None, "by_state": {}, "by_transport": {}, "paused": [],
            **summary,
        }  # fmt: skip

    def _ask(self) -> None:
        if self.broken:
            raise SpoolError("disk I/O error: /secret/path")

    async def summary(self) -> Document:
        self._ask()
        return self.figures

    async def listing(self, filter: Filter) -> AsyncIterator[Document]:
        for paper in self.messages:
            for one in paper["deliveries"]:
                yield one

    async def show(self, queue_id: str) -> Document | None:
        self._ask()
        return next((paper for paper in self.messages if paper["id"] == queue_id), None)

    async def trace(self, any_id: str) -> list[Document]:
        self._ask()
        found = [paper for paper in self.messages if any_id in (paper["id"], paper["message_id"], paper["message_id"].strip("<>"))]
        return [{"events": [], **paper} for paper in found]

    async def change(self, verb: Verb, filter: Filter) -> int:
        raise AssertionError("HTTP changes nothing")

    async def recent(self, limit: int) -> list[Document]:
        self._ask()
        return self.messages[:limit]
