"""`sesrelay queue`: look at what waits, and change it. Works whether or not the daemon runs."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli import exchange
from sesrelay.cli.desk import ask_daemon, with_desk
from sesrelay.cli.filters import STATE_COLOUR, filter_of, filter_options, names_any, warn_of_what_cannot_match
from sesrelay.cli.options import EX_FAILED, EX_OK, config_option, json_option, load_or_exit, reader_left
from sesrelay.cli.progress import with_progress
from sesrelay.cli.remedies import as_run
from sesrelay.cli.standing import FUTURE, change_future, check_future, list_future, print_future
from sesrelay.cli.words import age, harmless, number, size

if TYPE_CHECKING:
    from sesrelay.seams import Desk, Document, Filter, Verb

COUNTED_MAX = 10_000  # deliveries that are counted before somebody is asked whether to delete them
WAYS = ("retry", "release")
"""Verbs that may send mail by another way out."""
VIA = click.option(
    "--via", metavar="NAME", help="Send the chosen deliveries through this transport from now on, whatever their route."
)


@click.group()
def command() -> None:
    """Show and change what is in the queue."""


@command.command("list")
@filter_options
@json_option
@config_option
def list_(config: Path, as_json: bool, **chosen: Any) -> None:
    """List deliveries, oldest first; finished ones only with --state."""
    with_desk(config, lambda desk: _list(desk, filter_of((), chosen), as_json, config))


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
    """Count deliveries by state and transport; show what is paused and how to resume it."""
    found = ask_daemon(config, "summary")
    if found is not None:
        sys.exit(_print_summary(found, as_json))
    with_desk(config, lambda desk: _summary(desk, as_json))


def _changing(verb: Verb, help: str) -> None:
    """Add one of the verbs that change the queue."""

    def change(config: Path, as_json: bool, ids: tuple[str, ...], yes: bool = False, future: bool = False, **chosen: Any) -> None:
        via = _way(config, verb, ids, chosen) if verb in WAYS else None
        wanted = filter_of(ids, chosen)
        if future and verb == "release" and not names_any(wanted):
            with_desk(config, lambda desk: list_future(desk, as_json))
        if not names_any(wanted):
            raise click.UsageError(f"name the messages to {verb} by ID, or choose them with a filter such as --sender or --state")
        if future:
            check_future(wanted, via)
            with_desk(config, lambda desk: change_future(desk, verb, wanted, as_json, config))
        if verb == "delete" and not ids and not yes and not sys.stdin.isatty():
            raise click.UsageError("deleting by filter needs --yes where there is no terminal to ask on")
        ask = verb == "delete" and not yes and sys.stdin.isatty()
        with_desk(config, lambda desk: _change(desk, verb, wanted, as_json, via, config, ask=ask))

    options: list[Any] = [config_option, json_option]
    options.append(click.option("--yes", is_flag=True, hidden=verb != "delete", help="Do not ask."))
    if verb in WAYS:
        options.append(VIA)
    if verb in FUTURE:
        options.append(click.option("--future", is_flag=True, help=FUTURE[verb]))
    made: Any = change
    options += [filter_options, click.argument("ids", metavar="[ID]...", nargs=-1)]
    for option in options:
        made = option(made)
    command.command(verb, help=help)(made)


_changing(
    "retry",
    "Try again now, with the current routes. --via NAME, or --transport NAME together with IDs, moves the chosen deliveries to "
    "that transport; without IDs, --transport chooses the deliveries that wait for it. Mail that its sender has scheduled for "
    "later is sent now if you name its ID; if a filter chooses it, it keeps its time and is not counted.",
)
_changing("hold", "Hold deliveries until they are released.")
_changing(
    "release",
    "Release held deliveries; scheduled ones keep their time. --via NAME sends them through that transport, whatever their route.",
)
_changing("delete", "Delete deliveries for good, without a bounce. Asks first on a terminal.")


def _way(config: Path, verb: Verb, ids: tuple[str, ...], chosen: dict[str, Any]) -> str | None:
    """Return the way out that mail is to take from now on, taken out of `chosen`; None: its route's."""
    via: str | None = chosen.pop("via")
    if via is None and ids and verb == "retry":
        via, chosen["transport"] = chosen["transport"], None
    if via is not None:
        known = load_or_exit(config).ways
        if via not in known:
            raise click.UsageError(f"there is no transport {via} in use; there are: {', '.join(known) or 'none'}")
    return via


exchange.add_to(command)


# --- looking ---


async def _list(desk: Desk, wanted: Filter, as_json: bool, config: Path) -> int:
    count = 0
    async for one in desk.listing(wanted):
        if as_json:
            click.echo(("[\n" if not count else ",\n") + json.dumps(one, ensure_ascii=False), nl=False)
        else:
            _print_delivery(one)
        if reader_left():
            return EX_OK
        count += 1
    if as_json:
        click.echo("[]" if not count else "\n]")
    elif not count and desk.missing is None:
        click.echo("Nothing matches." if names_any(wanted) else "The queue is empty.", err=True)
    if not count:
        await warn_of_what_cannot_match(desk, wanted, config)
    return EX_OK


async def _show(desk: Desk, queue_id: str, as_json: bool) -> int:
    found = await desk.show(queue_id)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    elif found is None:
        click.echo(f"{queue_id}: no such message", err=True)
    else:
        for key in ("id", "message_id", "sender", "header_from", "size", "accepted", "listener", "client", "user"):
            click.echo(f"{key + ':':<13}{_shown(found, key)}")
        for one in found["deliveries"]:
            click.echo()
            _print_delivery(one)
    return EX_OK if found is not None else EX_FAILED


