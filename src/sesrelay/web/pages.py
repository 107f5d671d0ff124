"""The pages for people: rendered on the server, refreshed by a small script of ours, whole without it.

Invariant: templates escape everything; there is no inline script or style in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sesrelay
from sesrelay.mail.dates import rfc3339
from sesrelay.policy.reputation import AccountStanding
from sesrelay.seams import Document
from sesrelay.web import accounts, view
from sesrelay.web.options import WebOptions

if TYPE_CHECKING:
    import jinja2

_HERE = Path(__file__).parent
PAUSES_MAX = 8
ASSETS = {
    path.name: (path.read_bytes(), kind)
    for path, kind in (
        (_HERE / "static" / "style.css", "text/css"),
        (_HERE / "static" / "live.js", "text/javascript"),
        (_HERE / "static" / "icon.svg", "image/svg+xml"),
    )
}


class Pages:
    """Renders the pages. Units: `started` and `now` Unix seconds."""

    def __init__(self, started: float) -> None:
        self._started = started

    @cached_property
    def _templates(self) -> jinja2.Environment:
        import jinja2  # noqa: PLC0415 - 2 MiB, wanted only where somebody looks

        templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        templates.filters |= {"plain": view.plain, "size": view.size, "state_name": view.state_name, "number": view.number}
        return templates

    def status(
        self,
        options: WebOptions,
        now: float,
        *,
        summary: Document,
        rows: Sequence[view.Row],
        counters: Mapping[str, int],
        missing: list[str],
        standings: Mapping[str, AccountStanding] | None = None,
    ) -> str:
        """Return the status page; `missing` is what keeps the relay from being ready."""
        paused = view.pauses(summary, now)
        return self._render(
            "status.html",
            options,
            now,
            figures=view.figures(summary, counters),
            pauses=paused[:PAUSES_MAX],
            pauses_more=max(len(paused) - PAUSES_MAX, 0),
            held=(summary.get("by_state") or {}).get("held", 0),
            lanes=view.lanes(summary),
            accounts=accounts.rows(standings or {}),
            rows=rows,
            missing=[view.plain(reason) for reason in missing],
        )

    def message(self, options: WebOptions, now: float, documents: list[Document]) -> str:
        """Return the page of a message's whole life; several where they share a Message-ID."""
        lives = [
            {
                "row": view.row(document, now),
                "facts": _facts(document),
                "deliveries": [_delivery(delivery, now) for delivery in document.get("deliveries") or ()],
                "events": list(view.events(document, now)),
            }
            for document in documents
        ]
        return self._render("message.html", options, now, lives=lives)

    def problem(self, options: WebOptions, now: float, title: str, text: str) -> str:
        """Return a page that says what could not be shown."""
        return self._render("problem.html", options, now, title=title, text=text)

    def _render(self, template: str, options: WebOptions, now: float, **values: Any) -> str:
        return self._templates.get_template(template).render(
            hostname=options.hostname,
            smtp=options.smtp,
            version=sesrelay.__version__,
            uptime=view.uptime(now - self._started),
            now=view.moment(rfc3339(now, "seconds"), now),
            **values,
        )


def _facts(document: Document) -> list[tuple[str, str]]:
    header_from = document.get("header_from") or ()
    shown = [header_from] if isinstance(header_from, str) else header_from
    pairs = (
        ("Queue id", document.get("id")),
        ("Message-ID", document.get("message_id")),
        ("Envelope sender", document.get("sender") or "<>"),
        ("Header From", ", ".join(str(address) for address in shown)),
        ("Size", view.size(document.get("size") or 0)),
        ("Accepted", document.get("accepted")),
        ("Listener", document.get("listener")),
        ("Client", document.get("client")),
        ("User", document.get("user")),
    )
    return [(name, view.plain(value)) for name, value in pairs if value]


def _delivery(delivery: Mapping[str, Any], now: float) -> dict[str, Any]:
    keys = ("recipient", "route", "transport", "nexthop", "reason", "remote_id")
    return {
        **{key: view.plain(delivery.get(key)) for key in keys},
        "reply": view.answer(delivery),
        "state": view.state_of(delivery),
        "attempts": delivery.get("attempts") or 0,
        "next_attempt": view.moment(delivery.get("next_attempt"), now),
    }
