"""`sesrelay trace`: a message's whole life."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sesrelay.cli.desk import with_desk
from sesrelay.cli.options import config_option, json_option
from sesrelay.cli.words import harmless, size
from sesrelay.seams import Desk, Document

COLOUR = {"delivered": "green", "failed": "red", "held": "magenta", "bounced": "red"}


@click.command()
@click.argument("any_id", metavar="ID")
@json_option
@config_option
def command(config: Path, any_id: str, as_json: bool) -> None:
    """Show the whole history of a message. ID is a queue id, a Message-ID or an SES message id."""
    with_desk(config, lambda desk: _trace(desk, any_id, as_json))


async def _trace(desk: Desk, any_id: str, as_json: bool) -> int:
    found = await desk.trace(any_id)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    elif not found:
        click.echo(f"{any_id}: no message with this ID is known; the history is kept for queue.keep_delivered", err=True)
    for document in [] if as_json else found:
        print_trace(document)
    return 0 if found else 1


def print_trace(document: Document) -> None:
    """Print one message and its events for a person."""
    recipients = ", ".join(one["recipient"] for one in document["deliveries"])
    click.secho(harmless(f"{document['id']}  {document['sender'] or '<>'} -> {recipients}  ({size(document['size'])})"), bold=True)
    for event in document["events"]:
        print_event(event)


def print_event(event: Document) -> None:
    parts = [event["recipient"], _way(event), event["outcome"] if event["event"] != event["outcome"] else None, event["reply"]]
    parts += [f"remote id {event['remote_id']}" if event["remote_id"] and event["event"] == "delivered" else None]
    parts += [f"{event['duration']:.3f}s" if event["duration"] is not None else None, event["tls"]]
    parts += [f"changed: {', '.join(event['changes'])}" if event["changes"] else None]
    name = click.style(f"{event['event']:<10}", fg=COLOUR.get(event["event"]))
    click.echo(f"  {event['time']}  {name} {harmless('  '.join(str(part) for part in parts if part))}")


def _way(event: Document) -> str | None:
    """Say by which way: the transport, where it goes next, and the host that answered where that is another name."""
    places = dict.fromkeys(place for place in (event["nexthop"], event["host"]) if place)
    return f"by {event['transport']}" + (f" ({', '.join(places)})" if places else "") if event["transport"] else None
