"""`sesrelay smtp-password`: from a secret access key on stdin to the password of the SES SMTP endpoint."""

from __future__ import annotations

import os
import sys

import click

from sesrelay.cli.options import REGION
from sesrelay.cli.remedies import fail


@click.command("smtp-password")
@click.option(
    "--region", type=REGION, required=True, metavar="REGION", help="The region whose SMTP endpoint is used, as in us-east-1."
)
def command(region: str) -> None:
    """Read a secret access key on stdin and print the SES SMTP password that belongs to it in REGION.

    The user name is the access key id. The password holds for that one region, does nothing for the API, and cannot be made
    from temporary credentials (key ids that begin with ASIA). On a terminal the key is asked for, unseen.
    """
    from sesrelay.aws.smtp_password import NoSecretKey, derive, read_secret

    text = click.prompt("Secret access key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read(4096)
    session = os.environ.get("AWS_SECRET_ACCESS_KEY") if os.environ.get("AWS_SESSION_TOKEN") else None
    try:
        click.echo(derive(read_secret(text, session), region))
    except NoSecretKey as error:
        fail(str(error))
