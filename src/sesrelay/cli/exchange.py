"""`sesrelay queue export` and `queue import`: mail as files, between hosts and out of a damaged store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sesrelay.cli.desk import with_desk
from sesrelay.cli.filters import filter_of, filter_options, warn_of_what_cannot_match
from sesrelay.cli.options import EX_FAILED, EX_OK, config_option, json_option
from sesrelay.cli.progress import progress

if TYPE_CHECKING:
    from sesrelay.seams import Desk, Document, Filter


def add_to(group: click.Group) -> None:
    """Add both verbs to `queue`."""

    @group.command("export")
    @click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @filter_options
    @click.option(
        "--salvage",
        is_flag=True,
        help="Read the store's file directly and skip what is damaged; automatic if the store cannot be opened.",
    )
    @json_option
    @config_option
    def export(config: Path, as_json: bool, folder: Path, ids: tuple[str, ...], salvage: bool, **chosen: Any) -> None:
        """Write waiting messages to FOLDER: ID.eml with the message, ID.json with its envelope. Changes nothing in the queue.

        Without IDs or filters: all messages that are not finished.
        """
        wanted = filter_of(ids, chosen)
        with_desk(config, lambda desk: _export(desk, folder, wanted, as_json, config), salvage=salvage, salvage_in=folder)

    @group.command("import")
    @click.argument("paths", metavar="FOLDER|FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
    @json_option
    @config_option
    def import_(config: Path, as_json: bool, paths: tuple[Path, ...]) -> None:
        """Add exported messages to the queue, with the current routes. Messages that are here already stay unchanged."""
        with_desk(config, lambda desk: _import(desk, paths, as_json), importing=True)


async def _export(desk: Desk, folder: Path, wanted: Filter, as_json: bool, config: Path) -> int:
    from sesrelay.control import folder as files
    from sesrelay.control.client import ControlError
    from sesrelay.seams import SpoolError

    ids = await _wanted(desk, wanted)
    known = set(ids)
    unknown = [one for one in wanted.ids if one not in known]
    unreadable: list[Document] = [{"id": one, "error": "no such message, or none of its deliveries is waiting"} for one in unknown]
    files.prepare(folder)
    exported = 0
    with progress("export", len(ids), "exported") as told:
        for looked, queue_id in enumerate(ids, 1):
            try:
                found = await desk.export(queue_id)
            except (ControlError, SpoolError) as error:
                unreadable.append({"id": queue_id, "error": f"{error}{await _between_whom(desk, queue_id)}"})
            else:
                if found is not None and found[1] is not None:
                    files.write(folder, found[0], found[1])
                    exported += 1
            told(looked, exported)
    files.sync()
    if as_json:
        click.echo(json.dumps({"exported": exported, "folder": str(folder), "unreadable": unreadable}, ensure_ascii=False))
    else:
        click.echo(f"{exported} messages exported to {folder}")
        for one in unreadable:
            click.echo(f"{one['id']}: {one['error']}", err=True)
    if not ids:
        await warn_of_what_cannot_match(desk, wanted, config)
    return EX_FAILED if unreadable else EX_OK


async def _between_whom(desk: Desk, queue_id: str) -> str:
    """Return from whom a message is and for whom it waits, so that they can be told; nothing where that is lost, too."""
    from sesrelay.control.client import ControlError
    from sesrelay.seams import SpoolError

    try:
        shown = await desk.show(queue_id)
    except (ControlError, SpoolError):
        return ""
    if shown is None:
        return ""
    waiting = ", ".join(one["recipient"] for one in shown["deliveries"] if one["state"] not in ("delivered", "failed"))
    return f" (from {shown['sender'] or '<>'} to {waiting})"


async def _wanted(desk: Desk, wanted: Filter) -> list[str]:
    """Return the ids of what is to be exported, each once, in order of arrival."""
    ids: dict[str, None] = {}
    looked = 0
    with progress("looking", None, "found") as told:
        async for one in desk.listing(wanted):
            ids[one["id"]] = None
            looked += 1
            told(looked, len(ids))
    return list(ids)


async def _import(desk: Desk, paths: tuple[Path, ...], as_json: bool) -> int:
    from sesrelay.control import folder as files
    from sesrelay.seams import Unfit

    imported = known = 0
    refused: list[Document] = []
    try:
        envelopes = files.messages(paths)
    except Unfit as error:
        raise click.UsageError(str(error)) from error
    with progress("import", len(envelopes), "imported") as told:
        for looked, envelope in enumerate(envelopes, 1):
            try:
                document, content = files.read(envelope)
                if await desk.take(document, content):
                    imported += 1
                else:
                    known += 1
            except Unfit as error:
                refused.append({"file": str(envelope.with_suffix(".eml")), "error": str(error)})
            told(looked, imported)
    if as_json:
        click.echo(json.dumps({"imported": imported, "known": known, "refused": refused}, ensure_ascii=False))
    else:
        click.echo(f"{imported} messages imported, {known} were here already")
        for one in refused:
            click.echo(f"{one['file']}: {one['error']}", err=True)
    return EX_FAILED if refused else EX_OK
