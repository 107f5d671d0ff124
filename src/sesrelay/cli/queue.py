"""`sesrelay queue`: look at what waits, and change it. Works whether or not the daemon runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sesrelay.cli import exchange
from sesrelay.cli.desk import with_desk
from sesrelay.cli.options import config_option, json_option, load_or_exit
from sesrelay.cli.words import age, seconds, size
from sesrelay.mail.delivery import State
from sesrelay.seams import Desk, Document, Filter, Verb

STATE_COLOUR = {"queued": "yellow", "in_flight": "cyan", "held": "magenta", "delivered": "green", "failed": "red"}


@click.group()
def command() -> None:
    """Look at what waits in the queue, and change it."""


def filter_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options by which deliveries are chosen."""
    for option in (
        click.option("--older-than", metavar="TIME", type=seconds, help="Accepted longer ago than that, as in 4h or 30m."),
        click.option("--transport", metavar="NAME", help="Waiting for this transport."),
        click.option("--recipient", metavar="ADDRESS", help="An address, or *@example.com."),
        click.option("--sender", metavar="ADDRESS", help="An address, or *@example.com."),
        click.option(
            "--state", "states", multiple=True, type=click.Choice([state.value for state in State]), help="May be repeated."
        ),
    ):
        function = option(function)
    return function


@command.command("list")
@filter_options
@json_option
@config_option
def list_(config: Path, as_json: bool, **chosen: Any) -> None:
    """List deliveries, oldest first; finished ones only with --state."""
    with_desk(config, lambda desk: _list(desk, _filter((), chosen), as_json))


@command.command()
@click.argument("queue_id", metavar="ID")
@json_option
@config_option
def show(config: Path, queue_id: str, as_json: bool) -> None:
    """Show one message and its deliveries."""
    with_desk(config, lambda desk: _show(desk, queue_id, as_json))


@command.command()
@json_option
@config_option
def summary(config: Path, as_json: bool) -> None:
    """Count what waits, by state and transport, and tell what is paused and how to mend it."""
    with_desk(config, lambda desk: _summary(desk, as_json))


VIA = click.option("--via", metavar="NAME", help="The transport by which what is chosen leaves from now on, whatever its route.")


def _changing(verb: Verb, help: str) -> None:
    """Add one of the verbs that change the queue."""

    @command.command(verb, help=help)
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @filter_options
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @json_option
    @config_option
    def change(config: Path, as_json: bool, yes: bool, ids: tuple[str, ...], **chosen: Any) -> None:
        via = _way(config, ids, chosen) if verb == "retry" else None
        wanted = _filter(ids, chosen)
        if wanted == Filter():
            raise click.UsageError(f"name the messages to {verb} by ID, or choose them with --sender, --state and the like")
        if verb == "delete" and not ids and not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("deleting by filter wants --yes where nobody can be asked")
            click.confirm("Delete every delivery that matches, without a bounce?", abort=True)
        with_desk(config, lambda desk: _change(desk, verb, wanted, as_json, via))

    if verb == "retry":
        VIA(change)


_changing(
    "retry",
    "Try again now, by the route in force. With --via NAME, or with --transport NAME beside IDs or another filter, what is chosen "
    "moves to that way out; --transport alone chooses what waits for it.",
)
_changing("hold", "Keep back until released.")
_changing("release", "Let what was held go on.")
_changing("delete", "Remove for good, without a bounce.")


def _way(config: Path, ids: tuple[str, ...], chosen: dict[str, Any]) -> str | None:
    """Return the way out that mail is to take from now on, taken out of `chosen`; None: its route's."""
    via: str | None = chosen.pop("via")
    others = ids or any(value for name, value in chosen.items() if name != "transport")
    if via is None and others:
        via, chosen["transport"] = chosen["transport"], None
    if via is not None:
        known = load_or_exit(config).ways
        if via not in known:
            raise click.UsageError(f"no transport {via} is in use; there are {', '.join(known) or 'none'}")
    return via


def _filter(ids: tuple[str, ...], chosen: dict[str, Any]) -> Filter:
    states = tuple(State(name) for name in chosen["states"])
    return Filter(ids, states, chosen["sender"], chosen["recipient"], chosen["transport"], chosen["older_than"])


exchange.add_to(command, filter_options, _filter)


async def _list(desk: Desk, wanted: Filter, as_json: bool) -> int:
    count = 0
    async for one in desk.listing(wanted):
        if as_json:
            click.echo(("[\n" if not count else ",\n") + json.dumps(one, ensure_ascii=False), nl=False)
        else:
            _print_delivery(one)
        count += 1
    if as_json:
        click.echo("[]" if not count else "\n]")
    elif not count:
        click.echo("Nothing matches." if wanted != Filter() else "The queue is empty.", err=True)
    return 0


async def _show(desk: Desk, queue_id: str, as_json: bool) -> int:
    found = await desk.show(queue_id)
    if found is None:
        click.echo(f"{queue_id}: no such message", err=True)
        return 1
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    for key in ("id", "message_id", "sender", "header_from", "size", "accepted", "listener", "client", "user"):
        click.echo(f"{key + ':':<13}{found[key] if found[key] is not None else '-'}")
    for one in found["deliveries"]:
        click.echo()
        _print_delivery(one)
    return 0


async def _summary(desk: Desk, as_json: bool) -> int:
    found = await desk.summary()
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    oldest = age(found["oldest_seconds"]) if found["oldest_seconds"] is not None else "-"
    click.echo(f"{found['messages']} messages, {found['deliveries']} deliveries, {size(found['bytes'])}, oldest {oldest}")
    states = list(found["by_state"])
    if found["by_transport"]:
        click.echo(f"\n{'transport':<20}" + "".join(f"{state:>12}" for state in states))
    for name, counts in found["by_transport"].items():
        click.echo(f"{name or '(none)':<20}" + "".join(f"{counts.get(state, 0):>12}" for state in states))
    for pause in found["paused"]:
        about = pause["domain"] or pause["nexthop"] or ""
        click.secho(f"\npaused: {pause['transport']} {about} ({pause['reason']}, since {pause['since']})", fg="red")
        click.echo(f"    {pause['remedy']}")
    return 0


async def _change(desk: Desk, verb: Verb, wanted: Filter, as_json: bool, via: str | None) -> int:
    unknown = [queue_id for queue_id in wanted.ids if await desk.show(queue_id) is None]
    if unknown:
        click.echo(f"no such message: {', '.join(unknown)}; nothing was changed", err=True)
        return 1
    count = await desk.change(verb, wanted, via)
    click.echo(json.dumps({"changed": count}) if as_json else f"{count} deliveries changed")
    return 0


def _print_delivery(one: Document) -> None:
    state = click.style(f"{one['state']:<10}", fg=STATE_COLOUR[one["state"]])
    sender = one["sender"] or "<>"
    click.echo(
        f"{one['id']}  {state} {size(one['size']):>9}  {one['accepted']}  {one['transport'] or '-'}  {sender} -> {one['recipient']}"
    )
    details = [f"attempts {one['attempts']}"] if one["attempts"] else []
    details += [f"next {one['next_attempt']}"] if one["next_attempt"] and one["attempts"] else []
    details += [str(one[key]) for key in ("reason", "reply") if one[key]]
    if details:
        click.echo(f"    {', '.join(details)}")
