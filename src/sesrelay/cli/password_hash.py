"""`sesrelay password-hash`: from a password on stdin to what `access.users` wants."""

from __future__ import annotations

import sys

import click

from sesrelay.cli.options import EX_USAGE
from sesrelay.cli.remedies import fail

LONGEST = 255  # octets (RFC 4616 §2)


@click.command("password-hash")
def command() -> None:
    """Read a password and print its argon2id hash, for password_hash under access.users.

    On a terminal it asks for the password twice, without echo; otherwise the first line of stdin is the password.
    """
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        line = sys.stdin.buffer.readline()
        password = line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not _usable(password):
        fail(f"the password must be UTF-8 text of 1 to {LONGEST} octets", EX_USAGE)

    from sesrelay.listener.passwords import make_hash

    click.echo(make_hash(password))


def _usable(password: str) -> bool:
    try:
        octets = password.encode()
    except UnicodeEncodeError:  # octets of stdin that were no UTF-8
        return False
    return 0 < len(octets) <= LONGEST and b"\0" not in octets
