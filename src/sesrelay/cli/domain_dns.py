"""`sesrelay domain dns`: the records of a domain in the form that its DNS wants, or put there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesrelay.cli.domain_state import DnsWish, State, dns_options, print_findings, state_of
from sesrelay.cli.options import EX_FAILED, json_option
from sesrelay.cli.remedies import fail
from sesrelay.cli.ses import Access, Wish, access, account_options, confirmed, domain_name, refusals, yes_option

if TYPE_CHECKING:
    from sesrelay.setup.zones.plan import Change, Zone
    from sesrelay.setup.zones.records import Record

_COLOURS = {"keep": "green", "create": "cyan", "update": "yellow", "conflict": "red"}


@click.command("dns")
@click.argument("domain", type=domain_name)
@click.option("--format", "form", type=click.Choice(["table", "bind", "json", "route53"]), default="table", show_default=True)
@click.option(
    "--apply", "provider", type=click.Choice(["route53", "cloudflare"]), help="Write the records to the zone at this provider."
)
@click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE", help="The API token for Cloudflare (Zone:Read, DNS:Edit)."
)
@click.option("--zone-id", metavar="ID", help="The Route 53 hosted zone, if several have the same name.")
@click.option("--dns-profile", metavar="NAME", help="The AWS profile for Route 53, if it is in another account than SES.")
@click.option("--replace", is_flag=True, help="Also replace records that conflict.")
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option("--api-url", hidden=True, metavar="URL", help="Where Cloudflare's API is.")
@yes_option
@dns_options
@account_options
@json_option
def command(
    domain: str, form: str, provider: str | None, token_file: Path | None, zone_id: str | None, dns_profile: str | None,
    replace: bool, dry_run: bool, api_url: str | None, yes: bool, as_json: bool, dns: DnsWish, wish: Wish,
) -> None:  # fmt: skip
    """Print the DNS records of DOMAIN, or write them to its zone.

    Existing records are kept: SPF records are merged into one, other TXT values stay, and a record that conflicts with
    a needed one is reported and left unchanged unless you give --replace. The plan is shown before anything changes.
    """
    if token_file is not None and provider != "cloudflare":
        raise click.UsageError("--token-file belongs to --apply cloudflare.")
    used = access(wish, domain)
    with refusals():
        state = state_of(used, domain, dns)
        records = [finding.record for finding in state.findings if not finding.elsewhere]
        if provider is None and (form == "table" or as_json or form == "json"):
            _print(state, as_json or form == "json")
            return
        _all_named(records)
        if provider is None:
            _print_zone(state, records, form, domain, replace)
            return
        zone = _zone(provider, used, domain, token_file, zone_id, dns_profile, api_url)
        _apply(zone, records, replace=replace, dry_run=dry_run, yes=yes, as_json=as_json)


def _print(state: State, as_json: bool) -> None:
    if as_json:
        documents = [finding.document() for finding in state.findings]
        click.echo(json.dumps({"domain": state.identity.domain, "records": documents}, indent=2, ensure_ascii=False))
    else:
        print_findings(state.findings)


def _print_zone(state: State, records: Sequence[Record], form: str, domain: str, replace: bool) -> None:
    """Print lines for a zone file, or a change batch: both with what the DNS has already merged in."""
    from dataclasses import replace as with_value

    from sesrelay.setup.zones.formats import bind, change_batch
    from sesrelay.setup.zones.lookup import present
    from sesrelay.setup.zones.plan import plan

    for finding in state.findings:
        if finding.state == "unknown" and finding.record.is_spf:
            name = finding.record.name
            click.echo(
                f"sesrelay: TXT at {name} could not be looked up ({finding.note}): if there is an SPF record, merge it by hand",
                err=True,
            )
    changes = plan(records, present(state.answers), replace=True)
    if form == "route53":
        click.echo(json.dumps(change_batch(changes), indent=2))
        return
    click.echo(
        bind([with_value(record, value=_last(change, record)) for record, change in zip(records, changes, strict=True)], domain),
        nl=False,
    )


def _last(change: Change, record: Record) -> str:
    # The wanted value comes last; what else stands at the name is in the zone file already.
    return change.after[-1] if record.is_spf and change.action != "keep" else record.value


def _all_named(records: Sequence[Record]) -> None:
    if not all(record.value for record in records):
        raise click.UsageError("The DKIM key is your own, and SES does not show its public key: give its file with --dkim-key.")


def _zone(
    provider: str,
    used: Access,
    domain: str,
    token_file: Path | None,
    zone_id: str | None,
    dns_profile: str | None,
    api_url: str | None,
) -> Zone:
    if provider == "cloudflare":
        from sesrelay.setup.zones.cloudflare import API, CloudflareApi, CloudflareZone

        if token_file is None:
            raise click.UsageError("--apply cloudflare needs --token-file.")
        return CloudflareZone.find(CloudflareApi(_token(token_file), api_url or API), domain)
    from sesrelay.aws.clients import Clients
    from sesrelay.aws.session import Source
    from sesrelay.setup.zones.route53 import Route53Zone

    clients = Clients(Source(used.clients.region, profile=dns_profile)) if dns_profile else used.clients
    return Route53Zone.find(clients, domain, zone_id)


def _apply(zone: Zone, records: Sequence[Record], *, replace: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    from sesrelay.setup.zones.plan import plan

    changes = plan(records, zone.present(record.name for record in records), replace=replace)
    conflicts = [change for change in changes if change.action == "conflict"]
    todo = [change for change in changes if change.action in ("create", "update")]
    document = {"zone": zone.name, "changes": [change.document() for change in changes], "applied": False}
    if not as_json:
        _print_plan(zone, changes)
    if todo and not dry_run:
        if not confirmed(f"Change {len(todo)} of {len(changes)} record sets in {zone.name}?", yes):
            raise SystemExit(EX_FAILED)
        zone.apply(todo)
        document["applied"] = True
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif not dry_run:
        click.echo(f"{len(todo)} record sets changed" if todo else "nothing to change")
    if conflicts:
        fail(f"{len(conflicts)} not written because of conflicts with existing records; --replace replaces those")


def _print_plan(zone: Zone, changes: Sequence[Change]) -> None:
    click.echo(f"zone {zone.name}")
    for change in changes:
        click.secho(f"  {change.action:<9}", fg=_COLOURS[change.action], nl=False)
        click.echo(f"{change.type:<6}{change.name}" + (f"  ({change.note})" if change.note else ""))
        if change.action in ("conflict", "keep"):
            continue
        for other in change.removes:
            click.secho(f"{'':11}- {other.type} {', '.join(other.values)}", fg="red")
        for value in change.before:
            if value not in change.after:
                click.secho(f"{'':11}- {value}", fg="red")
        for value in change.after:
            if value not in change.before:
                click.secho(f"{'':11}+ {value}", fg="green")


def _token(file: Path) -> str:
    from sesrelay.config.private import read_private

    data = read_private(file, os.environ)
    if isinstance(data, str):
        raise click.BadParameter(data, param_hint="--token-file")
    token = data.decode("utf-8", "replace").strip()
    if not token.isascii() or len(token.split()) != 1:
        raise click.BadParameter(f"{file} has no valid token: it must be a single line", param_hint="--token-file")
    return token
