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

    The user name is the access key ID. The password is valid for this region only and not for the API, and it cannot be made
    from temporary credentials (key IDs that begin with ASIA). On a terminal it asks for the key, without echo.
    """
    from sesrelay.aws.smtp_password import NoSecretKey, derive, read_secret

    text = click.prompt("Secret access key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read(4096)
    session = os.environ.get("AWS_SECRET_ACCESS_KEY") if os.environ.get("AWS_SESSION_TOKEN") else None
    try:
        click.echo(derive(read_secret(text, session), region))
    except NoSecretKey as error:
        fail(str(error))