def _shown(found: Document, key: str) -> str:
    if key == "size":
        return size(found["size"])
    text = (found["sender"] or "<>") if key == "sender" else found[key]
    return harmless(str(text)) if text is not None else "-"


async def _summary(desk: Desk, as_json: bool) -> int:
    return _print_summary(await desk.summary(), as_json)


def _print_summary(found: Document, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return EX_OK
    oldest = f", the oldest {age(found['oldest_seconds'])}" if found["oldest_seconds"] is not None else ""
    click.echo(f"{number(found['messages'], 'message')}, {number(found['deliveries'], 'delivery')}, {size(found['bytes'])}{oldest}")
    _print_counts(found["by_transport"], found["by_state"])
    for pause in found["paused"]:
        route = f"route {pause['route']}" if pause.get("route") else None  # a daemon of an older version names none
        about = " ".join(filter(None, (pause["transport"], route or pause["domain"] or pause["nexthop"])))
        click.secho(f"\npaused: {harmless(about)} ({pause['cap'] or pause['reason']}, since {pause['since']})", fg="red")
        click.echo(as_run(f"    {harmless(pause['remedy'])}"))
    if found["future_holds"]:
        click.secho("\nnew mail that is held:", fg="magenta")
        print_future(found["future_holds"])
    kept = found["undeliverable"]
    if kept["messages"]:
        click.secho(f"\n{number(kept['messages'], 'bounce')} could not be sent; kept in {kept['folder']}", fg="red")
        click.echo(f"    Read them there, for example: mutt -f {kept['folder']}; then delete them there.")
    return EX_OK


def _print_counts(by_transport: dict[str, dict[str, int]], total: dict[str, int]) -> None:
    if not by_transport:
        return
    width = max(len("transport"), *(len(name) for name in by_transport))
    click.echo(f"\n{'transport':<{width}}" + "".join(f"{state:>14}" for state in total))
    rows = [*by_transport.items(), *([("all", total)] if len(by_transport) > 1 else [])]
    for name, counts in rows:
        figures = (
            click.style(f"{counts.get(state, 0):>14,}", fg=STATE_COLOUR[state] if counts.get(state) else None) for state in total
        )
        click.echo(f"{name or '(none)':<{width}}" + "".join(figures))


def _print_delivery(one: Document) -> None:
    state = click.style(f"{one['state']:<10}", fg=STATE_COLOUR[one["state"]])
    sender = one["sender"] or "<>"
    way = harmless(f"{one['transport'] or '-'}  {sender} -> {one['recipient']}")
    click.echo(f"{one['id']}  {state} {size(one['size']):>9}  {one['accepted']}  {way}")
    details = [f"attempts {one['attempts']}"] if one["attempts"] else []
    details += [f"next {one['next_attempt']}"] if one["next_attempt"] and (one["attempts"] or one["reason"]) else []
    details += [str(one[key]) for key in ("reason", "reply") if one[key]]
    if details:
        click.echo(f"    {harmless(', '.join(details))}")


# --- changing ---


async def _change(
    desk: Desk, verb: Verb, wanted: Filter, as_json: bool, via: str | None, config: Path, *, ask: bool = False
) -> int:
    unknown = await _unknown(desk, wanted.ids)
    if unknown:
        click.echo(f"no such message: {', '.join(unknown)}; nothing was changed", err=True)
        return EX_FAILED
    if ask and not await _sure(desk, wanted):
        click.echo("nothing was deleted", err=True)
        return EX_FAILED
    count = await with_progress(desk, verb, wanted, lambda told: desk.change(verb, wanted, via, told))
    click.echo(json.dumps({"changed": count}) if as_json else f"{count} deliveries changed")
    if verb == "retry" and not count and (told := await _left_by_retry(desk, wanted)):
        click.echo(as_run(told), err=True)
    if not count:
        await warn_of_what_cannot_match(desk, wanted, config)
    return EX_OK


async def _unknown(desk: Desk, ids: tuple[str, ...]) -> list[str]:
    """Return those of `ids` that no message has, by one question: thousands come from a pipe."""
    from sesrelay.mail.delivery import State
    from sesrelay.seams import Filter

    known = {one["id"] async for one in desk.listing(Filter(ids=ids, states=tuple(State)))} if ids else ()
    return [queue_id for queue_id in ids if queue_id not in known]


async def _left_by_retry(desk: Desk, wanted: Filter) -> str | None:
    """Return what to do instead with what a retry leaves as it is, by the first that matches; None where nothing does."""
    async for one in desk.listing(wanted):
        if one["state"] == "held":
            return (
                "the matching deliveries are held: release them with `sesrelay queue release` and the same arguments; "
                "--via NAME uses another transport"
            )
        if one["state"] == "queued":
            return "the matching deliveries are scheduled for later: `sesrelay queue retry ID` sends them now"
        break
    return None


async def _sure(desk: Desk, wanted: Filter) -> bool:
    count = 0
    async for one in desk.listing(wanted):
        count += one["state"] not in ("delivered", "failed")
        if count == COUNTED_MAX:
            break
    if not count:
        return True
    many = f"{COUNTED_MAX:,} deliveries or more" if count == COUNTED_MAX else number(count, "delivery")
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # the loop's own cancels what waits for it, and this does not
    try:
        return click.confirm(f"Delete {many} for good, without a bounce?", err=True)
    finally:
        signal.signal(signal.SIGINT, former)
