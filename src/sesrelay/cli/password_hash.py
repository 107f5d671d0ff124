"""`sesrelay password-hash`: from a password on stdin to what `access.users` wants."""

from __future__ import annotations

import sys

import click

from sesrelay.cli.options import EX_USAGE

LONGEST = 255  # octets (RFC 4616 §2)


@click.command("password-hash")
def command() -> None:
    """Read a password and print its argon2id hash, for password_hash under access.users.

    On a terminal the password is asked for, twice and unseen; otherwise the first line of stdin is the password.
    """
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not password or len(password.encode()) > LONGEST or "\0" in password:
        raise SystemExit(_refused(f"a password is meant, of at most {LONGEST} octets"))

    from sesrelay.listener.passwords import make_hash

    click.echo(make_hash(password))


def _refused(why: str) -> int:
    click.echo(f"sesrelay: {why}", err=True)
    return EX_USAGE
