"""`sesrelay iam-policy`: what the relay's credentials must be allowed, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sesrelay.cli.options import REGION, config_option
from sesrelay.cli.remedies import fail
from sesrelay.cli.ses import configuration, domains_option

if TYPE_CHECKING:
    from sesrelay.aws.policy import Sending


@click.command("iam-policy")
@click.option("--manage", is_flag=True, help="Also allow what `sesrelay domain` needs: create, change and remove these identities.")
@domains_option
@click.option("--account-id", metavar="N", default="*", help="The 12 digits of the AWS account; default: any.")
@click.option("--transport", "transports", multiple=True, metavar="NAME", help="Only for this transport; may be repeated.")
@click.option("--region", type=REGION, metavar="REGION", help="The region, if there is no configuration yet.")
@config_option
def command(
    manage: bool, domains: tuple[str, ...], account_id: str, transports: tuple[str, ...], region: str | None, config: Path
) -> None:
    """Print the least-privilege IAM policy that lets the relay send as the configuration says.

    It restricts senders by ses:FromAddress, names the identities as resources, and lets the relay read the account's limits.
    """
    from sesrelay.aws.policy import ANY, document

    if account_id != ANY and not (account_id.isdecimal() and len(account_id) == 12):
        raise click.BadParameter(f"{account_id!r} is not the 12-digit ID of an AWS account", param_hint="--account-id")
    sending = sendings_or_exit(config, transports, domains, region)
    if any(one.patterns is None for one in sending):
        click.echo(
            "sesrelay: a default route leads to SES, so any sender is allowed; name the domains in routes, or with --domain",
            err=True,
        )
    click.echo(json.dumps(document(sending, account_id, manage=manage), indent=2))


def sendings_or_exit(config: Path, transports: tuple[str, ...], domains: tuple[str, ...], region: str | None) -> list[Sending]:
    """Return what is sent through SES, or say why that is nothing and exit."""
    from sesrelay.app.ses_access import leads_to_ses, sendings
    from sesrelay.aws.policy import ANY, RAW, RAW_V2, Sending

    loaded = configuration(config)
    if loaded is None or (domains and not any(leads_to_ses(one) for one in loaded.config.transports.values())):
        if not domains:
            raise click.UsageError(f"There is no {config}: name the senders with --domain.")
        return [Sending(region or ANY, (RAW_V2, RAW), domains)]
    unknown = [
        name for name in transports if name not in loaded.config.transports or not leads_to_ses(loaded.config.transports[name])
    ]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: not a transport that leads to SES", param_hint="--transport")
    try:
        found = sendings(loaded, transports, domains)
    except ValueError as error:
        fail(f"{error}")
    if not found:
        fail("no route leads to SES; add one, or name the senders with --domain")
    return found
